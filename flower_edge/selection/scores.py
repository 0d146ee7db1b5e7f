"""`Score`: who is wanted most, and the two scores every other one is compared with: by lot, and in turn.

A score puts candidates in an order. It does not know how many of them a rule has left out, and it sends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .candidates import Candidates, Positions

__all__ = ["RandomScore", "RoundRobin", "Score"]


class Score(Protocol):
    """Puts candidates in an order. Holds no state of its own: state is handed in and handed back."""

    @property
    def needs(self) -> frozenset[str]:
        """Columns it cannot learn from replies alone, so that nodes are worth asking for them."""
        ...

    def init(self) -> Any:
        """The state before the first choice, in plain values and arrays."""
        ...

    def rank(
        self, table: Candidates, count: int, state: Any, round: int, rng: np.random.Generator
    ) -> tuple[Positions, Any]:
        """Positions in the table, the most wanted first; who is left out is not to be chosen at all.

        Args:
            table: eligible candidates only.
            count: how many will be chosen, if there are as many.
            state: as `init` or the last call gave it.
            round: the number of this choice, from 1.
            rng: draws of this choice.
        """
        ...


@dataclass(frozen=True)
class RandomScore:
    """By lot, each candidate alike: what Flower's strategies do by themselves, and the one to beat.

    >>> table = Candidates(np.arange(4))
    >>> order, _ = RandomScore().rank(table, 2, None, 1, np.random.default_rng(0))
    >>> sorted(order.tolist())
    [0, 1, 2, 3]
    """

    @property
    def needs(self) -> frozenset[str]:
        """Nothing."""
        return frozenset()

    def init(self) -> None:
        """No state."""

    def rank(
        self, table: Candidates, count: int, state: None, round: int, rng: np.random.Generator
    ) -> tuple[Positions, None]:
        """All candidates, shuffled."""
        return rng.permutation(len(table)), None


@dataclass(frozen=True)
class RoundRobin:
    """In turn: who was asked longest ago comes first, who was never asked before all, in the order of their ids.

    >>> table = Candidates(np.array([9, 7, 8]), {"last_asked": np.array([1.0, 2.0, np.nan])})
    >>> table.nodes[RoundRobin().rank(table, 2, None, 3, np.random.default_rng(0))[0]]
    array([8, 9, 7])
    """

    @property
    def needs(self) -> frozenset[str]:
        """Nothing."""
        return frozenset()

    def init(self) -> None:
        """No state: whose turn it is follows from who was asked when."""

    def rank(
        self, table: Candidates, count: int, state: None, round: int, rng: np.random.Generator
    ) -> tuple[Positions, None]:
        """All candidates, the longest waiting first."""
        # Stable: ties keep the order of the candidates, which does not change from run to run as ids do.
        return np.argsort(np.nan_to_num(table.column("last_asked"), nan=0.0), kind="stable"), None
