"""One end of an opened stream, the same for whoever dialled and whoever serves: `send`, `receive`, `ping`, `close`.

Closing: each end says BYE once, after its last message, and answers the other's BYE with its own. When both have been
said everything sent has been received, and the stream ends; one that ends before was broken.
"""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import grpc

from ..errors import TransportError, TransportRefused
from .pieces import ALIVE, BYE, FIRST, MORE, OPEN, PING, PONG, Assembly
from .pulse import PeerSilent, Pulse
from .queues import Inbox, Outbox, again
from .transport import Connection, ConnectionClosed, Figures, Limits, Peer, TransportTimeout

__all__ = ["CODE_KEY", "GrpcConnection", "PeerLimits", "told"]


@dataclass(frozen=True)
class PeerLimits:
    """What each end tells the other before anything else.

    Attributes:
        message_bytes: the longest message it takes.
        keepalive_s: it worries after twice this time without a word.
    """

    message_bytes: int
    keepalive_s: float

    @classmethod
    def of(cls, limits: Limits) -> PeerLimits:
        """To be told."""
        return cls(limits.message_bytes, limits.keepalive_s)

    def before(self, rest: bytes) -> bytes:
        """As bytes in front of others."""
        return _LIMITS.pack(self.message_bytes, max(1, round(self.keepalive_s * 1e3))) + rest

    @classmethod
    def split(cls, data: bytes) -> tuple[PeerLimits, bytes]:
        """What was told, and the rest.

        Raises:
            TransportRefused: `bad-hello`: too short.
        """
        if len(data) < _LIMITS.size:
            raise TransportRefused("a hello that is too short; is the other end this transport?", "bad-hello")
        message_bytes, keepalive_ms = _LIMITS.unpack_from(data)
        # Nobody is made to talk without a pause, or to wait for ever.
        return cls(message_bytes, min(max(keepalive_ms / 1e3, 0.05), 3600.0)), data[_LIMITS.size :]


#: Key of the metadata in which a refusal's code travels.
CODE_KEY: Final = "flower-edge-code"
_LIMITS: Final = struct.Struct(">QQ")
_PING: Final = struct.Struct(">BQ")


def told(error: grpc.RpcError, what: str) -> TransportError:
    """What a failed call means, in our words; `TransportRefused` where the other end gave a code."""
    details = str(error.details() or "") if isinstance(error, grpc.Call) else str(error)
    trailing = (error.trailing_metadata() or ()) if isinstance(error, grpc.Call) else ()
    for key, value in trailing:
        if key == CODE_KEY:
            return TransportRefused(details, str(value))
    status = error.code().name if isinstance(error, grpc.Call) and error.code() is not None else "cancelled"
    return TransportError(f"{what}: {details[:500] or 'it went away'} ({status.lower().replace('_', ' ')})")


class GrpcConnection(Connection):
    """One end of a stream.

    Args:
        peer: the other end.
        limits: of this end.
        peer_limits: the longest message the other end said it takes, and after how long a silence it worries.
        cancel: ends the call at once, from any thread; idempotent.

    The owner hands `outgoing()` to gRPC as what is sent and calls `listen` with what comes in. `opened` is set when
    the other end's OPEN has come, `over` when the stream has ended either way.
    """

    def __init__(
        self, peer: Peer, limits: Limits, peer_limits: PeerLimits, *, cancel: Callable[[], object] = lambda: None
    ) -> None:
        self.peer = peer
        self.limits = limits
        self.opened = threading.Event()
        self.over = threading.Event()
        #: Why the stream was ended by this end, for the owner to tell the other; None where it was not.
        self.fault: TransportRefused | None = None
        self._peer_takes_bytes = peer_limits.message_bytes
        self.cancel = cancel
        self._ended: TransportError | None = None
        self._pulse = Pulse(2.0 * limits.keepalive_s)
        self._outbox = Outbox(limits.chunk_bytes, self._pulse, peer_limits.keepalive_s)
        self._inbox = Inbox(limits.message_bytes, self._pulse)
        self._assembly = Assembly(limits.message_bytes)
        self._reader: threading.Thread | None = None
        self._pings = itertools.count()
        self._pongs: dict[int, float | None] = {}
        self._ponged = threading.Condition()
        self._round_trip_s: float | None = None
        self._received_bits = 0
        self._received_messages = 0
        self._receiving_s = 0.0
        self._began_s = 0.0
        self._peer_closed = False

    def send(self, payload: bytes, *, timeout_s: float | None = None) -> None:
        if len(payload) > self._peer_takes_bytes:
            raise TransportRefused(
                f"a message of {len(payload)} bytes, the other end takes {self._peer_takes_bytes}; raise "
                "Limits(message_bytes=…) there",
                "too-large",
            )
        # What waits must not change any more.
        with self._unless_silent():
            self._outbox.put(bytes(payload), self._idle_s(timeout_s))

    def receive(self, timeout_s: float | None = None) -> bytes:
        with self._unless_silent():
            return self._inbox.get(self._idle_s(timeout_s))

    def flush(self, timeout_s: float | None = None) -> None:
        with self._unless_silent():
            self._outbox.flush(self._idle_s(timeout_s))

    def pace(self, bps: float | None) -> None:
        self._outbox.pace(bps)

    def ping(self, timeout_s: float | None = None) -> float:
        wait_s = self._idle_s(timeout_s)
        with self._ponged:
            number = next(self._pings)
            self._pongs[number] = None
            start_s = time.monotonic()
            self._outbox.control(_PING.pack(PING, number))
            try:
                self._ponged.wait_for(lambda: self._pongs[number] is not None or self._ended is not None, wait_s)
                came_s = self._pongs[number]
            finally:
                del self._pongs[number]
        if came_s is None:
            if self._ended is not None:
                raise again(self._ended)
            raise TransportTimeout(f"the other end did not answer a ping within {wait_s:g} s")
        self._round_trip_s = came_s - start_s
        return self._round_trip_s

    @property
    def round_trip_s(self) -> float | None:
        return self._round_trip_s

    @property
    def figures(self) -> Figures:
        return Figures(
            self._outbox.sent_bits,
            self._received_bits,
            self._outbox.sent_messages,
            self._received_messages,
            self._outbox.sending_s,
            self._receiving_s,
        )

    def close(self) -> None:
        self.finish()
        if not self.over.wait(self.limits.close_s):
            self.abandon(ConnectionClosed("this end has closed the connection"))
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(self.limits.close_s)

    def finish(self) -> None:
        """Begin to close: no more is taken or given out, what is queued is sent, then BYE. Returns at once."""
        closed = ConnectionClosed("this end has closed the connection")
        self._outbox.finish(closed)
        self._inbox.end(closed, drop=True)
        self._note(closed)

    def abandon(self, error: TransportError) -> None:
        """End it now; what is on its way is lost."""
        self.end(error)
        self.cancel()

    def refuse(self, refused: TransportRefused) -> None:
        """End it now and leave it to the owner to tell the other end why."""
        self.fault = self.fault or refused
        self.end(refused)

    def end(self, error: TransportError) -> None:
        """Nothing goes or comes any more, for this reason, unless there was one before."""
        self._inbox.end(error)
        self._outbox.stop(error)
        self._note(error)

    def outgoing(self) -> Iterator[bytes]:
        """What gRPC is to send; ends with the connection."""
        yield from self._outbox.pieces()

    def listen(self, incoming: Iterable[bytes], name: str) -> None:
        """Read `incoming` in a thread of its own until it ends."""
        self._reader = threading.Thread(target=self._read, args=(incoming,), name=name, daemon=True)
        self._reader.start()

    def _read(self, incoming: Iterable[bytes]) -> None:
        error: TransportError = TransportError("the other end broke off the connection")
        in_order = False
        try:
            self._pulse.listening()
            for data in incoming:
                self._pulse.busy()
                self._take(data)
                self._pulse.listening()
            in_order = self._peer_closed
        except TransportRefused as refused:
            self.fault = self.fault or refused
            error = refused
        except grpc.RpcError as failed:
            error = told(failed, "the connection broke")
        self._pulse.busy()
        if self._peer_closed:
            error = ConnectionClosed("the other end has closed the connection")
        if not in_order:
            # Otherwise our own BYE may still be on its way, and ends it.
            self._outbox.stop(error)
        self._inbox.end(error)
        self._note(error)
        self.over.set()
        self.ended()

    def _note(self, error: TransportError) -> None:
        """Tell whoever waits for something else than messages."""
        with self._ponged:
            self._ended = self._ended or error
            self._ponged.notify_all()
        self.opened.set()

    def ended(self) -> None:
        """Called by the reader when nothing will come any more."""

    def _take(self, data: bytes) -> None:
        """Take a piece. Only the reader calls it.

        Raises:
            TransportRefused: `too-large` or `bad-piece`.
        """
        kind = data[0] if data else 0
        if kind in (FIRST, MORE) and not self._peer_closed:
            self._take_data(data)
        elif kind == PING and len(data) == _PING.size:
            self._outbox.control(bytes([PONG]) + data[1:])
        elif kind == PONG and len(data) == _PING.size:
            with self._ponged:
                number = _PING.unpack(data)[1]
                if number in self._pongs:
                    self._pongs[number] = time.monotonic()
                    self._ponged.notify_all()
        elif kind == ALIVE and len(data) == 1:
            pass
        elif kind == OPEN and len(data) == 1 and not self.opened.is_set():
            self.opened.set()
        elif kind == BYE and len(data) == 1 and not self._peer_closed:
            self._peer_closed = True
            closed = ConnectionClosed("the other end has closed the connection")
            self._inbox.end(closed)
            self._outbox.finish(closed, answered=True)
        else:
            raise TransportRefused(f"a piece that means nothing here: {data[:16].hex()}", "bad-piece")

    def _take_data(self, data: bytes) -> None:
        begun = self._assembly.begun
        if not begun:
            self._began_s = time.monotonic()
        message = self._assembly.take(data)
        if message is not None:
            self._received_bits += 8 * len(message)
            self._received_messages += 1
            if begun:
                self._receiving_s += time.monotonic() - self._began_s
            self._inbox.put(message)

    @contextmanager
    def _unless_silent(self) -> Iterator[None]:
        """Whoever finds out that the other end is gone ends the connection for all."""
        try:
            yield
        except PeerSilent as silent:
            self.abandon(silent)
            raise

    def _idle_s(self, timeout_s: float | None) -> float:
        return self.limits.idle_s if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX)
