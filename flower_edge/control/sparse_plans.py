"""Plans with the same few links in every round, doubly stochastic: nearest neighbours, everything, and thinned ones.

Functions from an outlook to a phase. Where links come in pairs the weights are the fastest symmetric ones (FDLA without
negative weights) or Metropolis'; where they do not, what Sinkhorn makes of equal ones. `thinned` begins with more links
than it needs and takes away, batch by batch, those that cost more seconds than they mix. Nothing here keeps a state.

Source: Xiao, Boyd, "Fast linear iterations for distributed averaging", 2004; Ghosh, Boyd, "Growing well-connected
graphs", CDC 2006, for the score of an edge by the Fiedler vector.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..topology.connectivity import components
from ..topology.fdla import fdla
from ..topology.overlays import cheapest_links
from ..topology.relabel import smoothest_vector
from ..topology.rows import Floats, sum_rows
from ..topology.sinkhorn import sinkhorn
from ..topology.weights import metropolis
from .phases import Outlook, Phase
from .seating import mean_true_time_s

__all__ = ["everything", "in_pairs", "link_cost_s", "sparse", "symmetric_phase", "thinned"]

#: Beyond so many nodes Metropolis weights take the place of FDLA, which solves for an eigenvector many times.
_FDLA_NODES = 300
#: Part of the links in use that goes in one batch.
_BATCH = 0.06


def link_cost_s(outlook: Outlook) -> Floats:
    """Seconds of a link with the whole band and its latency; infinite for one without its counterpart. [links]."""
    return np.where(outlook.both_ways, outlook.whole_s + outlook.extra_s, np.inf)


def in_pairs(outlook: Outlook) -> bool:
    """Whether links in both directions alone connect what all links in reach connect."""
    topology = outlook.topology
    one, two = components(topology, outlook.reach), components(topology, outlook.both_ways)
    return int(one.max(initial=0)) == int(two.max(initial=0))


def everything(outlook: Outlook, own: float = 1.0) -> Phase:
    """Every link in reach that lies on a cycle, with the doubly stochastic weights nearest to equal ones.

    Args:
        own: weight of a node's own model against a neighbour's, before scaling.
    """
    topology = outlook.topology
    part = components(topology, outlook.reach)
    return _scaled(outlook, outlook.reach & (part[topology.receiver] == part[topology.sender]), own)


def _scaled(outlook: Outlook, used: npt.NDArray[np.bool_], own: float) -> Phase:
    topology = outlook.topology
    weights, _ = sinkhorn(topology, used.astype(np.float64), np.full(topology.nodes, own))
    links = np.flatnonzero(used)
    return Phase(links, weights[links])


def symmetric_phase(outlook: Outlook, used: npt.NDArray[np.bool_]) -> Phase:
    """The fastest symmetric weights on links that come in pairs, bool [links]; Metropolis weights in large networks."""
    kept = outlook.topology.keep(used)
    whole = int(components(kept).max(initial=0)) == 0
    weights, _ = fdla(kept) if whole and 1 < kept.nodes <= _FDLA_NODES else metropolis(kept)
    links = np.flatnonzero(used)
    return Phase(links[weights > 0.0], weights[weights > 0.0])


def sparse(outlook: Outlook, neighbours: int) -> Phase:
    """The cheapest links of each node and a minimum spanning tree; everything where links do not come in pairs."""
    if not in_pairs(outlook):
        return everything(outlook)
    return symmetric_phase(outlook, cheapest_links(outlook.topology, link_cost_s(outlook), neighbours))


def thinned(
    outlook: Outlook,
    neighbours: int,
    cost: Callable[[float, npt.NDArray[np.bool_]], float],
    batches: int = 60,
) -> npt.NDArray[np.bool_]:
    """Links left where thinning costs least, symmetric and connected, bool [links].

    Begins with the cheapest `neighbours` of each node and a minimum spanning tree, which stays. In each batch go the
    links with the most seconds of band for their part in mixing: w (v_i - v_j)^2, v the Fiedler vector of the weights.
    O(batches x links) and a few solutions of a sparse system per batch.

    Args:
        cost: of a mean true time, seconds, and links in use.
    """
    topology, seconds = outlook.topology, link_cost_s(outlook)
    tree = cheapest_links(topology, seconds, 0)
    used = cheapest_links(topology, seconds, neighbours)
    best, least = used, np.inf
    for _ in range(batches):
        links = np.flatnonzero(used)
        weights, _ = metropolis(topology, used)
        now = cost(mean_true_time_s(outlook, [Phase(links, weights[links])]), used)
        if now < least:
            best, least = used, now
        loose = np.flatnonzero(used & ~tree & (topology.receiver < topology.sender))
        if not len(loose):
            break
        v = smoothest_vector(topology, weights)
        mixes = weights * (v[topology.receiver] - v[topology.sender]) ** 2
        # A row that is waited for anyway is where a link costs most.
        wait_s = sum_rows(np.where(used, outlook.whole_s, 0.0), topology.indptr)
        late_s = np.maximum(wait_s[topology.receiver], wait_s[topology.sender])
        score = seconds[loose] * late_s[loose] / (mixes[loose] + 1e-3 * mixes[loose].mean() + 1e-300)
        gone = loose[np.argsort(-score, kind="stable")[: max(1, int(_BATCH * len(loose)))]]
        used = used.copy()
        used[gone] = False
        used[topology.reverse_link[gone]] = False
    return best
