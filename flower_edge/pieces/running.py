"""`run_chain`: all pieces of a chain in this process; what a relay between terminals does, without the terminals."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

from ..errors import SplitError
from ..splitting.frame import Frame
from .order import PieceOrder
from .said import Said

__all__ = ["Takes", "run_chain"]


class Takes(Protocol):
    """A piece at work."""

    @property
    def order(self) -> PieceOrder: ...

    @property
    def done(self) -> bool: ...

    def take(self, frame: Frame | None) -> tuple[Said, ...]: ...


def run_chain(works: Sequence[Takes], *, heard: Callable[[int, Said], None] | None = None) -> None:
    """Pass frames from piece to piece until every one has made its steps.

    Args:
        works: by place, all of one chain, at the beginning of a step.
        heard: is told each frame and the place that said it.

    Raises:
        SplitError: works that are no chain, or that stopped before they were done.
    """
    spans = [(work.order.start, work.order.stop) for work in works]
    places = [(work.order.place, work.order.pieces, work.order.mode) for work in works]
    expected = [(place, len(works), works[0].order.mode) for place in range(len(works))] if works else []
    if not works or places != expected or any(a[1] != b[0] for a, b in pairwise(spans)):
        raise SplitError(
            f"pieces of units {spans} at places {[place for place, _, _ in places]} are no chain; give one work for "
            "each place, from 0 on, each beginning where the one before ends, all of one mode"
        )
    first = works[0]
    while not first.done:
        waiting: deque[tuple[int, Frame | None]] = deque([(0, None)])
        while waiting:
            place, frame = waiting.popleft()
            for said in works[place].take(frame):
                if heard is not None:
                    heard(place, said)
                waiting.append((place + (1 if said.to == "next" else -1), said.frame))
    late = [work.order.place for work in works if not work.done]
    if late:
        raise SplitError(f"places {late} have not made all their steps; give works that begin at the same step")
