"""A port of this machine behind which another is: what goes through is passed on, and its bytes are counted by time."""

from __future__ import annotations

import bisect
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["CountedPort", "counted_port"]

_HOST = "127.0.0.1"


class CountedPort:
    """Made by `counted_port`; `port` is where to dial."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server((_HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._times: list[float] = [time.monotonic()]
        self._totals: list[int] = [0]

    def accept(self) -> None:
        """Pass connections on until it is closed."""
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            try:
                there = socket.create_connection((_HOST, self._target), timeout=10.0)
            except OSError:
                here.close()
                continue
            there.settimeout(None)
            threading.Thread(target=self._connect, args=(here, there), daemon=True).start()

    def _connect(self, here: socket.socket, there: socket.socket) -> None:
        with here, there:
            back = threading.Thread(target=self._pass_on, args=(there, here), daemon=True)
            back.start()
            self._pass_on(here, there)
            back.join()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                with self._lock:
                    self._times.append(time.monotonic())
                    self._totals.append(self._totals[-1] + len(data))
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def bytes_between(self, begin_s: float, end_s: float) -> int:
        """Both ways, headers of HTTP and polls included, between two times of the monotonic clock."""
        with self._lock:
            begin, end = (bisect.bisect_right(self._times, at) - 1 for at in (begin_s, end_s))
            return self._totals[max(end, 0)] - self._totals[max(begin, 0)]

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def counted_port(target: int) -> Iterator[CountedPort]:
    """A port whose bytes are counted on their way to `target` and back."""
    port = CountedPort(target)
    threading.Thread(target=port.accept, daemon=True).start()
    try:
        yield port
    finally:
        port.close()
