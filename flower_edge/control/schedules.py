"""Schedules as controllers: few peers per round, other ones in the next, doubly stochastic in each.

    OnePeerExponential   one peer with the whole band; log2 N rounds bring every model to everybody
    BaseKPlus1           at most k peers; exact consensus after a finite number of rounds, for any N

A node with one peer has one transfer over its whole band, so that rounds are hardly longer than the slowest node's
computing. Who is whose peer follows places: see `seating`. Nothing here trains or sends.

Sources: as `topology.peer_schedules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import TopologyError
from ..topology.peer_schedules import base_k_plus_1, one_peer_exponential
from .controller import Control, Observation, Start, State
from .phases import Outlook, Phase, begin, go_on
from .seating import laid_out

__all__ = ["BaseKPlus1", "OnePeerExponential"]


@dataclass(frozen=True)
class OnePeerExponential:
    """In each round every node hears one other, 1, 2, 4, ... seats before it in turn.

    Args:
        own: weight of a node's own model. With 1/2 a period is exact consensus where N is a power of two.
        every: rounds after which seats are given anew; also as P becomes known, and when S has changed.
        seed: of the search for seats.
        trials: seatings tried at a time, about.
    """

    own: float = 0.5
    every: int = 50
    seed: int = 0
    trials: int = 20_000
    clairvoyant: ClassVar[bool] = False
    #: Links come and go by plan: a change is no news.
    scheduled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 < self.own < 1.0:
            raise TopologyError(f"own = {self.own}: expected a weight between 0 and 1; 0.5 is usual")

    def init(self, start: Start) -> tuple[Control, State]:
        """Seats by S as first measured and P as expected."""
        return begin(self.plan, start)

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The next round of the period."""
        return go_on(self.plan, state, observation, self.every)

    def plan(self, outlook: Outlook) -> tuple[list[Phase], Mapping[str, Any]]:
        """A period, from an outlook."""
        phases = laid_out(outlook, lambda n: one_peer_exponential(n, self.own), seed=self.seed, trials=self.trials)
        return phases, {}


@dataclass(frozen=True)
class BaseKPlus1:
    """The Base-(k + 1) sequence: after a period all models are the same, whatever N, with at most k peers per round.

    Args:
        k: peers at most; with more, periods are shorter and rounds longer.
        every, seed, trials: as of `OnePeerExponential`.
    """

    k: int = 1
    every: int = 50
    seed: int = 0
    trials: int = 20_000
    clairvoyant: ClassVar[bool] = False
    #: Links come and go by plan: a change is no news.
    scheduled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise TopologyError(f"k = {self.k}: expected 1 peer or more")

    def init(self, start: Start) -> tuple[Control, State]:
        """Seats by S as first measured and P as expected."""
        return begin(self.plan, start)

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The next round of the period."""
        return go_on(self.plan, state, observation, self.every)

    def plan(self, outlook: Outlook) -> tuple[list[Phase], Mapping[str, Any]]:
        """A period, from an outlook."""
        return laid_out(outlook, lambda n: base_k_plus_1(n, self.k), seed=self.seed, trials=self.trials), {}
