"""Controllers that make the true time of rounds short: sparse, doubly stochastic, with bandwidth for a random P.

    Sparse        a few cheap neighbours and a spanning tree, the fastest symmetric weights
    TimeOptimal   the links for which the mean true time, times the rounds it takes, is least

The objective of [1] lets a light link be slow; the round then waits for it all the same. Here no weight excuses a link:
what counts is when the last model in use is everywhere, and how much that model's being used is worth. Both controllers
are doubly stochastic, so that no node counts for more than another, and plan again when the radio changes. Nothing here
trains or sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import TopologyError
from ..topology.connectivity import components
from ..topology.mixing import second_singular_value
from ..topology.overlays import cheapest_links
from ..topology.rows import Floats, sum_rows
from ..topology.sinkhorn import sinkhorn
from ..topology.weights import metropolis
from .agreement import disagreement, disagreement_dense, rounds_factor
from .controller import Control, Observation, Start, State
from .phases import Outlook, Phase, begin, go_on
from .seating import mean_true_time_s
from .sparse_plans import everything, in_pairs, link_cost_s, sparse, symmetric_phase, thinned
from .support_search import own_weight, search_support, strongly_connected

__all__ = ["SEARCHED", "Sparse", "TimeOptimal", "predicted_s"]

#: Up to so many nodes links are searched for one by one; beyond, they are thinned in batches.
SEARCHED = 48
#: The search keeps so far below a bound on sigma2, as its weights are not yet quite doubly stochastic.
_MARGIN = 0.004
#: How dear it is to be above the bound: a tenth is worth e^6, more than any link saves.
_STRICT = 60.0


@dataclass(frozen=True)
class Sparse:
    """Each node hears its `neighbours` cheapest neighbours, those it is one of, and those of a minimum spanning tree.

    Args:
        neighbours: 3 to 6 mix well in small networks.
        every: rounds after which the plan is made anew; also as P becomes known, and when S has changed.
    """

    neighbours: int = 4
    every: int = 50
    clairvoyant: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.neighbours < 0:
            raise TopologyError(f"neighbours = {self.neighbours}: expected 0 or more; 0 leaves the spanning tree")

    def init(self, start: Start) -> tuple[Control, State]:
        """Neighbours by S as first measured."""
        return begin(self.plan, start)

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The same weights, bandwidth by S as last measured."""
        return go_on(self.plan, state, observation, self.every)

    def plan(self, outlook: Outlook) -> tuple[list[Phase], Mapping[str, Any]]:
        """One phase, from an outlook."""
        return [sparse(outlook, self.neighbours)], {}


@dataclass(frozen=True)
class TimeOptimal:
    """Links chosen so that an accuracy is reached soonest, or rounds are shortest while sigma2 is within a bound.

    Without a bound what is minimised is E T x `rounds_factor`: the mean true time of a round for the P seen so far,
    times the rounds that the disagreement of these weights costs. With one it is E T alone, such that sigma2 <= bound.
    Up to 48 nodes by a search over directed links (a directed network mixes as well as a symmetric one with half the
    links); beyond by thinning symmetric ones.

    Args:
        bound: of sigma2, 0 to 1; None minimises time to accuracy.
        tries: sets of links costed per plan.
        every: rounds after which the plan is made anew; also as P becomes known, and when S has changed.
        seed: of the search.
    """

    bound: float | None = None
    tries: int = 4000
    every: int = 50
    seed: int = 0
    clairvoyant: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.bound is not None and not 0.0 < self.bound < 1.0:
            raise TopologyError(f"bound = {self.bound}: expected sigma2 between 0 and 1, such as 0.8; or None")

    def init(self, start: Start) -> tuple[Control, State]:
        """Links for S as first measured and P as expected."""
        return begin(self.plan, start)

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The same weights, bandwidth by S as last measured."""
        return go_on(self.plan, state, observation, self.every)

    def plan(self, outlook: Outlook) -> tuple[list[Phase], Mapping[str, Any]]:
        """One phase, from an outlook."""
        topology = outlook.topology
        linked = np.unique(topology.receiver[outlook.both_ways])
        if not in_pairs(outlook):
            return [everything(outlook)], {"search": "none: links do not come in pairs"}
        if len(linked) < 3:
            return [everything(outlook)], {"search": "none: too small"}
        if topology.nodes <= SEARCHED:
            return [self._searched(outlook)], {"search": "annealing"}
        used = thinned(outlook, 8, lambda time_s, links: self._cost(time_s, *_metropolis(outlook, links)))
        return [symmetric_phase(outlook, used)], {"search": "thinning"}

    def _cost(self, time_s: float, factor: float, sigma2: float) -> float:
        if self.bound is None:
            return time_s * factor
        return time_s * float(np.exp(_STRICT * max(0.0, sigma2 - (self.bound - _MARGIN))))

    def _searched(self, outlook: Outlook) -> Phase:
        topology, seconds = outlook.topology, link_cost_s(outlook)
        allowed = topology.dense(outlook.both_ways) > 0.0
        whole = topology.dense(np.where(outlook.both_ways, outlook.whole_s, 0.0))
        extra = topology.dense(outlook.extra_s)
        first = [topology.dense(cheapest_links(topology, seconds, k)) > 0.0 for k in (1, 2, 3, 4, 6, 8, topology.nodes)]

        def cost(time_s: float, weights: Floats) -> float:
            if self.bound is None:
                return time_s * rounds_factor(disagreement_dense(weights))
            apart = weights - 1.0 / len(weights)
            return self._cost(time_s, 1.0, float(np.linalg.norm(apart, 2)))

        tries = self.tries
        if len(outlook.previous) == 1:
            links = outlook.previous[0].links
            before = np.zeros_like(allowed)
            before[topology.receiver[links], topology.sender[links]] = True
            if (before & ~allowed).any() or not strongly_connected(before):
                before = first[0]
            first.append(before)
        # Little is worth while before P is known, and little is left to do once there was a plan with P known.
        if outlook.p_seen == 0 or (outlook.p_seen > 15 and len(outlook.previous) == 1):
            tries = max(tries // 5, 1)
        found, _ = search_support(
            first, allowed, whole, extra, outlook.ready, cost, tries=tries, seed=self.seed + outlook.p_seen
        )
        return _balanced_phase(outlook, found)


def _balanced_phase(outlook: Outlook, found: npt.NDArray[np.bool_]) -> Phase:
    topology = outlook.topology
    used = found[topology.receiver, topology.sender]
    one = used.astype(np.float64)
    weights, _ = sinkhorn(topology, one, own_weight(sum_rows(one, topology.indptr)))
    links = np.flatnonzero(used)
    return Phase(links, weights[links])


def _metropolis(outlook: Outlook, used: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Rounds factor and sigma2 of Metropolis weights on some links."""
    topology = outlook.topology
    weights, own = metropolis(topology, used)
    return rounds_factor(disagreement([topology.matrix(weights, own)])), second_singular_value(topology, weights, own)


def predicted_s(outlook: Outlook, phases: list[Phase]) -> float:
    """Mean true time of a round of a plan, times the rounds it takes relative to complete averaging: seconds.

    What plans of different kinds are compared by. Infinite for a plan that leaves nodes apart which could meet.
    """
    topology = outlook.topology
    used = np.zeros(topology.links, np.bool_)
    for phase in phases:
        used[phase.links] = True
    if components(topology, used).max(initial=0) > components(topology, outlook.reach).max(initial=0):
        return float("inf")
    matrices = []
    for phase in phases:
        weights = np.zeros(topology.links)
        weights[phase.links] = phase.weights
        matrices.append(topology.matrix(weights, 1.0 - sum_rows(weights, topology.indptr)))
    return mean_true_time_s(outlook, phases) * rounds_factor(disagreement(matrices))
