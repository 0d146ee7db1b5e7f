"""Straggler control with a vector of resources: [1] eqs. 1-8 with amounts x[r] in the place of B.

What each link could do with at least (xhat) and bear at most (What), and the move towards both. Functions from arrays
to arrays; connectivity, pruning and the choice of a step are elsewhere.

With several resources, "the least amount at which the link costs tau" does not say of which. If each resource, and the
weight, spent the whole slack by itself, the link would cost far more than tau after the move. So the slack is split:

    weight, resources      What = min(W (tau / c)^theta, 1); the link may then take tau / What seconds in all
    among the resources    those seconds, less `ready`, become sum_r that[r], that[r] >= d[r]; xhat[r] = a / that

Whatever the split, no such link exceeds tau, for any step in [0, 1] and even for another step per resource: W(alpha)
grows linearly and every a / x(alpha) is convex and grows, so c(alpha), a product of convex functions that are positive
and grow, is convex; c(0) = c <= tau and c(1) <= tau. How many seconds the link may take in all is the scalar question:
`link_requirements` answers it, so with one resource there is nothing left to split, and nothing else.

Letters as in `control.resources`; s the straggler of a row, tau its cost. Source: [1] ¶57 and eqs. 1-8; the splits are
ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..topology.rows import Floats, spread, sum_rows
from ..topology.topology import Topology
from .controller import Control
from .link_memory import Known, Mask
from .moves import Step
from .requirements import Requirements, SelfEntry, Ties, link_requirements
from .resources import delays_s

__all__ = ["Split", "VectorRequirements", "move_amounts", "vector_requirements"]

#: How a link's slack is split among the resources it needs. "priced": so that what it hands over helps the straggler
#: most; "proportional": every delay grows by one factor; "each": every resource spends all of it, which is not safe and
#: is what putting vectors into eq. 1 as it stands would do.
Split = Literal["priced", "proportional", "each"]


@dataclass(frozen=True, eq=False)
class VectorRequirements:
    """What links could do with and bear, from what was measured.

    Attributes:
        scalar: all but the resources: What, s, tau and the largest step; its `bandwidth_hat_hz` is d over the seconds
            a link may take, at most 1: the part of all resources that would be enough.
        amounts_hat: xhat, float64 [resources, links]; x where a link is not to move.
    """

    scalar: Requirements
    amounts_hat: Floats


def vector_requirements(
    topology: Topology,
    control: Control,
    amounts: Floats,
    needs: Floats,
    ready_s: Floats,
    own_s: Floats,
    heard: Mask | None = None,
    *,
    theta: float | None = 0.5,
    split: Split = "priced",
    self_entry: SelfEntry = "fixed",
    ties: Ties = "first",
) -> VectorRequirements:
    """Equations 1, 2 and 4 of [1] for a vector of resources.

    Args:
        topology: the links.
        control: W of the round that was observed.
        amounts: x, float64 [resources, links].
        needs: a, float64 [resources, links].
        ready_s: what no resource can shorten, float64 [links].
        own_s: P[i] of the rows, float64 [nodes]; only for a self entry that is not fixed.
        heard: links that can be judged, bool [links]: no other is a straggler or moves. All if None.
        theta: the part of the slack, in logarithms, that goes to the weight: 0 none, 1 all. None is the letter of
            [1]: the weight spends all of it, and the resources once more; not safe.
        split: how the rest is split among resources.
        self_entry, ties: as for `link_requirements`.

    >>> pair = Topology(3, receiver=[0, 0], sender=[1, 2])
    >>> half = Control(np.array([0.5, 0.5]), np.array([0.0, 1.0, 1.0]), np.array([4.0, 4.0]))
    >>> needs = np.array([[8.0, 4.0]])
    >>> wanted = vector_requirements(pair, half, half.bandwidth_hz[None], needs, np.zeros(2), np.zeros(3), theta=0.0)
    >>> wanted.scalar.straggler, wanted.amounts_hat  # link 1 is twice as fast as link 0, and could do with half
    (array([ 0, -1, -1]), array([[4., 2.]]))
    """
    used = control.in_use
    spent_s = np.where(used, delays_s(needs, np.where(used, amounts, 1.0)), 0.0)
    whole_s = spent_s.sum(axis=0)
    everything = np.ones(topology.links)
    scalar = link_requirements(
        topology,
        Control(control.weights, control.self_weights, everything),
        np.ones(topology.nodes),
        Known(ready_s, whole_s, heard, None),
        own_s,
        theta=theta,
        self_entry=self_entry,
        ties=ties,
    )
    part = scalar.bandwidth_hat_hz
    moves = used & (part < 1.0) & (part > 0.0)
    borne_s = np.where(moves, whole_s / np.where(moves, part, 1.0), 0.0)

    # What a unit of each resource would take off the straggler's latency, at the margin: a / x^2. Nobody parts with
    # what it has no use for.
    of_row = np.zeros((len(needs), topology.nodes))
    rows = np.flatnonzero(scalar.straggler >= 0)
    at = scalar.straggler[rows]
    of_row[:, rows] = spent_s[:, at] / np.where(amounts[:, at] > 0.0, amounts[:, at], 1.0)
    relief = np.repeat(of_row, topology.in_degree, axis=1)
    spent_s, needed = np.where(moves, spent_s, 0.0), np.where(moves, needs, 0.0)
    may_s = _split(spent_s, borne_s, needed, relief, split)
    gives = (relief > 0.0) & (needed > 0.0)
    amounts_hat = np.where(gives, np.minimum(needed / np.where(gives, may_s, 1.0), amounts), amounts)
    return VectorRequirements(scalar, amounts_hat)


def _split(spent_s: Floats, borne_s: Floats, needs: Floats, relief: Floats, split: Split) -> Floats:
    """that[r] >= d[r] with the sum that the link may bear, float64 [resources, links]."""
    use = relief > 0.0
    slack_s = np.maximum(borne_s - spent_s.sum(axis=0), 0.0)
    if split == "each":
        return np.where(use, spent_s + slack_s, spent_s)
    if split == "proportional":
        of = np.where(use, spent_s, 0.0).sum(axis=0)
        factor = np.divide(slack_s, of, out=np.zeros_like(slack_s), where=of > 0.0)
        return np.where(use, spent_s * (1.0 + factor), spent_s)
    # Most relief for the seconds given: that = level sqrt(relief a), but no less than d; those at their least leave
    # the sharing, until none falls below. Each pass but the last settles one resource of a link, or more.
    pull = np.where(use, np.sqrt(relief * needs), 0.0)
    shares = pull > 0.0
    for _ in range(len(spent_s) + 1):
        left_s = borne_s - np.where(shares, 0.0, spent_s).sum(axis=0)
        total = np.where(shares, pull, 0.0).sum(axis=0)
        level = np.divide(left_s, total, out=np.zeros_like(total), where=total > 0.0)
        below = shares & (level * pull < spent_s)
        if not below.any():
            break
        shares &= ~below
    return np.where(shares, level * pull, spent_s)


def move_amounts(
    topology: Topology, amounts: Floats, budget: Floats, wanted: VectorRequirements, r: int, step: Step
) -> Floats:
    """Equations 5 and 7 of [1] for one of the resources: all but the straggler move, the straggler takes the rest.

    The weights move as ever: `moves.move`.

    Args:
        topology: the links.
        amounts: x of the resource, float64 [links].
        budget: X of it, float64 [nodes].
        wanted: where to.
        r: which of the resources it is there.
        step: how far.

    Returns:
        x, float64 [links]. A row in which nothing can be judged is as it was.
    """
    hat = wanted.amounts_hat[r]
    moved: Floats = np.maximum(amounts - step.alpha * (amounts - hat), hat)
    tied = wanted.scalar.tied
    if tied is not None:
        many = np.maximum(sum_rows(tied.astype(np.float64), topology.indptr), 1.0)
        freed = budget - sum_rows(moved, topology.indptr)
        moved[tied] += spread(freed / many, topology.indptr)[tied]
    rows = np.flatnonzero(wanted.scalar.straggler >= 0)
    at = wanted.scalar.straggler[rows]
    moved[at] = 0.0
    moved[at] = np.maximum((budget - sum_rows(moved, topology.indptr))[rows], 0.0)
    return moved
