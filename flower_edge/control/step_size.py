"""How far to step: eq. 4 of [1] and what keeps eq. 3, for one step for all, one per row, or one per link.

The straggler of a row pays for what its neighbours gain, so a step is too long when it has nothing left (eq. 4), and
a step on which links vanish is too long when the network falls apart (eq. 3). Rows do not touch each other, so only
the one step for all needs to know the others' largest steps. Nothing here moves anything.

Letters as in `requirements`; G[i] is the sum of What - W over the row, and alpha_max[i] = W[i, s] / G[i].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..topology.rows import Floats, spread, sum_rows
from ..topology.topology import Topology
from .controller import Control
from .moves import Step
from .requirements import Requirements

__all__ = ["dolbie_bound", "largest_valid_step", "link_steps", "one_step", "row_losses", "row_steps"]


def one_step(alpha_max: Floats, eta: float, cap: float) -> float:
    """One step for all rows: min(1, cap, eta x the smallest alpha_max).

    >>> one_step(np.array([0.5, 0.02, np.inf]), eta=0.5, cap=0.1)
    0.01
    """
    return float(min(1.0, cap, eta * alpha_max.min(initial=np.inf)))


def row_steps(alpha_max: Floats, eta: float, cap: float) -> Floats:
    """One step for each row, from its own alpha_max alone. float64 [nodes]."""
    return np.minimum(eta * alpha_max, min(1.0, cap))


def link_steps(
    topology: Topology, control: Control, requirements: Requirements, eta: float, cap: float
) -> tuple[Floats, Floats]:
    """One step for each link: all that want weight may take an equal part of what the straggler can give.

    A link that wants less than its part goes as far as `cap` lets it; one that wants much is held back alone, instead
    of holding back its row. float64 [links], and of W[i, i] float64 [nodes]; 0 where nothing would move.
    """
    indptr = topology.indptr
    gain = requirements.weights_hat - control.weights
    release = requirements.bandwidth_hat_hz < control.bandwidth_hz
    own_gain = requirements.self_weights_hat - control.self_weights
    wanting = sum_rows((gain > 0.0).astype(np.float64), indptr) + (own_gain > 0.0)
    total = sum_rows(gain, indptr) + own_gain
    have = np.where(total > 0.0, np.minimum(requirements.alpha_max, 1e300) * total, 0.0)
    part = eta * have / np.maximum(wanting, 1.0)
    highest = min(1.0, cap)
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha = np.minimum(spread(part, indptr) / gain, highest)
        own = np.minimum(part / own_gain, highest)
    return np.where(gain > 0.0, alpha, np.where(release, highest, 0.0)), np.where(own_gain > 0.0, own, 0.0)


def row_losses(topology: Topology, control: Control, requirements: Requirements, step: Step) -> Floats:
    """Weight the stragglers of each row lose together. float64 [nodes]."""
    lost = sum_rows((requirements.weights_hat - control.weights) * step.alpha, topology.indptr)
    return lost + (requirements.self_weights_hat - control.self_weights) * step.own


def dolbie_bound(topology: Topology, control: Control, requirements: Requirements) -> Floats:
    """A bound on alpha_max that does not look at What: x / (n - 2 + x), x the straggler's share of what is shared.

    The step of "Distributed online min-max load balancing" (Wang, Liang, 2023), kept from growing by `Dcent`, with
    the row in the place of the n workers. float64 [nodes], infinite where nothing would move.
    """
    there = requirements.straggler >= 0
    have = np.zeros(topology.nodes)
    have[there] = control.weights[requirements.straggler[there]]
    own = np.zeros(topology.nodes, bool) if requirements.own_straggler is None else requirements.own_straggler
    have = np.where(own, control.self_weights, have)
    # Each of those that may gain could at most gain what it lacks to 1.
    gainers = sum_rows(control.in_use.astype(np.float64), topology.indptr) - there
    if requirements.self_weights_hat is control.self_weights:
        most = gainers - (1.0 - have - control.self_weights)
    else:
        most = gainers + ~own - (1.0 - have)
    moves = np.isfinite(requirements.alpha_max) & (most > 0.0)
    return np.asarray(np.divide(have, most, out=np.full(topology.nodes, np.inf), where=moves))


def largest_valid_step(
    candidate: float,
    vanish_at: Floats,
    valid_without: Callable[[npt.NDArray[np.int64]], bool],
    backtrack: float = 0.9,
) -> tuple[float, npt.NDArray[np.int64]]:
    """The largest step up to a candidate that passes validation: line search, exact in where links vanish.

    Along a step the network changes only where a link vanishes, and more links vanish the longer it is: the first
    invalid place is found by bisection over those places, not over numbers. The step returned lies between the last
    valid place and the first invalid one, the part `backtrack` of the way, since at the place itself the link is gone.

    Args:
        candidate: the step that was to be taken.
        vanish_at: the step from which on each of some links is gone, float64 [some].
        valid_without: whether the network may do without those of the links given, by position.

    Returns:
        the step, and which links are gone with it, by position, in the order in which they go.

    >>> largest_valid_step(0.5, np.array([0.4, 0.1, 0.2]), lambda gone: len(gone) < 3, backtrack=0.5)
    (0.30000000000000004, array([1, 2]))
    """
    order = np.argsort(vanish_at, kind="stable")
    gone = order[vanish_at[order] <= candidate]
    if not len(gone) or valid_without(gone):
        return candidate, gone
    good, bad = 0, len(gone)
    while bad - good > 1:
        middle = (good + bad) // 2
        if valid_without(gone[:middle]):
            good = middle
        else:
            bad = middle
    # Links that vanish at one place go together.
    edge = vanish_at[gone[good]]
    good = int(np.searchsorted(vanish_at[gone], edge, side="left"))
    below = vanish_at[gone[good - 1]] if good else 0.0
    return float(max(below + backtrack * (edge - below), 0.0)), gone[:good]
