"""A letter over a connection between two agents: offered, answered, sent from where it was cut, acknowledged.

    the one who has it                       the one whom it is for
    OFFER  seconds on legs before · header ->
                                          <- Answer: go from this offset; or why not
    pieces, as they are                   ->
                                          <- Answer: ok, and how long it took; or why not

Whoever dialled, either end may be the one who has letters. An offer that is refused costs nothing and the connection
goes on; a letter that goes wrong ends the connection, with a code. Nothing here decides who may send.
"""

from __future__ import annotations

import math
import os
import queue
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from ...errors import TransportError, TransportRefused
from ...transport.transport import Connection, ConnectionClosed
from .headers import HEADER_BYTES, Answer, SignedHeader
from .letter_files import Part, StoredLetter
from .settings import CHUNK_BYTES, LEAST_CHUNK_BYTES, AgentLimits

__all__ = ["Admit", "Answers", "Delivered", "Outgoing", "deliver", "take_letter"]

_OFFER: Final = struct.Struct(">cd")
_O: Final = b"O"
#: A piece that took longer than this to hand over was too long for its link, one that took less could be longer.
_LONG_S: Final = 0.5
_SHORT_S: Final = 0.05
_GRACE_S: Final = 60.0


class Answers:
    """Reads what the other end of a connection says, so that its end is noticed at once, also when nothing is sent.

    Args:
        connection: over which letters are delivered.
        lost: called once, in another thread, when it has ended.
    """

    def __init__(self, connection: Connection, lost: Callable[[TransportError], None]) -> None:
        self._connection, self._lost = connection, lost
        self._came: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        #: Why it has ended; None while it has not.
        self.error: TransportError | None = None
        threading.Thread(target=self._read, name=f"flower-edge answers {connection.peer.address}", daemon=True).start()

    def next(self, timeout_s: float) -> bytes:
        """What was said next.

        Raises:
            TransportError: nothing in time, or it has ended.
        """
        try:
            data = self._came.get(timeout=timeout_s)
        except queue.Empty:
            raise TransportError(f"the other agent did not answer within {timeout_s:g} s") from None
        if data is None:
            error = self.error or ConnectionClosed("the connection has ended")
            self._came.put(None)
            if isinstance(error, TransportRefused):
                raise TransportRefused(str(error), error.code)
            raise TransportError(str(error))
        return data

    def _read(self) -> None:
        try:
            while True:
                self._came.put(self._connection.receive(math.inf))
        except TransportError as error:
            self.error = error
        self._came.put(None)
        self._lost(self.error)


@dataclass(frozen=True)
class Outgoing:
    """A letter to be delivered.

    Attributes:
        signed: its header.
        fd: its open file.
        payload_at: where in that it begins.
        carried_s: seconds on legs before; None where this is the first.
    """

    signed: SignedHeader
    fd: int
    payload_at: int
    carried_s: float | None = None


@dataclass(frozen=True)
class Delivered:
    """How it went, by the sender's clock where not said otherwise.

    Attributes:
        code: `ok`; or what the receiver answered to the offer, such as `have`; or to the letter, `bad-digest`.
        why: the same for people.
        offer_s: the offer's round trip.
        first_to_ack_s: from the first piece to the acknowledgement; None where nothing was sent.
        receiver_s: from `go` until the letter was there, by the receiver's clock.
        sent_bytes: in this attempt.
        offset: where it went on.
    """

    code: str
    why: str
    offer_s: float
    first_to_ack_s: float | None = None
    receiver_s: float | None = None
    sent_bytes: int = 0
    offset: int = 0


class Chunks:
    """How long the pieces of a letter are on a link: short while it is not known to be fast, or after it was cut.

    A neighbour that hears nothing for a while takes the link for dead, and hears of a piece when it has come whole.
    """

    def __init__(self) -> None:
        self._most_bytes = CHUNK_BYTES
        self._bytes = LEAST_CHUNK_BYTES

    def bytes_at(self, bps: float | None) -> int:
        """Of the next one."""
        if bps is None:
            return self._bytes
        # The transport cuts it into pieces of 10 ms; this is how much waits in memory.
        return max(4096, min(CHUNK_BYTES, int(bps / 8)))

    def took(self, seconds: float) -> None:
        """What it took to hand one over."""
        if seconds > _LONG_S:
            self._bytes = max(4096, self._bytes // 2)
        elif seconds < _SHORT_S:
            self._bytes = min(self._most_bytes, 2 * self._bytes)

    def cut(self) -> None:
        """The link was lost while a letter was under way."""
        self._most_bytes = max(4096, self._most_bytes // 2)
        self._bytes = min(self._most_bytes, LEAST_CHUNK_BYTES)


def deliver(
    connection: Connection,
    answers: Answers,
    letter: Outgoing,
    chunks: Chunks,
    limits: AgentLimits,
    rate_bps: Callable[[], float | None] = lambda: None,
) -> Delivered:
    """Offer a letter, and send what the other end lacks of it.

    Raises:
        TransportRefused: the other end ended the connection, and said why.
        TransportError: the connection broke, or nothing was answered in time.
    """
    header = letter.signed.header
    carried_s = math.nan if letter.carried_s is None else letter.carried_s
    begun_s = time.monotonic()
    connection.send(_OFFER.pack(_O, carried_s) + letter.signed.to_bytes(), timeout_s=limits.answer_s)
    answer = Answer.from_bytes(answers.next(limits.answer_s))
    offered_s = time.monotonic()
    if answer.code != "go":
        return Delivered(answer.code, answer.why, offered_s - begun_s)
    if answer.offset > header.size:
        raise TransportRefused(f"the other end has {answer.offset} of {header.size} bytes", "bad-answer")
    at = answer.offset
    while at < header.size:
        data = os.pread(letter.fd, min(chunks.bytes_at(rate_bps()), header.size - at), letter.payload_at + at)
        if not data:
            raise TransportError(f"{header.size - at} bytes of a letter are missing on this host; was its file cut?")
        handed_s = time.monotonic()
        connection.send(data, timeout_s=limits.answer_s)
        chunks.took(time.monotonic() - handed_s)
        at += len(data)
    ended = Answer.from_bytes(answers.next(limits.answer_s))
    acked_s = time.monotonic()
    return Delivered(
        ended.code,
        ended.why,
        offered_s - begun_s,
        acked_s - offered_s,
        ended.took_s,
        header.size - answer.offset,
        answer.offset,
    )


class Admit(Protocol):
    """Decides about an offer."""

    def __call__(self, signed: SignedHeader) -> Part:
        """Where the letter goes.

        Raises:
            TransportRefused: it is not taken; its code and words are the answer.
        """


def take_letter(
    connection: Connection,
    admit: Admit,
    limits: AgentLimits,
    arrived: Callable[[StoredLetter, float | None], None],
    *,
    relayed: bool,
) -> None:
    """Take one offer, and the letter if it is admitted.

    Args:
        connection: with somebody who proved who it is.
        admit: is asked about the header.
        limits: bounds of time.
        arrived: called with a letter that is there, before it is acknowledged.
        relayed: whether the other end relays.

    Raises:
        TransportRefused: what came is no offer or no letter: the connection is to be ended with this code.
        TransportError: it has ended.
    """
    offer = connection.receive(math.inf)
    if not _OFFER.size < len(offer) <= _OFFER.size + HEADER_BYTES or offer[:1] != _O:
        raise TransportRefused(f"an offer was expected, {len(offer)} other bytes came", "bad-offer")
    _, told_s = _OFFER.unpack_from(offer)
    carried_s = told_s if relayed and 0.0 <= told_s < math.inf else None
    try:
        part = admit(SignedHeader.from_bytes(offer[_OFFER.size :]))
    except TransportRefused as refused:
        connection.send(Answer(code=refused.code, why=str(refused)[:1000]).to_bytes())
        return
    begun_s = time.monotonic()
    try:
        connection.send(Answer(code="go", offset=part.offset).to_bytes())
        _body(connection, part, limits, begun_s)
    except BaseException as error:
        # What came so far is kept for a sender that was cut; one that did something else gets nothing from it.
        part.drop() if isinstance(error, TransportRefused) else part.keep()
        raise
    took_s = time.monotonic() - begun_s
    try:
        stored = part.finish(took_s, carried_s, relayed=relayed)
    except TransportRefused as refused:
        connection.send(Answer(code=refused.code, why=str(refused)[:1000]).to_bytes())
        return
    arrived(stored, carried_s)
    connection.send(Answer(code="ok", took_s=took_s).to_bytes())


def _body(connection: Connection, part: Part, limits: AgentLimits, begun_s: float) -> None:
    came = 0
    while part.offset < part.size:
        data = connection.receive(limits.chunk_s)
        if not 0 < len(data) <= part.size - part.offset:
            raise TransportRefused(
                f"a piece of {len(data)} bytes where 1 to {part.size - part.offset} are missing", "bad-piece"
            )
        part.write(data)
        came += len(data)
        elapsed_s = time.monotonic() - begun_s
        if elapsed_s > _GRACE_S and 8 * came < limits.least_bps * elapsed_s:
            raise TransportRefused(
                f"{came} bytes in {elapsed_s:.0f} s, at least {limits.least_bps:g} bit/s are expected", "too-slow"
            )
