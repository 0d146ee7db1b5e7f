"""Two network namespaces and a wire between them that tests may cut, slow down, delay or make lossy. Needs root.

The wire is this process: it reads IP packets from a TUN device of one namespace and writes them to that of the other.
The kernels that tests run on have no netem, and a wire of a few dozen lines does what is needed of it.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import pytest

__all__ = ["Way", "Wire", "inside", "needs_namespaces"]

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
#: Of packets that wait because the wire is slow; what comes on top is lost, as in a router.
_MOST_WAITING_BYTES = 256_000


def needs_namespaces() -> None:
    """Skip the test where there can be none, and say why."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    name = f"fe{os.getpid()}probe"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("no /dev/net/tun here")


@dataclass
class Way:
    """One direction of the wire; may be changed at any time."""

    open: bool = True
    loss: float = 0.0
    delay_s: float = 0.0
    bps: float = 0.0
    #: Seconds open, then as many cut, again and again; 0: not.
    flaps_s: float = 0.0

    def carries(self, now_s: float, draw: random.Random) -> bool:
        """Whether a packet of now arrives."""
        flapped = self.flaps_s > 0 and int(now_s / self.flaps_s) % 2 == 1
        return self.open and not flapped and draw.random() >= self.loss


class Wire:
    """Namespaces `spaces[0]` and `spaces[1]` with the addresses 10.78.0.1 and 10.78.0.2, and the two ways between."""

    addresses = ("10.78.0.1", "10.78.0.2")

    def __init__(self) -> None:
        self.spaces = tuple(f"fe{os.getpid()}-{time.monotonic_ns() % 10**9}-{at}" for at in (0, 1))
        #: From the first to the second, and back.
        self.ways = (Way(), Way())
        self.lost = 0
        #: What has arrived by each of the ways, headers of IP included.
        self.carried_bytes = [0, 0]
        self._files: list[int] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)

    def __enter__(self) -> Self:
        try:
            for at, space in enumerate(self.spaces):
                _ip("netns", "add", space)
                self._files.append(_tun(space))
                _ip("-n", space, "address", "add", f"{self.addresses[at]}/24", "dev", "tun0")
                for link in ("lo", "tun0"):
                    _ip("-n", space, "link", "set", link, "up")
            self._thread.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(10)
        for file in self._files:
            os.close(file)
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)

    def command(self, at: int, words: list[str]) -> list[str]:
        """A command, to be run in one of the namespaces."""
        return ["ip", "netns", "exec", self.spaces[at], *words]

    def socket(self, at: int) -> socket.socket:
        """For datagrams, in one of the namespaces, at port 9000."""
        with inside(self.spaces[at]):
            own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own.bind((self.addresses[at], 9000))
        own.settimeout(5.0)
        return own

    def both(self, **changed: Any) -> None:
        """Change both ways alike."""
        for way in self.ways:
            for name, value in changed.items():
                setattr(way, name, value)

    def as_new(self) -> None:
        """Open, fast, and loses nothing."""
        self.both(open=True, loss=0.0, delay_s=0.0, bps=0.0, flaps_s=0.0)

    def _carry(self) -> None:
        draw, number = random.Random(0), 0
        waiting: list[tuple[float, int, int, bytes]] = []
        free_s, queued = [0.0, 0.0], [0, 0]
        while not self._ending.is_set():
            wait_s = min(0.05, max(0.0, waiting[0][0] - time.monotonic())) if waiting else 0.05
            for file in select.select(self._files, [], [], wait_s)[0]:
                at = self._files.index(file)
                packet, way, now_s = os.read(file, 1 << 16), self.ways[at], time.monotonic()
                if not way.carries(now_s, draw) or (way.bps and queued[at] > _MOST_WAITING_BYTES):
                    self.lost += 1
                    continue
                leaves_s = max(now_s, free_s[at]) + (8 * len(packet) / way.bps if way.bps else 0.0)
                free_s[at], number = leaves_s, number + 1
                queued[at] += len(packet)
                heapq.heappush(waiting, (leaves_s + way.delay_s, number, at, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, at, packet = heapq.heappop(waiting)
                queued[at] -= len(packet)
                os.write(self._files[1 - at], packet)
                self.carried_bytes[at] += len(packet)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _tun(space: str) -> int:
    """A TUN device named tun0 in a namespace; it stays there, and its file is ours."""
    with inside(space):
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI))
    return file


@contextmanager
def inside(space: str) -> Iterator[None]:
    """This thread, and no other, is in the namespace."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path: str) -> None:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(file, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns to {path}")
        finally:
            os.close(file)

    own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
    before = os.open(own, os.O_RDONLY | os.O_CLOEXEC)
    enter(f"/var/run/netns/{space}")
    try:
        yield
    finally:
        if libc.setns(before, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns back")
        os.close(before)
