"""A search for the links to use: which directed links, doubly stochastic, give the least time to an accuracy.

Simulated annealing over sets of links, for up to some ten nodes, where a set is costed in a fraction of a millisecond.
What is minimised is handed in as a function of the mean true time of a round and the weight matrix. Weights during the
search are a few Sinkhorn passes over equal ones. Nothing here knows of P or S beyond that time.

Source: Kirkpatrick, Gelatt, Vecchi, "Optimization by simulated annealing", Science 1983.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..topology.rows import Floats
from .ready_times import ReadyTimes

__all__ = ["balanced", "own_weight", "search_support", "strongly_connected", "wait_s"]

Support = npt.NDArray[np.bool_]

#: Weight of a node's own model against that of a neighbour, before scaling: models drift less apart where it is low, as
#: long as a node hears few; for one that hears all it is 1, and the average is complete.
_OWN = 0.25
_PASSES = 8
_POWER = 0.8


def balanced(support: Support, passes: int = _PASSES) -> Floats:
    """Nearly doubly stochastic weights on links and diagonal: equal ones, scaled a few times. [nodes, nodes]."""
    weights = support.astype(np.float64)
    np.fill_diagonal(weights, own_weight(weights.sum(axis=1)))
    for _ in range(passes):
        weights /= weights.sum(axis=1, keepdims=True)
        weights /= weights.sum(axis=0)
    return weights


def own_weight(degree: Floats) -> Floats:
    """Weight of a node's own model before scaling, from how many of the others it hears. float64 [nodes]."""
    others = max(len(degree) - 1, 1)
    return np.asarray(_OWN + (1.0 - _OWN) * (degree / others) ** 2)


def wait_s(support: Support, whole_s: Floats, extra_s: Floats) -> Floats:
    """M of each sender if band goes by the power 0.8 of what a transfer needs, float64 [nodes].

    Between all transfers equally long (power 1) and the least sum of them (1/2): near the optimum for a random P.
    """
    row_s = np.where(support, whole_s**_POWER, 0.0).sum(axis=1)
    return np.asarray(np.where(support, row_s[:, None] * whole_s ** (1.0 - _POWER) + extra_s, 0.0).max(axis=0))


def search_support(
    first: list[Support],
    allowed: Support,
    whole_s: Floats,
    extra_s: Floats,
    ready: ReadyTimes,
    cost: Callable[[float, Floats], float],
    *,
    tries: int,
    seed: int,
) -> tuple[Support, float]:
    """The cheapest set of links found, and its cost. Deterministic.

    Args:
        first: sets to begin with, strongly connected; the search goes on from the cheapest, and stays so. bool
            [nodes, nodes], row = receiver.
        allowed: links that may be used, bool [nodes, nodes], nothing on the diagonal.
        whole_s, extra_s: seconds with the whole band, and latency; float64 [nodes, nodes], any finite number where not
            allowed.
        ready: P of these nodes.
        cost: of a mean true time, seconds, and weights; infinite for what must not be.
        tries: sets costed.
    """
    rng = np.random.default_rng([seed, len(allowed)])

    def costed(support: Support) -> float:
        return cost(float(ready.largest_s(wait_s(support, whole_s, extra_s))), balanced(support))

    costs = [costed(support) for support in first]
    now = best = first[int(np.argmin(costs))]
    at = least = min(costs)
    receivers, senders = np.nonzero(allowed)
    hot = 0.006 * at
    for k in range(tries):
        tried = now.copy()
        kind = rng.random()
        if kind < 0.4:
            link = rng.integers(len(receivers))
            i, j = receivers[link], senders[link]
            tried[i, j] = not tried[i, j]
        else:
            used = np.flatnonzero(now)
            i, j = divmod(int(used[rng.integers(len(used))]), len(now))
            tried[i, j] = False
            if kind < 0.6:  # the dearest link of that row instead of any
                tried[i, j] = True
                tried[i, int(np.where(now[i], whole_s[i], -1.0).argmax())] = False
            elif kind < 0.8:
                tried[i, rng.integers(len(now))] = True
            else:
                tried[rng.integers(len(now)), j] = True
            tried &= allowed
        if not strongly_connected(tried):
            continue
        there = costed(tried)
        if there < at or rng.random() < np.exp((at - there) / max(hot * (1.0 - k / tries), 1e-12)):
            now, at = tried, there
            if at < least:
                best, least = now, at
    return best, least


def strongly_connected(support: Support) -> bool:
    """Whether everybody reaches everybody, by squaring: for a handful of nodes quicker than a search."""
    reach = support.astype(np.float32)
    np.fill_diagonal(reach, 1.0)
    for _ in range((len(reach) - 1).bit_length()):
        if reach.all():
            return True
        reach = np.minimum(reach @ reach, 1.0)
    return bool(reach.all())
