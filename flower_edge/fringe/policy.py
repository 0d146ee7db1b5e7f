"""Which candidate is tried next. Two go by rules; `policy_learned` by what came of earlier trials.

    1. the connection that takes longest now (`SlowestFirst`), or the largest step and the most bytes (`LargestFirst`),
       of those that have something left to try
    2. there, in this order: down to 8 bits, a pair, fewer channels, fewer bits; or all bits first

Nothing here compresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .actions import Candidate

__all__ = ["LargestFirst", "Policy", "SlowestFirst"]


class Policy(Protocol):
    """Chooses one of several candidates."""

    @property
    def multiples(self) -> tuple[float, ...]:
        """Of the step book's steps, between which it wants to choose."""
        ...

    def choose(self, candidates: Sequence[Candidate], slack: float) -> Candidate:
        """One of them.

        Args:
            candidates: one or more.
            slack: how much worse the metric may still become.
        """
        ...


@dataclass(frozen=True)
class SlowestFirst:
    """The slowest connection first, and there what costs least first.

    Attributes:
        multiples: see `Policy`; of the rules, one.
        bits_first: down to as few bits as the floor allows, before anything else. With healing, half of the bits cost
            less than half of the channels.

    >>> from flower_edge.fringe.actions import Action
    >>> fast = Candidate(Action("pruning", 0, 4, 1.0), 1000, 500, 0.01, 0.005, 8, 8, 0.5, False)
    >>> slow = Candidate(Action("pruning", 1, 4, 1.0), 500, 250, 0.02, 0.010, 8, 8, 0.5, False)
    >>> SlowestFirst().choose([fast, slow], slack=0.01).action.connection
    1
    """

    multiples: tuple[float, ...] = (1.0,)
    bits_first: bool = False

    def choose(self, candidates: Sequence[Candidate], slack: float) -> Candidate:
        """See `Policy.choose`."""
        del slack  # a trial tells
        return min(candidates, key=lambda one: (-one.link_s, one.action.connection, self._rank(one)))

    def _rank(self, candidate: Candidate) -> tuple[int, float]:
        action = candidate.action
        if action.method == "quantisation":
            return (0 if action.amount >= 8 or self.bits_first else 3), -action.amount
        return {"distillation": 1, "pruning": 2}[action.method], 0.0


@dataclass(frozen=True)
class LargestFirst(SlowestFirst):
    """Large steps first, and of equal ones that at the connection of most bytes: for a goal of bandwidth.

    The slowest connection may be slow by its delay, which no compression takes away. And where a step failed, the next
    is a smaller one: it waits until the other connections had theirs, so that not all accuracy is spent at one.

    >>> from flower_edge.fringe.actions import Action
    >>> far = Candidate(Action("pruning", 0, 4, 1.0), 100, 50, 0.02, 0.005, 8, 8, 0.5, False)
    >>> large = Candidate(Action("pruning", 1, 4, 1.0), 500, 250, 0.01, 0.005, 8, 8, 0.5, False)
    >>> failed = Candidate(Action("pruning", 2, 4, 0.5), 900, 640, 0.01, 0.002, 8, 8, 0.5, False)
    >>> LargestFirst().choose([far, large, failed], slack=0.01).action.connection
    1
    """

    def choose(self, candidates: Sequence[Candidate], slack: float) -> Candidate:
        """See `Policy.choose`."""
        del slack
        return min(
            candidates,
            key=lambda one: (-one.action.octaves, -one.before_bytes, one.action.connection, self._rank(one)),
        )
