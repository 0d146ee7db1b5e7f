"""What a `PieceService` is told of one chain's round, and what it tells afterwards. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import SplitError
from ...pieces.order import PieceOrder
from ...splitting.profile import ModelProfile

__all__ = ["ChainJob", "ChainOutcome", "Passed"]


@dataclass(frozen=True)
class ChainJob:
    """One chain's round.

    Attributes:
        orders: by place, as the terminals have them.
        profile: of the model that they name; what frames may hold is checked by it.

    Raises:
        SplitError: orders that are no chain.
    """

    orders: tuple[PieceOrder, ...]
    profile: ModelProfile

    def __post_init__(self) -> None:
        if not self.orders:
            raise SplitError("a chain of no pieces; expected at least one")
        first = self.orders[0]
        steps, stop = (first.work.round, first.work.number, first.work.first_step, first.work.steps), 0
        for place, order in enumerate(self.orders):
            work = order.work
            found = (work.round, work.number, work.first_step, work.steps)
            if (order.place, order.pieces, order.mode) != (place, len(self.orders), first.mode) or found != steps:
                raise SplitError(
                    f"place {place} of a chain of {len(self.orders)} has an order for place {order.place} of "
                    f"{order.pieces} ({order.mode}; round, chain, first step, steps: {found}); expected "
                    f"{first.mode}; {steps}"
                )
            if order.start != stop:
                raise SplitError(f"the piece at place {place} begins at unit {order.start}; expected {stop}")
            stop = order.stop
        if stop != self.profile.last:
            raise SplitError(f"the last piece ends at unit {stop} of a model of {self.profile.last}; expected that")


@dataclass
class Passed:
    """What went through the edge for one terminal.

    Attributes:
        frames: it said.
        up_bits, down_bits: of frames from and to it, without what TLS and HTTP/2 add.
        turn_s: seconds in which it was its turn: from having what a frame is computed from to the frame's arrival, the
            way in both directions included, all its frames.
    """

    frames: int = 0
    up_bits: int = 0
    down_bits: int = 0
    turn_s: float = 0.0


@dataclass
class ChainOutcome:
    """What became of a chain.

    Attributes:
        lost: why it did not come to its end; empty where it did.
        places: who it is to blame on; empty where it is nobody of the chain.
        passed: by place.
    """

    lost: str
    places: tuple[int, ...]
    passed: tuple[Passed, ...]
