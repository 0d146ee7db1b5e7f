"""Graphs for the tests of this folder: hypothesis strategies, and those whose weights have been published."""

from __future__ import annotations

import networkx as nx
import numpy as np
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from flower_edge.topology.topology import Topology


@st.composite
def topologies(draw: st.DrawFn, least: int = 0, most: int = 8) -> Topology:
    """Any directed graph."""
    nodes = draw(st.integers(least, most))
    pairs = [(i, j) for i in range(nodes) for j in range(nodes) if i != j]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return Topology(nodes, [i for i, _ in chosen], [j for _, j in chosen])


@st.composite
def rings_with_chords(draw: st.DrawFn, least: int = 2, most: int = 8) -> Topology:
    """A directed graph that is strongly connected."""
    nodes = draw(st.integers(least, most))
    pairs = {((i + 1) % nodes, i) for i in range(nodes)}
    others = sorted({(i, j) for i in range(nodes) for j in range(nodes) if i != j} - pairs)
    pairs |= set(draw(st.lists(st.sampled_from(others), unique=True)) if others else [])
    return Topology(nodes, [i for i, _ in sorted(pairs)], [j for _, j in sorted(pairs)])


@st.composite
def undirected(draw: st.DrawFn, least: int = 2, most: int = 8) -> Topology:
    """A connected graph with every link there and back."""
    nodes = draw(st.integers(least, most))
    edges = {(draw(st.integers(0, i - 1)), i) for i in range(1, nodes)}
    pairs = [(i, j) for i in range(nodes) for j in range(i + 1, nodes)]
    edges |= set(draw(st.lists(st.sampled_from(pairs))))
    return of_edges(nodes, sorted(edges))


def of_edges(nodes: int, edges: list[tuple[int, int]]) -> Topology:
    """An undirected graph."""
    return Topology(nodes, [i for i, _ in edges] + [j for _, j in edges], [j for _, j in edges] + [i for i, _ in edges])


def draw_weights(topology: Topology, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Row-stochastic weights, log-normal before that."""
    rng = np.random.default_rng(seed)
    weights, own = rng.lognormal(0.0, spread, topology.links), rng.lognormal(0.0, spread, topology.nodes)
    sums = np.bincount(topology.receiver, weights, topology.nodes) + own
    return weights / sums[topology.receiver], own / sums


def geometric(nodes: int, seed: int, neighbours: float = 12.0) -> Topology:
    """Nodes in a unit square that hear each other when they are near, and a path through all of them."""
    places = np.random.default_rng(seed).random((nodes, 2))
    places = places[np.lexsort((places[:, 1], (places[:, 0] * np.sqrt(nodes) / 2).astype(int)))]
    near = cKDTree(places).query_pairs(np.sqrt(neighbours / np.pi / nodes))
    near |= {(i, i + 1) for i in range(nodes - 1)}
    edges = np.array(sorted(near))
    return Topology(
        nodes, np.concatenate([edges[:, 0], edges[:, 1]]), np.concatenate([edges[:, 1], edges[:, 0]]), places
    )


#: The 8 nodes and 13 edges of the small example of Boyd's "Convex optimization of graph Laplacian eigenvalues" (2006).
SMALL = of_edges(
    8,
    [(0, 1), (1, 2), (2, 3), (0, 4), (1, 7), (1, 3), (4, 5), (4, 6), (2, 6), (3, 7), (5, 6), (6, 7), (1, 6)],
)


def cut_grid() -> Topology:
    """The 64 nodes and 95 edges of its cut grid: 8 x 8 with diagonals of neither kind, some edges taken out."""
    grid = nx.Graph()
    grid.add_nodes_from(range(64))
    grid.add_edges_from((k, k + 1) for k in range(64) if k % 8 != 7)
    grid.add_edges_from((k, k + 8) for k in range(56))
    cut = [(49, 41), (50, 42), (51, 43), (52, 44), (53, 45), (54, 46), (42, 41), (34, 33), (26, 25)]
    cut += [(16, 8), (24, 16), (15, 7), (23, 15), (22, 14), (14, 6), (21, 13), (13, 5)]
    grid.remove_edges_from((a - 1, b - 1) for a, b in cut)
    return Topology.from_networkx(grid)
