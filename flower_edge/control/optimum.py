"""The weighted optimum: weights and bandwidth that make f of [1] least, in closed form.

Rows decouple. At the optimum of a row all costs are equal, W[i, j] = tau[i] / L[i, j], and what is left is to choose
the bandwidth that makes the sum of 1 / L largest: concave, so that its optimality conditions settle it. They are water
filling: link j gets (sqrt(a_j) mu - a_j) / P_j where that is positive and nothing where it is not, and the water level
mu is the least of (budget + sum a / P) / (sum sqrt(a) / P) over all sets of links. No solver is involved. Given the
round that comes, this is the comparator "Dynamic OPT" of [1] ¶53; given a forecast, it is a controller (`planned`).

It minimises the printed objective, and nothing else: true time under it is long, because a light link may be slow.

Letters as in `control.controller`; a[i, j] = D[j] / S[i, j], the band-seconds a model needs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import TopologyError
from ..topology.rows import Floats, spread, sum_rows
from ..topology.topology import Topology
from .controller import Control, Observation
from .min_max import band_seconds, usable

__all__ = ["weighted_optimum"]

# A node that is ready at once would turn the condition into a linear one; a nanosecond keeps it strictly concave.
_SOONEST_S = 1e-9


def weighted_optimum(
    topology: Topology,
    budget_hz: Floats,
    observation: Observation,
    in_use: npt.NDArray[np.bool_] | None = None,
    self_included: bool = True,
    *,
    at_least_hz: Floats | None = None,
) -> Control:
    """The control with the least f for a round in which P, S and D are as observed.

    Args:
        topology: the links.
        budget_hz: band of each node, float64 [nodes].
        observation: P, S and D of the round, or a forecast of them. A link that carries nothing (S = 0) or of which
            something is not known (NaN) is left out.
        in_use: links that may be used, bool [links]; None for all.
        self_included: whether node i's own weight is chosen, too, with L[i, i] = P[i]; a node whose P is not known
            keeps its own weight at 0, unless it has no neighbour. If False it is held at 1 / (1 + number of links that
            may be used).
        at_least_hz: band that a link gets at least, float64 [links], 0 for those that need not be kept; no row of it
            may reach its budget. With it a link is kept that the optimum would drop.

    Returns:
        Weights and bandwidth; links the optimum does not want have neither. A node without a link keeps its model.

    Raises:
        TopologyError: links of one node are to get its whole budget at least, or more.

    >>> pair = Topology.complete(2)
    >>> round = Observation(np.array([1.0, 3.0]), np.array([2.0, 2.0]), np.array([2e6, 2e6]))
    >>> best = weighted_optimum(pair, np.array([1e6, 1e6]), round)
    >>> best.weights  # node 0 has its own model after 1 s and the other after 3 + 1: weights 4 to 1
    array([0.2, 0.6])
    """
    indptr = topology.indptr
    taken = usable(topology, observation) & (spread(budget_hz, indptr) > 0.0)
    if in_use is not None:
        taken &= in_use
    ready_s = np.where(taken, np.maximum(observation.ready_s(topology), _SOONEST_S), 1.0)
    need = np.where(taken, band_seconds(topology, observation), 1.0)
    root = np.sqrt(need)
    bandwidth_hz = _fill(root, ready_s, taken, budget_hz, indptr)
    if at_least_hz is not None:
        at_least_hz = np.where(taken, at_least_hz, 0.0)
        kept_hz = sum_rows(at_least_hz, indptr)
        if (over := (kept_hz > 0.0) & (kept_hz >= budget_hz)).any():
            i = int(over.argmax())
            raise TopologyError(
                f"at_least_hz: the links of node {i} are to get {kept_hz[i]:g} Hz at least, its budget is "
                f"{budget_hz[i]:g} Hz; leave some of it to share out"
            )
        bandwidth_hz = _hold(bandwidth_hz, at_least_hz, root, ready_s, taken, budget_hz, indptr)

    wanted = bandwidth_hz > 0.0
    speed = np.where(wanted, bandwidth_hz / (ready_s * bandwidth_hz + need), 0.0)  # 1 / L
    total = sum_rows(speed, indptr)
    linked = total > 0.0
    if self_included:
        own_s = np.maximum(observation.processing_s, _SOONEST_S)
        own_speed = np.where(np.isfinite(own_s), 1.0 / own_s, 0.0)
        tau = 1.0 / np.where(linked, total + own_speed, 1.0)
        own = np.where(linked, tau * own_speed, 1.0)
    else:
        offered = sum_rows(taken.astype(np.float64), indptr)
        own = np.where(linked, 1.0 / (1.0 + offered), 1.0)
        tau = (1.0 - own) / np.where(linked, total, 1.0)
    return Control(spread(tau, indptr) * speed, own, bandwidth_hz)


def _hold(
    bandwidth_hz: Floats,
    at_least_hz: Floats,
    root: Floats,
    ready_s: Floats,
    taken: npt.NDArray[np.bool_],
    budget_hz: Floats,
    indptr: npt.NDArray[np.int64],
) -> Floats:
    """With what some links get at least taken off the budget first, and the others filled with the rest.

    A link held at its least gets no more than it would without: as others are held, the level only sinks. So it stays
    held, and at most as many turns are needed as a row has links to hold.
    """
    held = np.zeros(len(taken), np.bool_)
    while (short := taken & ~held & (bandwidth_hz < at_least_hz)).any():
        held |= short
        fixed_hz = np.where(held, at_least_hz, 0.0)
        rest_hz = budget_hz - sum_rows(fixed_hz, indptr)
        bandwidth_hz = np.where(held, fixed_hz, _fill(root, ready_s, taken & ~held, rest_hz, indptr))
    return bandwidth_hz


def _fill(
    root: Floats, ready_s: Floats, taken: npt.NDArray[np.bool_], budget_hz: Floats, indptr: npt.NDArray[np.int64]
) -> Floats:
    """Water filling in every row at once: float64 [links], rows sum to their budget.

    The level of all links is the average of each link's own bar sqrt(a), weighted, and of what the budget adds. A link
    whose bar is not below the level is not wanted, and without it the level sinks; so drop those, and look again,
    until none is left to drop. Sums are taken row by row: prefix sums over the whole network would lose the small
    rows behind the large ones.
    """
    level = np.zeros(len(indptr) - 1)
    while True:
        slope = np.where(taken, root / ready_s, 0.0)
        weight = sum_rows(slope, indptr)
        some = weight > 0.0
        level = np.where(some, budget_hz + sum_rows(slope * root, indptr), 0.0) / np.where(some, weight, 1.0)
        keep = taken & (root < spread(level, indptr))
        if (keep == taken).all():
            break
        taken = keep
    band_hz = np.where(taken, slope * (spread(level, indptr) - root), 0.0)
    total = sum_rows(band_hz, indptr)
    return band_hz * spread(np.where(total > 0.0, budget_hz / np.where(total > 0.0, total, 1.0), 0.0), indptr)
