"""Which node takes which seat of a schedule, so that peers are near and slow hops are few.

A schedule (`peer_schedules`) is over abstract seats and does not care who sits there; the radio does. Up to a hundred
nodes a local search exchanges pairs of seats until no exchange helps; for more, the order along a curve through the
area, or along the smoothest vector of the network, is a seating in itself. What a seating costs is handed in as a
function. Nothing here knows of seconds.

Sources: Croes, "A method for solving traveling-salesman problems", 1958 (2-opt), as a search over pairs; Hilbert, 1891,
for the curve; Fiedler, "A property of eigenvectors of nonnegative symmetric matrices", 1975, for the vector.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import eigsh

from .rows import Floats, Indices
from .topology import Topology

__all__ = ["SeatingCost", "curve_order", "exchange_seats", "smoothest_vector", "spectral_order"]

#: Cost of many seatings at once, float64 [seatings], from int64 [seatings, seats]: node at each seat.
SeatingCost = Callable[[Indices], Floats]


def exchange_seats(
    cost: SeatingCost, first: npt.ArrayLike, *, seed: int = 0, starts: int = 4, trials: int = 20_000
) -> tuple[Indices, float]:
    """The best seating found by exchanging two nodes at a time, and what it costs. Deterministic.

    From `first` and from random seatings; in each pass the best of all exchanges is made, until none helps. Where the
    trials do not suffice for whole passes, each pass tries a random part of the exchanges.

    Args:
        cost: of many seatings at once.
        first: a seating to begin with: the node at each seat, int [seats].
        starts: how many beginnings, `first` among them; all share the trials.
        trials: seatings costed, about.

    >>> order, least = exchange_seats(lambda o: np.abs(np.diff(o, axis=1)).sum(axis=1) * 1.0, [2, 0, 3, 1])
    >>> order.tolist() in ([0, 1, 2, 3], [3, 2, 1, 0]), least
    (True, 3.0)
    """
    order = np.asarray(first, np.int64).copy()
    seats = len(order)
    best, least = order, float(cost(order[None])[0])
    if seats < 2:
        return best, least
    rng = np.random.default_rng([seed, seats])
    one, other = np.triu_indices(seats, 1)
    share = max(trials // max(starts, 1), 1)
    batch = min(len(one), max(share // 10, 64))
    for start in range(starts):
        order = best.copy() if start == 0 else rng.permutation(best)
        now = float(cost(order[None])[0])
        left = share
        while left > 0:
            part = np.arange(len(one)) if batch == len(one) else rng.choice(len(one), batch, replace=False)
            tried = np.repeat(order[None], len(part), axis=0)
            rows = np.arange(len(part))
            tried[rows, one[part]], tried[rows, other[part]] = order[other[part]], order[one[part]]
            costs = cost(tried)
            left -= len(part)
            k = int(costs.argmin())
            if costs[k] >= now - 1e-12 * abs(now):
                if batch == len(one):
                    break
                continue
            order, now = tried[k], float(costs[k])
        if now < least:
            best, least = order, now
    return best, least


def curve_order(positions_m: npt.ArrayLike) -> Indices:
    """Nodes in the order in which a Hilbert curve through the area comes by: near in it is near in the plane.

    O(nodes log nodes).

    >>> curve_order([[0.0, 0.0], [9.0, 9.0], [1.0, 0.5]]).tolist()
    [0, 2, 1]
    """
    places = np.asarray(positions_m, np.float64).reshape(-1, 2)
    if not len(places):
        return np.zeros(0, np.int64)
    low = places.min(axis=0)
    width = max(float((places.max(axis=0) - low).max()), 1e-300)
    x, y = np.minimum((places - low) / width * 65536.0, 65535.0).astype(np.int64).T
    at = np.zeros(len(places), np.int64)
    for power in range(15, -1, -1):
        side = 1 << power
        right, up = (x & side) > 0, (y & side) > 0
        at += side * side * np.where(right, np.where(up, 2, 3), np.where(up, 1, 0))
        flip = ~up & right
        x, y = (
            np.where(flip, side - 1 - (x & (side - 1)), x & (side - 1)),
            np.where(flip, side - 1 - (y & (side - 1)), y & (side - 1)),
        )
        x, y = np.where(up, x, y), np.where(up, y, x)
    return np.argsort(at, kind="stable").astype(np.int64)


def spectral_order(topology: Topology, closeness: Floats) -> Indices:
    """Nodes in the order of the smoothest vector over the network: strongly tied nodes come near each other.

    Where no places are known. The network is read without directions.

    Args:
        closeness: 0 or more, float64 [links]; say spectral efficiency.
    """
    nodes = topology.nodes
    if nodes < 3:
        return np.arange(nodes)
    vector = smoothest_vector(topology, closeness)
    return np.argsort(vector, kind="stable").astype(np.int64)


def smoothest_vector(topology: Topology, tie: Floats) -> Floats:
    """The Fiedler vector: of all vectors over nodes with mean 0 and length 1, the one that changes least along links.

    Its sign is such that its largest entry is above 0. Up to 300 nodes exactly, beyond by shifted and inverted Lanczos
    iterations. The network is read without directions; where it is not connected, the vector tells parts apart.

    Args:
        tie: how much a difference along a link counts, 0 or more, float64 [links].

    Returns:
        float64 [nodes].
    """
    nodes = topology.nodes
    if nodes <= 300:
        dense = topology.dense(tie)
        dense = (dense + dense.T) / 2.0
        vector = np.linalg.eigh(np.diag(dense.sum(axis=1)) - dense)[1][:, min(1, nodes - 1)]
    else:
        matrix = topology.matrix(tie)
        matrix = (matrix + matrix.T) / 2.0
        strength = np.asarray(matrix.sum(axis=1)).ravel()
        laplacian = sparse.diags(strength) - matrix
        # Next to 0, but not at it, the Laplacian can be solved for.
        near = -1e-6 * float(strength.mean() or 1.0)
        start = np.random.default_rng([nodes]).standard_normal(nodes)
        values, vectors = eigsh(laplacian.tocsc(), k=2, sigma=near, which="LM", v0=start, tol=1e-3)
        vector = vectors[:, int(values.argmax())]
    return np.asarray(vector * (1.0 if vector[int(np.abs(vector).argmax())] > 0 else -1.0))
