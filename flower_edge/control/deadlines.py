"""Deadlines: bandwidth for a set of links when P is random, so that rounds are short in the mean.

With P known, the best split of a node's band ends all its transfers at once (`min_max`). With P random, what counts is
the largest of all P[j] + M[j], M[j] the slowest transfer of j's model; and transfers that are quicker than M[j] gain
nothing. So the unknowns are one deadline per sender, not one band per link:

    minimise  E max_j (P[j] + M[j])   such that   sum over k into i of  u[k] / (M[sender k] - extra[k])  <= 1  for all i

The mean of a largest is convex in M and each constraint is, too: the problem is convex, and small. It is solved by
SLSQP from the exact min-max split of the places of P; networks beyond `SLSQP_NODES` take that split itself. Nothing
here chooses links.

Letters as in `phases`: M deadlines [nodes], u seconds with the whole budget [links].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import Bounds, minimize

from ..topology.rows import Floats, Indices
from ..topology.topology import Topology
from .controller import Observation
from .min_max import min_max_bandwidth
from .ready_times import ReadyTimes

__all__ = ["SLSQP_NODES", "deadlines_s", "shares_for"]

#: Up to so many nodes deadlines are optimised; beyond, and as a start, they are those of the exact min-max split.
SLSQP_NODES = 64


def deadlines_s(receiver: Indices, sender: Indices, whole_s: Floats, extra_s: Floats, ready: ReadyTimes) -> Floats:
    """M that all bands suffice for and that make rounds short in the mean. float64 [nodes]; 0 for who is not heard.

    Args:
        receiver, sender: links in use, receivers ascending, int64 [links].
        whole_s: u, finite, above 0, float64 [links].
        extra_s: latency that no band shortens, float64 [links].
        ready: P, of all nodes.
    """
    nodes = len(ready.place_s)
    if not len(receiver):
        return np.zeros(nodes)
    first = _split(receiver, sender, whole_s, extra_s, ready)
    heard = np.unique(sender)
    if len(heard) > SLSQP_NODES or len(ready.deviations_s) < 2:
        return first
    column = np.searchsorted(heard, sender)
    rows, row = np.unique(receiver, return_inverse=True)

    def mean_s(of_heard: Floats) -> float:
        return float(ready.largest_s(full(of_heard)))

    def mean_slope(of_heard: Floats) -> Floats:
        return ready.slope(full(of_heard))[heard]

    def full(of_heard: Floats) -> Floats:
        after_s = np.zeros(nodes)
        after_s[heard] = of_heard
        return after_s

    def spare(of_heard: Floats) -> Floats:
        return np.asarray(1.0 - np.bincount(row, whole_s / (of_heard[column] - extra_s), minlength=len(rows)))

    def spare_slope(of_heard: Floats) -> Floats:
        slope = np.zeros((len(rows), len(heard)))
        np.add.at(slope, (row, column), whole_s / (of_heard[column] - extra_s) ** 2)
        return slope

    least = np.zeros(len(heard))
    np.maximum.at(least, column, whole_s + extra_s)
    start = np.maximum(first[heard], least)
    enough: Any = {"type": "ineq", "fun": spare, "jac": spare_slope}
    found = minimize(
        mean_s,
        start,
        jac=mean_slope,
        method="SLSQP",
        bounds=Bounds(least * (1.0 - 1e-9), np.inf),
        constraints=enough,
        options={"maxiter": 60, "ftol": 1e-6},
    )
    best = np.maximum(found.x, least) if np.isfinite(found.x).all() else start
    # What is not feasible after all is stretched until it is.
    short = np.maximum(1.0 - spare(best), 1.0)
    stretch = np.ones(len(heard))
    np.maximum.at(stretch, column, short[row])
    best = best * stretch
    return full(best) if ready.largest_s(full(best)) < ready.largest_s(full(start)) else full(start)


def _split(receiver: Indices, sender: Indices, whole_s: Floats, extra_s: Floats, ready: ReadyTimes) -> Floats:
    """Deadlines of the exact min-max split for P at its places: every row's models come in at once."""
    nodes = len(ready.place_s)
    links = Topology(nodes, receiver, sender)
    expected = Observation(ready.place_s, 1.0 / whole_s, np.ones(nodes), extra_s)
    share, _ = min_max_bandwidth(links, np.ones(len(receiver), np.bool_), np.ones(nodes), expected)
    after_s = np.zeros(nodes)
    np.maximum.at(after_s, sender, whole_s / share + extra_s)
    return after_s


def shares_for(
    nodes: int, receiver: Indices, sender: Indices, whole_s: Floats, extra_s: Floats, after_s: Floats
) -> Floats:
    """Shares of each receiver's band that meet deadlines in the same proportion as far as they can be met.

    Each row sums to 1: what the deadlines leave over makes all transfers of the row quicker, what they lack slower.

    Args:
        after_s: M, float64 [nodes].

    Returns:
        float64 [links], above 0.
    """
    need = whole_s / np.maximum(after_s[sender] - extra_s, whole_s)
    total = np.bincount(receiver, need, minlength=nodes)
    return np.asarray(need / total[receiver])
