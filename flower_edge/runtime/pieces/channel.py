"""What the terminals of a chain say over their channels besides frames, and whose turn it is to say it.

    terminal dials          Hello(purpose="pieces", run=session, node=chain, token, data={"round": …, "place": …})
    place k -> edge -> k+1  ACTIVATIONS
    place k <- edge <- k+1  GRADIENT in exact mode; in decoupled mode TAKEN, which lets `WINDOW` frames be ahead
    ...                     until the order's steps are made; then all close

Frames pass the edge as they are. Both ends and the edge between them read the order of frames from `turns`; nothing
here sends or computes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from ...errors import ProtocolError
from ...pieces.order import PieceOrder
from ...splitting.frame import Kind

__all__ = ["PURPOSE", "WINDOW", "Turn", "is_taken", "lost_code", "lost_place", "taken", "token_purpose", "turns"]

#: What a terminal dials for.
PURPOSE: Final = "pieces"
#: Decoupled mode: so many frames of a piece may be on their way until the next piece has taken the first of them. One
#: is computed with, one waits beside it, and the others hide the way; more would fill a small terminal's memory.
WINDOW: Final = 4
_TAKEN: Final = struct.Struct("<BQ")
#: No frame begins with it.
_FORM: Final = 0x54


@dataclass(frozen=True)
class Turn:
    """One frame that a terminal says or hears.

    Attributes:
        says: else it hears it.
        side: of the neighbour, to or from whom.
        kind, step: of the frame.
    """

    says: bool
    side: Literal["next", "previous"]
    kind: Kind
    step: int


def turns(order: PieceOrder) -> Iterator[Turn]:
    """All frames of one terminal's round, in its order.

    >>> from flower_edge.splitting.order import ArchitectureSpec, WorkOrder
    >>> model = ArchitectureSpec(name="mlp", input_shape=(4,), num_classes=2)
    >>> work = WorkOrder(round=1, number=0, architecture=model, cut=2, first_step=20, steps=1, batch_size=8)
    >>> middle = PieceOrder(work=work, start=1, stop=2, place=1, pieces=3)
    >>> [("says" if turn.says else "hears", turn.kind.name, turn.side) for turn in turns(middle)]
    [('hears', 'ACTIVATIONS', 'previous'), ('says', 'ACTIVATIONS', 'next'), ('hears', 'GRADIENT', 'next'), \
('says', 'GRADIENT', 'previous')]
    >>> [turn.kind.name for turn in turns(middle.model_copy(update={"mode": "decoupled"}))]
    ['ACTIVATIONS', 'ACTIVATIONS']
    """
    exact = order.mode == "exact"
    for step in range(order.work.first_step, order.work.first_step + order.work.steps):
        if not order.first:
            yield Turn(False, "previous", Kind.ACTIVATIONS, step)
        if not order.last:
            yield Turn(True, "next", Kind.ACTIVATIONS, step)
        if exact and not order.last:
            yield Turn(False, "next", Kind.GRADIENT, step)
        if exact and not order.first:
            yield Turn(True, "previous", Kind.GRADIENT, step)


def token_purpose(round: int, attempt: int, place: int) -> str:
    """What a token admits to: one place in one attempt at a round; the chain is the token's node.

    >>> token_purpose(3, 0, 2)
    'pieces/3/0/2'
    """
    return f"{PURPOSE}/{round}/{attempt}/{place}"


def lost_code(places: tuple[int, ...]) -> str:
    """With which code the terminals of a chain are told that it is lost, because of these places.

    >>> lost_code((2,)), lost_code(())
    ('lost-2', 'lost')
    """
    return f"lost-{places[0]}" if places else "lost"


def lost_place(code: str) -> int | None:
    """Inverse of `lost_code`; None where it names no place.

    >>> lost_place("lost-2"), lost_place("lost"), lost_place("bad-token")
    (2, None, None)
    """
    found = re.fullmatch("lost-([0-9]{1,4})", code)
    return None if found is None else int(found[1])


def taken(step: int) -> bytes:
    """A piece has taken the activations of a step out of its queue.

    >>> len(taken(7)), is_taken(taken(7), 7)
    (9, True)
    """
    return _TAKEN.pack(_FORM, step)


def is_taken(payload: bytes, step: int) -> bool:
    """Whether it says `taken(step)`; False of a frame.

    Raises:
        ProtocolError: it says so of another step.

    >>> is_taken(b"a frame", 7)
    False
    """
    if len(payload) != _TAKEN.size or payload[0] != _FORM:
        return False
    if (said := _TAKEN.unpack(payload)[1]) != step:
        raise ProtocolError(f"activations of step {said} were taken; expected step {step} to be the next")
    return True
