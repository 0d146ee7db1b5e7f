"""`LinkShaper`: a relay between two processes of one machine that makes their connection as slow as a link.

    A  ->  shaper  ->  B     each byte leaves at the link's rate and arrives its delay later
    A  <-  shaper  <-  B     the same by another link, which is free unless told otherwise

For tests, scenarios and benchmarks. It knows TCP only: what goes through may be encrypted. Its rate counts all bytes
of a connection, so frames arrive a little slower than alone: TLS and gRPC add about one per cent.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Self

from ...errors import TransportError
from ...fringe.links import Link
from ...transport.credentials import split_address

__all__ = ["LinkShaper"]

#: What is read at once carries so many seconds of the rate, within these bytes.
_PIECE_S, _LEAST_BYTES, _MOST_BYTES = 0.001, 512, 1 << 16
#: How far ahead of the rate bytes are read: a change of the rate holds from there on.
_AHEAD_S = 0.002


class _Direction:
    """One way of the link, shared by all connections over it."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.carried_bytes = 0
        self._free_s = 0.0
        self._lock = threading.Lock()

    @property
    def free(self) -> bool:
        """As if there was no link."""
        return self.link.goodput_bps == math.inf and not self.link.delay_s

    def piece_bytes(self) -> int:
        return int(min(max(self.link.goodput_bps * _PIECE_S / 8, _LEAST_BYTES), _MOST_BYTES))

    def book(self, size_bytes: int) -> tuple[float, float]:
        """When a piece that came now has left, and when it arrives."""
        with self._lock:
            link = self.link
            self._free_s = max(self._free_s, time.monotonic()) + 8 * size_bytes / link.goodput_bps
            self.carried_bytes += size_bytes
            return self._free_s, self._free_s + link.delay_s


class LinkShaper:
    """Listens on this machine's loopback between `open` and `close`; a context manager of the two.

    Args:
        target: host:port that it connects whoever dials it to.
        link: towards the target.
        back: the other way; None: as if there was none. Round trips then take `link`'s delay once.
        port: where it listens; 0 takes a free one, see `address`.

    >>> LinkShaper("127.0.0.1:9", Link(10e6, 0.010)).link
    Link(goodput_bps=10000000.0, delay_s=0.01)
    """

    def __init__(self, target: str, link: Link, *, back: Link | None = None, port: int = 0) -> None:
        self._target = split_address(target)
        self._there, self._back = _Direction(link), _Direction(back or Link(math.inf))
        self._port = port
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()

    @property
    def link(self) -> Link:
        """Towards the target, now."""
        return self._there.link

    @property
    def carried_bytes(self) -> tuple[int, int]:
        """Bytes of TCP connections so far: towards the target, and back."""
        return self._there.carried_bytes, self._back.carried_bytes

    @property
    def address(self) -> str:
        """To be dialled instead of the target.

        Raises:
            TransportError: it does not listen.
        """
        if self._listener is None:
            raise TransportError("this LinkShaper does not listen; call open() first")
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def change(self, link: Link, *, back: Link | None = None) -> None:
        """Another link from now on; what is under way arrives as it was going to."""
        self._there.link = link
        if back is not None:
            self._back.link = back

    def open(self) -> None:
        """Listen.

        Raises:
            TransportError: the port is taken.
        """
        if self._listener is None:
            try:
                self._listener = socket.create_server(("127.0.0.1", self._port))
            except OSError as error:
                raise TransportError(f"cannot listen on 127.0.0.1:{self._port}: {error.strerror}") from error
            self._closing.clear()
            self._start(self._accept, self._listener)

    def close(self) -> None:
        """End all connections over it, and stop listening. Safe to call twice."""
        self._closing.set()
        listener, self._listener = self._listener, None
        if listener is not None:
            # A thread in accept() is not woken by close() alone.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            left = list(self._open)
        for one in left:
            _end(one)
        for thread in list(self._threads):
            thread.join(5.0)
        self._threads.clear()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- connections -------------------------------------------------------------------------------------------------

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="link shaper", daemon=True)  # type: ignore[arg-type]
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]
            thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._closing.is_set():
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, timeout=5.0)
            except OSError:
                near.close()  # whoever dialled learns that nobody is there
                continue
            far.settimeout(None)
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {near, far}
                closing = self._closing.is_set()
            if closing:  # `close` has not seen these two
                _end(near)
                _end(far)
                return
            for source, sink, way in ((near, far, self._there), (far, near, self._back)):
                pipe = _Pipe()
                self._start(self._take, source, sink, pipe, way)
                self._start(self._give, sink, pipe)

    def _take(self, source: socket.socket, sink: socket.socket, pipe: _Pipe, way: _Direction) -> None:
        """Read no faster than the rate; who sends then waits, as on a link."""
        while True:
            try:
                data = source.recv(way.piece_bytes())
            except OSError:
                data = b""
            if not data:
                pipe.put(0.0, b"")
                return
            left_s, arrives_s = way.book(len(data))
            if way.free and pipe.empty:
                # Nothing is under way that it could overtake; one thread less to wake.
                try:
                    sink.sendall(data)
                except OSError:
                    pipe.put(0.0, b"")
                    return
                continue
            pipe.put(arrives_s, data)
            ahead_s = left_s - time.monotonic() - _AHEAD_S
            if ahead_s > 0 and self._closing.wait(ahead_s):
                pipe.put(0.0, b"")
                return

    def _give(self, sink: socket.socket, pipe: _Pipe) -> None:
        while True:
            arrives_s, data = pipe.get()
            wait_s = arrives_s - time.monotonic()
            if not data or (wait_s > 0 and self._closing.wait(wait_s)):
                break
            try:
                sink.sendall(data)
            except OSError:
                break
            pipe.gave()
        # Half a connection is of no use to gRPC: the other way ends with this one.
        _end(sink)
        with self._lock:
            self._open.discard(sink)


class _Pipe:
    """Bytes and when they arrive, in order."""

    def __init__(self) -> None:
        self._items: deque[tuple[float, bytes]] = deque()
        self._changed = threading.Condition()
        self._under_way = 0

    def put(self, arrives_s: float, data: bytes) -> None:
        with self._changed:
            self._items.append((arrives_s, data))
            self._under_way += 1
            self._changed.notify()

    def gave(self) -> None:
        """What was got last has been sent."""
        with self._changed:
            self._under_way -= 1

    @property
    def empty(self) -> bool:
        """Everything that was put has been sent."""
        return not self._under_way

    def get(self) -> tuple[float, bytes]:
        with self._changed:
            self._changed.wait_for(lambda: self._items)
            return self._items.popleft()


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        one.close()
