"""Frames over a socket of this machine, between two programs that know the same secret. Bytes, and nothing else.

    who dials      16 bytes that say what this is, 32 random bytes
    who listens    32 random bytes, HMAC-SHA256 over both: it knows the secret
    who dials      HMAC-SHA256 over both the other way round: so does it
    both           frames: 8 bytes length, big-endian, and so many bytes

Neither end sends anything before the other has proved itself, and the secret is never sent. What follows is neither
encrypted nor signed: it does not leave this machine. Every call has a deadline on the monotonic clock, and memory
grows with the bytes that came, not with those announced.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from ...errors import ProtocolError, TransportError

__all__ = ["HOST", "Channel", "Listener", "dial"]

HOST: Final = "127.0.0.1"
_MAGIC: Final = b"flower-edge-br/1"
_RANDOM: Final = 32
_DIGEST: Final = 32
_PIECE: Final = 1 << 20
#: How long a program that has connected may take to prove that it knows the secret.
_HANDSHAKE_S: Final = 5.0


def _proof(key: bytes, who: bytes, first: bytes, second: bytes) -> bytes:
    return hmac.new(key, who + first + second, hashlib.sha256).digest()


class Channel:
    """One end of an authenticated connection.

    Args:
        stream: connected, and proved.
        most_bytes: the longest frame taken.
    """

    def __init__(self, stream: socket.socket, most_bytes: int) -> None:
        self._stream, self._most_bytes = stream, most_bytes

    def send(self, frame: bytes, *, latest_s: float) -> None:
        """Send a frame until `latest_s` on the monotonic clock.

        Raises:
            TransportError: the other end is gone, or does not take it in time.
        """
        _send(self._stream, struct.pack(">Q", len(frame)), latest_s)
        _send(self._stream, frame, latest_s)

    def receive(self, *, latest_s: float) -> bytes:
        """The next frame, until `latest_s` on the monotonic clock.

        Raises:
            TransportError: the other end is gone, or nothing whole came in time.
            ProtocolError: a frame longer than is taken.
        """
        (length,) = struct.unpack(">Q", _take(self._stream, 8, latest_s))
        if length > self._most_bytes:
            raise ProtocolError(f"a frame of {length} bytes is announced, at most {self._most_bytes} are taken")
        return bytes(_take(self._stream, length, latest_s))

    @property
    def gone(self) -> bool:
        """Whether the other end has closed it, as far as is known by now."""
        self._stream.settimeout(0.0)
        try:
            return self._stream.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """End it; the other end notices."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def dial(port: int, key: bytes, *, most_bytes: int, latest_s: float) -> Channel:
    """Connect to a listener of this machine and prove each other.

    Raises:
        TransportError: nobody listens, does not answer in time, or does not know the secret.
    """
    left_s = latest_s - time.monotonic()
    if left_s <= 0:
        raise TransportError(f"no time is left to dial {HOST}:{port}")
    try:
        stream = socket.create_connection((HOST, port), timeout=left_s)
    except OSError as error:
        raise TransportError(f"nobody answers at {HOST}:{port} ({error.strerror or error})") from None
    try:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own = secrets.token_bytes(_RANDOM)
        _send(stream, _MAGIC + own, latest_s)
        other = bytes(_take(stream, _RANDOM, latest_s))
        proof = bytes(_take(stream, _DIGEST, latest_s))
        if not hmac.compare_digest(proof, _proof(key, b"listens", own, other)):
            raise TransportError(f"whoever listens at {HOST}:{port} does not know the key of this bridge")
        _send(stream, _proof(key, b"dials", other, own), latest_s)
    except BaseException:
        stream.close()
        raise
    return Channel(stream, most_bytes)


class Listener:
    """Listens on a free port of the loopback address.

    Args:
        key: the secret.
        most_bytes: the longest frame taken.
    """

    def __init__(self, key: bytes, *, most_bytes: int) -> None:
        self._key, self._most_bytes = key, most_bytes
        self._socket = socket.create_server((HOST, 0), backlog=16)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._socket.getsockname()[1])

    def accept(self) -> Callable[[], Channel] | None:
        """Wait for a program to connect; `None` when the listener was closed.

        Returns:
            What proves it and gives the channel. It may take seconds, and raises `TransportError` where the other
            does not know the secret: call it in a thread of its own, so that nobody can keep the others waiting.
        """
        while True:
            try:
                stream, _ = self._socket.accept()
            except OSError:
                if self._socket.fileno() < 0:
                    return None
                time.sleep(0.05)  # too many open files, or a connection that was gone again
                continue
            return lambda: self._prove(stream)

    def _prove(self, stream: socket.socket) -> Channel:
        latest_s = time.monotonic() + _HANDSHAKE_S
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            said = bytes(_take(stream, len(_MAGIC) + _RANDOM, latest_s))
            if said[: len(_MAGIC)] != _MAGIC:
                raise TransportError("somebody connected to the bridge who speaks something else")
            other, own = said[len(_MAGIC) :], secrets.token_bytes(_RANDOM)
            _send(stream, own + _proof(self._key, b"listens", other, own), latest_s)
            if not hmac.compare_digest(
                bytes(_take(stream, _DIGEST, latest_s)), _proof(self._key, b"dials", own, other)
            ):
                raise TransportError("somebody connected to the bridge who does not know its key")
        except BaseException:
            stream.close()
            raise
        return Channel(stream, self._most_bytes)

    def close(self) -> None:
        """Stop listening; connections that are open stay."""
        # A thread that waits in accept is not woken by close alone.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _wait(stream: socket.socket, latest_s: float, what: str) -> None:
    left_s = latest_s - time.monotonic()
    if left_s <= 0:
        raise TransportError(f"the other end of the bridge did not {what} in time")
    stream.settimeout(left_s)


def _send(stream: socket.socket, data: bytes, latest_s: float) -> None:
    view = memoryview(data)
    while view:
        _wait(stream, latest_s, "take what was sent")
        try:
            view = view[stream.send(view[:_PIECE]) :]
        except TimeoutError:
            continue
        except OSError as error:
            raise TransportError(f"the other end of the bridge is gone ({error.strerror or error})") from None


def _take(stream: socket.socket, count: int, latest_s: float) -> bytearray:
    got = bytearray()
    while len(got) < count:
        _wait(stream, latest_s, "say anything")
        try:
            piece = stream.recv(min(_PIECE, count - len(got)))
        except TimeoutError:
            continue
        except OSError as error:
            raise TransportError(f"the other end of the bridge is gone ({error.strerror or error})") from None
        if not piece:
            raise TransportError("the other end of the bridge has closed the connection")
        got += piece
    return got
