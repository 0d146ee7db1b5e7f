"""Sparse networks inside large ones are connected, symmetric, and no larger than promised."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import TopologyError
from flower_edge.topology.connectivity import connected
from flower_edge.topology.overlays import cheapest_links, matchings, nearest, pair_cost, ring
from flower_edge.topology.topology import Topology


def places(nodes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, nodes]).uniform(0.0, 500.0, (nodes, 2))


@given(st.integers(1, 40), st.integers(0, 6), st.integers(0, 5))
@settings(max_examples=60)
def test_nearest_neighbours_with_the_tree_are_connected_both_ways(nodes: int, neighbours: int, seed: int) -> None:
    found = nearest(places(nodes, seed), neighbours)
    assert connected(found)
    assert found.symmetric
    assert (found.in_degree >= min(neighbours, nodes - 1)).all()


def test_the_tree_is_the_minimum_spanning_tree_of_all_distances() -> None:
    where = places(30)
    whole = nx.Graph()
    for i in range(30):
        for j in range(i):
            whole.add_edge(i, j, weight=float(np.hypot(*(where[i] - where[j]))))
    expected = {frozenset(edge) for edge in nx.minimum_spanning_edges(whole, data=False)}
    tree = nearest(where, 0)
    assert {frozenset(e) for e in zip(tree.receiver.tolist(), tree.sender.tolist(), strict=True)} == expected
    assert tree.links == 58


def test_each_hears_those_that_are_nearest() -> None:
    where = places(25, 3)
    found = nearest(where, 3)
    far_m = np.hypot(*(where[:, None] - where[None]).transpose(2, 0, 1))
    for i in range(25):
        for j in np.argsort(far_m[i])[1:4]:
            assert found.has(i, int(j))


@pytest.mark.parametrize(
    "where",
    [
        [[0, 0], [0, 0]],
        [[0, 0], [1, 1], [2, 2], [3, 3]],
        [[0, 0], [1, 0], [0, 1], [0, 0]],
        np.zeros((5, 2)),
        [[3, 4]],
        np.zeros((0, 2)),
    ],
    ids=["on each other", "on a line", "twice in one place", "all in one place", "alone", "nobody"],
)
def test_awkward_places_are_connected_too(where: object) -> None:
    assert connected(nearest(where, 0))  # type: ignore[arg-type]
    assert connected(nearest(where, 2))  # type: ignore[arg-type]


def test_a_negative_number_of_neighbours_is_refused() -> None:
    with pytest.raises(TopologyError, match="neighbours = -1"):
        nearest(places(3), -1)


@given(st.integers(2, 20), st.integers(0, 4), st.integers(0, 5))
@settings(max_examples=40)
def test_cheapest_links_agree_with_nearest_where_cost_is_distance(nodes: int, neighbours: int, seed: int) -> None:
    where = places(nodes, seed)
    whole = Topology.complete(nodes)
    far_m = np.hypot(*(where[whole.receiver] - where[whole.sender]).T)
    assert whole.keep(cheapest_links(whole, far_m, neighbours)) == nearest(where, neighbours)


def test_a_link_is_as_dear_as_its_dearer_direction_and_useless_without_a_counterpart() -> None:
    line = Topology(3, receiver=[0, 1, 2], sender=[1, 0, 1])
    np.testing.assert_array_equal(pair_cost(line, np.array([1.0, 5.0, 2.0])), [5.0, 5.0, np.inf])
    np.testing.assert_array_equal(cheapest_links(line, np.array([1.0, 5.0, 2.0]), 3), [True, True, False])


def test_costs_of_nothing_still_span() -> None:
    whole = Topology.complete(6)
    assert connected(whole, cheapest_links(whole, np.zeros(whole.links), 0))


@given(st.integers(2, 25), st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=40)
def test_matchings_are_matchings_and_together_all_links(nodes: int, neighbours: int, seed: int) -> None:
    base = nearest(places(nodes, seed), neighbours)
    parts = matchings(base, np.ones(base.links, np.bool_))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(base.links))
    for part in parts:
        assert np.bincount(base.receiver[part]).max() == 1
        assert np.bincount(base.sender[part]).max() == 1
    assert base.in_degree.max() <= len(parts) <= max(2 * base.in_degree.max() - 1, 1)


def test_a_one_way_link_is_in_no_matching() -> None:
    with pytest.raises(TopologyError, match="node 1 hears node 0 and not the other way round"):
        matchings(Topology(2, [1], [0]), np.ones(1, np.bool_))


def test_a_ring_is_a_ring() -> None:
    for nodes in (3, 4, 9):
        assert ring(nodes) == Topology.from_networkx(nx.cycle_graph(nodes))
    assert ring(2).links == 2
    assert ring(1).links == 0
