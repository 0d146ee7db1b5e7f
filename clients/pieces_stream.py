"""A terminal's end of streamed pieces: dial the edge, say and hear frames until the round is over, count the way.

Nothing here computes with a model or knows Flower: the work is handed in, and what it is told is handed back. A piece
is computed in one process from the first frame to the last, so no forward pass is made twice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from flower_edge.errors import EdgeError, ProtocolError, TransportRefused
from flower_edge.pieces.order import PieceOrder
from flower_edge.pieces.said import Said
from flower_edge.runtime.pieces.channel import PURPOSE, WINDOW, Turn, is_taken, lost_place, taken, turns
from flower_edge.runtime.pieces.messages import PieceCall, coder_at
from flower_edge.splitting.frame import Frame
from flower_edge.splitting.frames import FrameCoder
from flower_edge.splitting.profile import ModelProfile
from flower_edge.transport.credentials import Insecure, TrustServer
from flower_edge.transport.grpc_transport import GrpcTransport
from flower_edge.transport.transport import Connection, Hello

__all__ = ["Figures", "Taker", "broken_by", "converse"]


class Taker(Protocol):
    """What `converse` needs of a `PieceWork`."""

    def take(self, frame: Frame | None) -> Sequence[Said]:
        """What to say after having heard `frame`; None begins, or goes on where nothing is heard."""
        ...


Work = TypeVar("Work", bound=Taker)


@dataclass
class Figures:
    """How it went, by this host's own clock.

    Attributes:
        frames: said and heard.
        up_bits, down_bits: of them, without what TLS and HTTP/2 add.
        wall_s: seconds from the first frame to the last.
        waited_s: of these, in which this terminal had nothing to compute: for other pieces, and for the way.
        delay_s: one way to the edge, half of the channel's own round trip; None where it was not measured.
    """

    frames: int = 0
    up_bits: int = 0
    down_bits: int = 0
    wall_s: float = 0.0
    waited_s: float = 0.0
    delay_s: float | None = None


def converse(
    call: PieceCall, begin: Callable[[], tuple[Work, ModelProfile]], *, dial_s: float = 20.0, patience_s: float = 900.0
) -> tuple[Work, Figures]:
    """Carry one terminal's round over a channel to `call.address`.

    Args:
        call: with address, token and, for TLS, the certificate of who signed the server's. A piece that is the whole
            model needs no channel.
        begin: makes the work, and tells the model's profile, by which frames are checked. It is called when the channel
            is open: where it fails the channel ends, and the other terminals need not wait.
        dial_s: for the channel to be there.
        patience_s: for one frame. Of an edge that is gone the channel tells within about ten seconds by itself, and the
            edge tells of another terminal that is; this bounds what is left.

    Returns:
        The work, which has its result now, and how it went.

    Raises:
        TransportRefused: the edge does not admit this terminal, or has lost a terminal of the chain: the message says
            which place and why; see `broken_by`.
        TransportError: the channel could not be opened, or broke.
        ProtocolError: a frame that is not due, or a work that says another one than it should.
    """
    order = call.piece
    if order.pieces == 1:
        work, _ = begin()
        work.take(None)
        return work, Figures()
    credentials = TrustServer(call.certificate.encode()) if call.certificate else Insecure()
    hello = Hello(
        purpose=PURPOSE,
        run=call.session,
        node=order.work.number,
        token=call.token,
        data={"round": order.work.round, "place": order.place},
    )
    with GrpcTransport(credentials).dial(call.address, hello, timeout_s=dial_s) as connection:
        round_trip_s = connection.round_trip_s
        work, profile = begin()
        channel = _Channel(order, connection, profile, patience_s)
        begun_s = time.perf_counter()
        _converse(order, work, channel)
        channel.figures.wall_s = time.perf_counter() - begun_s
        channel.figures.delay_s = None if round_trip_s is None else round_trip_s / 2.0
    return work, channel.figures


def broken_by(error: EdgeError, place: int) -> int | None:
    """Which other place of the chain made `converse` fail at `place`; None where none is known to have.

    >>> broken_by(TransportRefused("chain 0 is lost: place 2: ...", "lost-2"), 1)
    2
    >>> broken_by(TransportRefused("a token that has expired", "expired-token"), 1)
    """
    found = lost_place(error.code) if isinstance(error, TransportRefused) else None
    return None if found == place else found


def _converse(order: PieceOrder, work: Taker, channel: _Channel) -> None:
    said: deque[Said] = deque()
    for turn in turns(order):
        if not turn.says:
            said.extend(work.take(channel.hear(turn)))
            continue
        if not said and order.first:
            said.extend(work.take(None))
        one = said.popleft() if said else None
        if one is None or (one.to, one.frame.kind, one.frame.step) != (turn.side, turn.kind, turn.step):
            has = "nothing" if one is None else f"{one.frame.kind.name} of step {one.frame.step} to the {one.to}"
            raise ProtocolError(
                f"the piece at place {order.place} says {has}; expected {turn.kind.name} of step {turn.step} to the "
                f"{turn.side}"
            )
        channel.say(turn, one.frame)
    if said:
        raise ProtocolError(f"the piece at place {order.place} says {said[0].frame.kind.name} after its last step")
    channel.settle()


class _Channel:
    """Frames over a connection; in decoupled mode no more of them than the next piece has room for."""

    def __init__(self, order: PieceOrder, connection: Connection, profile: ModelProfile, patience_s: float) -> None:
        self.figures = Figures()
        self._connection, self._patience_s = connection, patience_s
        self._coders: dict[str, FrameCoder] = {}
        if not order.first:
            self._coders["previous"] = coder_at(order, profile, "previous")
        if not order.last:
            self._coders["next"] = coder_at(order, profile, "next")
        self._exact, self._first_step = order.mode == "exact", order.work.first_step
        #: Decoupled mode: frames said to the next piece, and how many of them it has taken.
        self._sent = self._let_go = 0
        self._came: deque[bytes] = deque()

    def say(self, turn: Turn, frame: Frame) -> None:
        """Send a frame when there is room for it."""
        while not self._exact and self._sent - self._let_go >= WINDOW:
            self._receive()
        data = self._coders[turn.side].encode(frame)
        self._sent += turn.side == "next"
        self._send(data)
        self.figures.frames += 1
        self.figures.up_bits += 8 * len(data)

    def hear(self, turn: Turn) -> Frame:
        """The frame that is due."""
        while not self._came:
            self._receive()
        data = self._came.popleft()
        self.figures.frames += 1
        self.figures.down_bits += 8 * len(data)
        if not self._exact:
            self._send(taken(turn.step))
        return self._coders[turn.side].decode(data, turn.kind, turn.step)

    def settle(self) -> None:
        """Wait until the next piece has taken all frames: then it needs nothing more of this terminal."""
        while not self._exact and self._let_go < self._sent:
            self._receive()

    def _receive(self) -> None:
        begun_s = time.perf_counter()
        payload = self._connection.receive(self._patience_s)
        self.figures.waited_s += time.perf_counter() - begun_s
        if not self._exact and self._let_go < self._sent and is_taken(payload, self._first_step + self._let_go):
            self._let_go += 1
        else:
            self._came.append(payload)

    def _send(self, data: bytes) -> None:
        begun_s = time.perf_counter()
        self._connection.send(data, timeout_s=self._patience_s)
        self.figures.waited_s += time.perf_counter() - begun_s
