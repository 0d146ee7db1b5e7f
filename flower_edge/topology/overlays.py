"""Sparse networks inside large ones: the few links over which consensus is quick and rounds are short.

Functions from places or from what links cost to a choice of links, always symmetric and connected where the network
allows it: each node's nearest neighbours, joined by a minimum spanning tree. Nothing here gives weights or bandwidth.

Source: Toussaint, "The relative neighbourhood graph of a finite planar set", 1980, for the spanning tree inside a
Delaunay triangulation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import Delaunay, QhullError, cKDTree

from ..errors import TopologyError
from .rows import Floats, Indices
from .topology import Topology

__all__ = ["cheapest_links", "matchings", "nearest", "pair_cost", "ring"]


def ring(nodes: int) -> Topology:
    """Every node hears the one before it and the one after it.

    >>> ring(4).sender
    array([1, 3, 0, 2, 1, 3, 0, 2])
    """
    ends = np.arange(nodes)
    pairs = {(int(i), int((i + step) % nodes)) for i in ends for step in (1, -1) if nodes > 1}
    both = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return Topology(nodes, both[:, 0], both[:, 1])


def nearest(positions_m: npt.ArrayLike, neighbours: int) -> Topology:
    """The `neighbours` nearest of each node and the Euclidean minimum spanning tree, each link in both directions.

    O(nodes log nodes): a k-d tree for the neighbours, a Delaunay triangulation, which contains the tree, for the tree.

    Args:
        positions_m: (x, y) of each node, metres, float64 [nodes, 2].
        neighbours: at least so many for each node, or all there are.

    Raises:
        TopologyError: `neighbours` below 0, or positions of another shape.
    """
    places = np.asarray(positions_m, np.float64).reshape(-1, 2)
    nodes = len(places)
    if neighbours < 0:
        raise TopologyError(f"neighbours = {neighbours}: expected 0 or more")
    empty = Topology(nodes, [], [], places)
    if nodes < 2:
        return empty
    most = min(neighbours, nodes - 1)
    _, near = cKDTree(places).query(places, k=most + 1)
    near = near.reshape(nodes, most + 1)
    one = np.repeat(np.arange(nodes), most + 1)
    tree_one, tree_other = _euclidean_tree(places)
    return _both_ways(nodes, np.concatenate([one, tree_one]), np.concatenate([near.ravel(), tree_other]), places)


def _both_ways(nodes: int, one: Indices, other: Indices, places: Floats) -> Topology:
    apart = one != other
    keys = np.unique(
        np.concatenate([one[apart] * nodes + other[apart], other[apart] * nodes + one[apart]]).astype(np.int64)
    )
    return Topology(nodes, keys // nodes, keys % nodes, places)


def _euclidean_tree(places: Floats) -> tuple[Indices, Indices]:
    """The two ends of each edge of the Euclidean minimum spanning tree."""
    nodes = len(places)
    try:
        corners = Delaunay(places)
        spokes, around = corners.vertex_neighbor_vertices
        one, other = np.repeat(np.arange(nodes), np.diff(spokes)), around.astype(np.int64)
        if len(corners.coplanar):  # points that lie on others
            one = np.concatenate([one, corners.coplanar[:, 0]])
            other = np.concatenate([other, corners.coplanar[:, 2]])
    except (QhullError, ValueError):  # fewer than three, or all on a line: neighbours along it
        # Sorted by x, then y, neighbours in the plane are neighbours in the list.
        order = np.lexsort((places[:, 1], places[:, 0])).astype(np.int64)
        return order[:-1], order[1:]
    length_m = np.hypot(*(places[one] - places[other]).T)
    # An edge of length 0 would be no edge.
    tree = minimum_spanning_tree(sparse.csr_matrix((length_m + 1e-9, (one, other)), shape=(nodes, nodes))).tocoo()
    return tree.row.astype(np.int64), tree.col.astype(np.int64)


def pair_cost(topology: Topology, cost: Floats) -> Floats:
    """What both directions of a link cost, the dearer of the two; infinite where one is missing. float64 [links]."""
    back = topology.reverse_link
    return np.where(back >= 0, np.maximum(cost, cost[np.maximum(back, 0)]), np.inf) if topology.links else cost


def cheapest_links(topology: Topology, cost: Floats, neighbours: int) -> npt.NDArray[np.bool_]:
    """The `neighbours` cheapest links of each node and a minimum spanning tree, in both directions, bool [links].

    By cost, say seconds, where `nearest` goes by place: right where walls or shadows decide, and where no places are
    known. The cost of a pair is the dearer direction; what costs infinitely much, or lacks its counterpart, is left
    out. Ties go to the lower sender.

    >>> line = Topology.complete(3)
    >>> cheapest_links(line, np.array([1.0, 9.0, 1.0, 1.0, 9.0, 1.0]), neighbours=1)
    array([ True, False,  True,  True, False,  True])
    """
    both = pair_cost(topology, np.asarray(cost, np.float64))
    chosen = np.zeros(topology.links, np.bool_)
    possible = np.isfinite(both)
    if not possible.any():
        return chosen
    order = np.lexsort((topology.sender, both, topology.receiver))
    rank = np.empty(topology.links, np.int64)
    rank[order] = np.arange(topology.links) - topology.indptr[topology.receiver[order]]
    chosen = possible & (rank < neighbours)
    # Costs as ranks, from 1: a cost of 0 would be no edge of the sparse matrix, and ties fall the same way each time.
    steps = np.unique(both[possible], return_inverse=True)[1].astype(np.float64) + 1.0
    rows, columns = topology.receiver[possible], topology.sender[possible]
    tree = minimum_spanning_tree(sparse.csr_matrix((steps, (rows, columns)), shape=(topology.nodes,) * 2)).tocoo()
    chosen[topology.find(tree.row, tree.col)] = True
    chosen[topology.reverse_link[chosen]] = True
    return chosen


def matchings(topology: Topology, links: npt.NDArray[np.bool_], cost: Floats | None = None) -> list[Indices]:
    """Those links, divided so that in each part every node talks with at most one other: a proper edge colouring.

    Greedy, the cheapest pairs first (in the order of the topology where no cost is given), so that cheap pairs share
    the first parts; at most 2 d - 1 parts with d the largest degree, mostly d or d + 1.

    Args:
        links: bool [links]; each with its counterpart.
        cost: float64 [links].

    Returns:
        Indices of links, both directions of each pair, one int64 array per part.

    Raises:
        TopologyError: a link without its counterpart.
    """
    back = topology.reverse_link
    alone = links & ((back < 0) | ~links[np.maximum(back, 0)])
    if alone.any():
        k = int(alone.argmax())
        i, j = topology.receiver[k], topology.sender[k]
        raise TopologyError(f"node {i} hears node {j} and not the other way round; a matching needs both directions")
    pairs = np.flatnonzero(links & (topology.receiver < topology.sender))
    if cost is not None:
        pairs = pairs[np.argsort(pair_cost(topology, cost)[pairs], kind="stable")]
    taken: list[set[int]] = [set() for _ in range(topology.nodes)]
    parts: list[list[int]] = []
    for k, i, j in zip(pairs.tolist(), topology.receiver[pairs].tolist(), topology.sender[pairs].tolist(), strict=True):
        colour = next(c for c in range(len(parts) + 1) if c not in taken[i] and c not in taken[j])
        if colour == len(parts):
            parts.append([])
        parts[colour] += [k, int(back[k])]
        taken[i].add(colour)
        taken[j].add(colour)
    return [np.array(sorted(part), np.int64) for part in parts]
