"""Requirement values: how much weight each neighbour could bear and how little band it could do with.

What a node works out after a round from the delays it saw ([1] ¶43, eqs. 1 and 2), row by row: the straggler is the
neighbour with the largest weighted cost tau; every other link may gain weight, or give up band, until it costs tau,
too. Nothing here moves anything or knows other rows.

Letters as in `control.controller` and `link_memory`, and
    What[i, j]   most weight j could bear          [links]   W <= What <= 1
    Bhat[i, j]   least band j could do with   Hz   [links]   0 <= Bhat <= B
    s[i]         the straggler's link              [nodes]
    tau[i]       c of that link               s    [nodes]
    r            tau / c, slack of a link

Print and reading differ in places (docs/control.md lists them): P belongs to the sender (`side="receiver"`), What is
reckoned with the link's own band (`cap="current"`), and theta splits the slack r between the two, because eqs. 1 and 2
each spend the whole of it. The printed ones are `side="sender"`, `cap="budget"`, `theta=None`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..topology.rows import Floats, Indices, largest_in_rows, smallest_in_rows, spread, sum_rows
from ..topology.topology import Topology
from .controller import Control
from .link_memory import Known

__all__ = ["Cap", "Requirements", "SelfEntry", "Ties", "link_requirements"]

#: With how much band What is reckoned: the link's own, or all the node has, as eq. 2 is printed.
Cap = Literal["current", "budget"]
#: A node's weight for itself stays; may grow; or takes part as any other, also as the straggler.
SelfEntry = Literal["fixed", "free", "full"]
#: Of several largest costs, the first is the straggler; or all within 1e-9 of it are, and share what is released.
Ties = Literal["first", "shared"]

_TIED = 1e-9


@dataclass(frozen=True, eq=False)
class Requirements:
    """The requirement values of some rows, over the links of a topology.

    Attributes:
        weights_hat: What, float64 [links]; W itself for a straggler, and for a link that cannot be judged.
        bandwidth_hat_hz: Bhat, float64 [links]; B itself for those.
        self_weights_hat: What[i, i], float64 [nodes].
        straggler: link of each row's straggler, int64 [nodes]; -1 where there is none, or where it is the node itself.
        tau_s: its cost, float64 [nodes]; 0 where there is none.
        alpha_max: largest step that leaves the straggler no weight below 0 (eq. 4), float64 [nodes]; infinite where
            nothing would move.
        own_straggler: rows whose straggler is the node itself, bool [nodes]; None for none.
        tied: the stragglers of each row, bool [links], where ties share; None where `straggler` says it.
        clipped: links that need more band than they have, so keep what they have.
        impossible: links for which eq. 1 has a denominator of 0 or less, so no solution; they keep what they have.
    """

    weights_hat: Floats
    bandwidth_hat_hz: Floats
    self_weights_hat: Floats
    straggler: Indices
    tau_s: Floats
    alpha_max: Floats
    own_straggler: npt.NDArray[np.bool_] | None = None
    tied: npt.NDArray[np.bool_] | None = None
    clipped: int = 0
    impossible: int = 0


def link_requirements(
    topology: Topology,
    control: Control,
    budget_hz: Floats,
    known: Known,
    own_s: Floats,
    *,
    cap: Cap = "current",
    theta: float | None = None,
    self_entry: SelfEntry = "fixed",
    ties: Ties = "first",
) -> Requirements:
    """Eqs. 1 and 2 of [1] for every row of a topology; of one row as well as of all.

        Bhat = need / (tau / W - ready)           (1)
        What = min(tau / (ready + need / B), 1)   (2), with the node's whole budget in place of B for `cap="budget"`

    and with theta, instead of both: What = min(W r^theta, 1), Bhat = need / (tau / What - ready). Then no step in
    [0, 1] makes a link cost more than tau: its cost is a rising line times a rising convex function, so convex, and
    it is at most tau at both ends.

    A link that cannot be judged (not `known.heard`) is no straggler and does not move.

    Args:
        control: W and B of the round that was observed.
        budget_hz: float64 [nodes].
        known: ready and need of the links.
        own_s: P[i] of the rows, float64 [nodes]; only for a self entry that is not fixed.
    """
    weights, bandwidth_hz, ready_s, need_hz_s = (
        control.weights,
        control.bandwidth_hz,
        known.ready_s,
        known.need_hz_s,
    )
    indptr = topology.indptr
    still = weights <= 0.0
    if known.heard is not None:
        still |= ~known.heard
    stay = np.flatnonzero(still)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        latency_s = np.divide(need_hz_s, bandwidth_hz)
        latency_s += ready_s
        cost_s = weights * latency_s
        cost_s[stay] = 0.0
        tau_s = largest_in_rows(cost_s, indptr, empty=0.0)
        own = _own_costs(control, own_s) if self_entry == "full" else None
        own_straggler = None
        if own is not None:
            own_straggler = own > tau_s
            tau_s = np.maximum(tau_s, own)
        tau = spread(tau_s, indptr)
        straggler, tied = _stragglers(topology, cost_s, tau, tau_s, own_straggler, ties)

        if theta is not None:
            weights_hat = np.minimum(weights * _power(tau / cost_s, theta), 1.0)
            slack_s = tau / weights_hat
        else:
            if cap == "budget":
                latency_s = need_hz_s / spread(budget_hz, indptr) + ready_s
            weights_hat = np.divide(tau, latency_s, out=latency_s)
            np.minimum(weights_hat, 1.0, out=weights_hat)
            slack_s = np.divide(tau, weights, out=tau)
        slack_s -= ready_s
        bandwidth_hat_hz = np.divide(need_hz_s, slack_s)

    # Rounding, and readings that do not agree with each other, must not turn a release into a claim.
    np.maximum(weights_hat, weights, out=weights_hat)
    keep = [stay, np.flatnonzero(tied) if tied is not None else straggler[straggler >= 0]]
    if own_straggler is not None and own_straggler.any():
        # No link for the band to go to: weights move, bandwidth does not.
        rows = np.flatnonzero(spread(own_straggler.astype(float), indptr))
        bandwidth_hat_hz[rows] = bandwidth_hz[rows]
    for links in keep:
        weights_hat[links] = weights[links]
        bandwidth_hat_hz[links] = bandwidth_hz[links]
    clipped, impossible = 0, 0
    over = bandwidth_hat_hz > bandwidth_hz
    if not bandwidth_hat_hz.min(initial=0.0) >= 0.0:
        over |= ~(bandwidth_hat_hz >= 0.0)
    if len(at := np.flatnonzero(over)):
        impossible = int(np.count_nonzero(slack_s[at] <= 0.0))
        clipped = int(np.count_nonzero(bandwidth_hat_hz[at] > bandwidth_hz[at] * (1.0 + _TIED)))
        bandwidth_hat_hz[at] = bandwidth_hz[at]

    self_hat = _self_weights_hat(control, own_s, tau_s, self_entry, own_straggler, theta)
    alpha_max = _largest_steps(topology, control, weights_hat, self_hat, straggler, tied, own_straggler)
    return Requirements(
        weights_hat,
        bandwidth_hat_hz,
        self_hat,
        straggler,
        tau_s,
        alpha_max,
        own_straggler,
        tied,
        clipped,
        impossible,
    )


def _power(ratio: Floats, exponent: float) -> Floats:
    return np.sqrt(ratio) if exponent == 0.5 else np.asarray(ratio**exponent)


def _own_costs(control: Control, own_s: Floats) -> Floats:
    """c[i, i]; 0 for a node that was silent itself."""
    return np.nan_to_num(control.self_weights * own_s, nan=0.0)


def _stragglers(
    topology: Topology,
    cost_s: Floats,
    tau: Floats,
    tau_s: Floats,
    own_straggler: npt.NDArray[np.bool_] | None,
    ties: Ties,
) -> tuple[Indices, npt.NDArray[np.bool_] | None]:
    straggler = np.full(topology.nodes, -1, np.int64)
    at = np.flatnonzero(cost_s == tau)
    # Backwards, so that the first one of a row is written last.
    straggler[topology.receiver[at[::-1]]] = at[::-1]
    straggler[tau_s <= 0.0] = -1
    if own_straggler is not None:
        straggler[own_straggler] = -1
    if ties == "first":
        return straggler, None
    tied = (cost_s >= tau * (1.0 - _TIED)) & (tau > 0.0)
    if own_straggler is not None:
        tied &= spread(own_straggler.astype(float), topology.indptr) == 0.0
    return straggler, tied


def _self_weights_hat(
    control: Control,
    own_s: Floats,
    tau_s: Floats,
    self_entry: SelfEntry,
    own_straggler: npt.NDArray[np.bool_] | None,
    theta: float | None,
) -> Floats:
    if self_entry == "fixed":
        return control.self_weights
    with np.errstate(divide="ignore", invalid="ignore"):
        could = tau_s / own_s
        if theta is not None:
            # As its neighbours do, though it has no band to give up: else it would outgrow them.
            could = control.self_weights * _power(could / control.self_weights, theta)
        could = np.where(np.isfinite(could) & (tau_s > 0.0), could, 0.0)
    hat = np.maximum(np.minimum(could, 1.0), control.self_weights)
    return hat if own_straggler is None else np.where(own_straggler, control.self_weights, hat)


def _largest_steps(
    topology: Topology,
    control: Control,
    weights_hat: Floats,
    self_hat: Floats,
    straggler: Indices,
    tied: npt.NDArray[np.bool_] | None,
    own_straggler: npt.NDArray[np.bool_] | None,
) -> Floats:
    """Eq. 4, solved for the step: alpha <= W[i, s] / sum over the others of (What - W). Infinite where that is 0."""
    wanted = sum_rows(weights_hat - control.weights, topology.indptr)
    if self_hat is not control.self_weights:
        wanted = wanted + (self_hat - control.self_weights)
    there = straggler >= 0
    have = np.zeros(topology.nodes)
    have[there] = control.weights[straggler[there]]
    if tied is not None:
        fewest = smallest_in_rows(np.where(tied, control.weights, 1.0), topology.indptr, empty=0.0)
        have = np.where(there, fewest * sum_rows(tied.astype(float), topology.indptr), 0.0)
    if own_straggler is not None:
        have = np.where(own_straggler, control.self_weights, have)
        there = there | own_straggler
    moves = there & (wanted > 0.0)
    return np.asarray(np.divide(have, wanted, out=np.full(topology.nodes, np.inf), where=moves))
