"""Topology and the sums over its rows: any graph, there and back through networkx, empty ones included."""

from __future__ import annotations

import time

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_graphs import topologies

from flower_edge.errors import TopologyError
from flower_edge.topology.rows import first_of_largest, largest_in_rows, smallest_in_rows, spread, sum_rows
from flower_edge.topology.topology import Topology

few = settings(max_examples=60)


@few
@given(topologies(), st.randoms(use_true_random=False))
def test_the_order_in_which_links_are_given_does_not_matter(topology: Topology, random: object) -> None:
    order = np.random.default_rng(random.randrange(2**32)).permutation(topology.links)  # type: ignore[attr-defined]
    again = Topology(topology.nodes, topology.receiver[order], topology.sender[order])
    assert again == topology
    assert np.array_equal(np.lexsort((again.sender, again.receiver)), np.arange(again.links))
    for i in range(topology.nodes):
        assert (topology.receiver[topology.row(i)] == i).all()


@few
@given(topologies())
def test_networkx_and_back_is_the_same_topology_with_the_same_values(topology: Topology) -> None:
    values = np.arange(topology.links, dtype=float)
    graph = topology.to_networkx(weight=values)
    assert Topology.from_networkx(graph) == topology
    for j, i, weight in graph.edges(data="weight"):
        assert weight == values[topology.find(i, j)]


@pytest.mark.parametrize(
    "graph",
    [
        nx.path_graph(5),
        nx.petersen_graph(),
        nx.hypercube_graph(3),
        nx.gnp_random_graph(12, 0.3, seed=1),
        nx.gnp_random_graph(12, 0.3, seed=1, directed=True),
        nx.scale_free_graph(9, seed=2),
        nx.empty_graph(4),
        nx.DiGraph(),
    ],
    ids=str,
)
def test_graphs_of_networkx_keep_their_edges_and_directions(graph: nx.Graph) -> None:
    if graph.is_multigraph():
        graph = nx.DiGraph(graph)
        graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    number = {node: i for i, node in enumerate(graph)}
    topology = Topology.from_networkx(graph)
    there = {(number[u], number[v]) for u, v in graph.edges}
    expected = there if graph.is_directed() else there | {(v, u) for u, v in there}
    assert set(zip(topology.sender.tolist(), topology.receiver.tolist(), strict=True)) == expected
    assert topology.nodes == len(graph)
    assert topology.symmetric == all((v, u) in expected for u, v in expected)


def test_positions_travel_through_networkx() -> None:
    graph = nx.random_geometric_graph(10, 0.5, seed=3)
    topology = Topology.from_networkx(graph)
    assert topology.positions_m is not None
    np.testing.assert_array_equal(topology.positions_m, [graph.nodes[k]["pos"] for k in graph])
    again = Topology.from_networkx(topology.to_networkx())
    np.testing.assert_array_equal(again.positions_m, topology.positions_m)
    moved = topology.at(topology.positions_m + 1.0)
    assert moved == topology
    np.testing.assert_allclose(moved.positions_m - topology.positions_m, 1.0)


@few
@given(topologies())
def test_find_knows_every_link_and_no_other(topology: Topology) -> None:
    n = topology.nodes
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    at = topology.find(i, j)
    matrix = topology.dense(np.ones(topology.links))
    assert np.array_equal(at >= 0, matrix > 0)
    assert np.array_equal(at[at >= 0], np.arange(topology.links))
    # A node that does not exist is nobody's neighbour, though its key may be that of another link.
    assert (topology.find(np.arange(n), np.full(n, n)) == -1).all()
    assert (topology.find(np.arange(n), np.full(n, -1)) == -1).all()
    assert (topology.find(np.full(n, n), np.arange(n)) == -1).all()


@few
@given(topologies())
def test_the_reverse_of_a_link_goes_from_its_receiver_to_its_sender(topology: Topology) -> None:
    for k, back in enumerate(topology.reverse_link.tolist()):
        i, j = int(topology.receiver[k]), int(topology.sender[k])
        assert topology.has(j, i) == (back >= 0)
        if back >= 0:
            assert (topology.receiver[back], topology.sender[back]) == (j, i)
    assert topology.symmetric == np.array_equal(topology.dense(1.0), topology.dense(1.0).T)


@few
@given(topologies())
def test_sender_major_order_and_degrees_are_those_of_the_transpose(topology: Topology) -> None:
    turned = topology.reversed()
    assert np.array_equal(topology.sender[topology.by_sender], turned.receiver)
    assert np.array_equal(topology.receiver[topology.by_sender], turned.sender)
    assert np.array_equal(topology.out_indptr, turned.indptr)
    assert np.array_equal(topology.out_degree, turned.in_degree)


@few
@given(topologies(), st.integers(0, 2**32))
def test_sums_and_extremes_of_rows_are_those_of_the_dense_matrix(topology: Topology, seed: int) -> None:
    values = np.random.default_rng(seed).integers(-3, 4, topology.links).astype(float)
    for i in range(topology.nodes):
        row = values[topology.row(i)]
        assert sum_rows(values, topology.indptr)[i] == row.sum()
        assert largest_in_rows(values, topology.indptr)[i] == (row.max() if len(row) else -np.inf)
        assert smallest_in_rows(values, topology.indptr)[i] == (row.min() if len(row) else np.inf)
        first = first_of_largest(values, topology.indptr)[i]
        assert first == (topology.indptr[i] + row.argmax() if len(row) else -1)
        assert (spread(np.arange(topology.nodes) + 1.0, topology.indptr)[topology.row(i)] == i + 1).all()


def test_a_row_of_a_mask_is_counted_and_nan_is_nobodys_largest() -> None:
    indptr = np.array([0, 2, 2, 5, 6])
    assert sum_rows(np.array([True, True, True, False, True, False]), indptr).tolist() == [2.0, 0.0, 2.0, 0.0]
    assert first_of_largest(np.array([np.nan, 1.0, 2.0, np.nan, 2.0, np.nan]), indptr).tolist() == [1, -1, 2, -1]


@few
@given(topologies(), st.integers(0, 2**32))
def test_matrices_hold_each_value_at_receiver_and_sender(topology: Topology, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, diagonal = rng.random(topology.links), rng.random(topology.nodes)
    dense = topology.dense(values, diagonal)
    np.testing.assert_array_equal(topology.matrix(values, diagonal).toarray(), dense)
    np.testing.assert_array_equal(topology.matrix(values).toarray(), topology.dense(values))
    np.testing.assert_array_equal(dense[topology.receiver, topology.sender], values)
    kept = values > 0.5
    np.testing.assert_array_equal(topology.keep(kept).dense(values[kept]), topology.dense(np.where(kept, values, 0.0)))


def test_further_links_find_their_place() -> None:
    path = Topology(3, receiver=[1, 2], sender=[0, 1])
    assert path.with_links([(0, 2)]) == Topology(3, receiver=[0, 1, 2], sender=[2, 0, 1])
    assert path.with_links([]) == path


@pytest.mark.parametrize("nodes", [0, 1, 5])
def test_a_network_without_links_has_empty_rows(nodes: int) -> None:
    lonely = Topology(nodes, [], [])
    assert (lonely.links, lonely.symmetric, lonely.in_degree.tolist()) == (0, True, [0] * nodes)
    assert sum_rows(np.zeros(0), lonely.indptr).tolist() == [0.0] * nodes
    assert first_of_largest(np.zeros(0), lonely.indptr).tolist() == [-1] * nodes
    assert lonely.matrix([], np.ones(nodes)).shape == (nodes, nodes)
    assert Topology.complete(nodes).links == nodes * (nodes - 1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((-1, [], []), "nodes = -1"),
        ((2, [0], []), "1 receivers and 0 senders"),
        ((2, [2], [0]), r"receiver\[0\] = 2 is no node; nodes are 0 to 1"),
        ((2, [0], [-1]), r"sender\[0\] = -1 is no node"),
        ((2, [1], [1]), "node 1 is its own neighbour; drop the self loop"),
        ((2, [0, 0], [1, 1]), "link 1 -> 0 is given twice"),
        ((2, [0.5], [1]), "receiver is float64; expected the numbers of nodes"),
        ((2, [0], [1], [[0.0, 0.0]]), r"shape \(1, 2\): expected one finite row"),
        ((1, [], [], [[0.0, np.nan]]), "expected one finite row"),
    ],
)
def test_a_graph_that_cannot_be_is_refused_by_name(arguments: tuple, complaint: str) -> None:
    with pytest.raises(TopologyError, match=complaint):
        Topology(*arguments)


def test_self_loops_and_parallel_edges_of_networkx_are_refused() -> None:
    with pytest.raises(TopologyError, match="self loop"):
        Topology.from_networkx(nx.Graph([(0, 0)]))
    with pytest.raises(TopologyError, match="given twice"):
        Topology.from_networkx(nx.MultiDiGraph([(0, 1), (0, 1)]))
    with pytest.raises(TopologyError, match=r"expected bool \[1\]"):
        Topology(2, [0], [1]).keep(np.ones(2, bool))


@few
@given(topologies())
def test_links_kept_in_a_state_make_the_same_topology_again(topology: Topology) -> None:
    again = Topology.of_sorted(topology.nodes, topology.receiver, topology.sender, topology.positions_m)
    assert again == topology
    np.testing.assert_array_equal(again.receiver, topology.receiver)
    np.testing.assert_array_equal(again.by_sender, topology.by_sender)


def test_a_topology_cannot_be_changed_from_outside() -> None:
    places = np.zeros((2, 2))
    topology = Topology(2, [0], [1], places)
    places[0, 0] = 9.0
    assert topology.positions_m is not None
    assert topology.positions_m[0, 0] == 0.0
    for array in (
        topology.receiver,
        topology.sender,
        topology.indptr,
        topology.positions_m,
        topology.keep(np.array([True])).sender,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_a_hundred_thousand_nodes_need_no_matrix_and_a_moment() -> None:
    rng = np.random.default_rng(0)
    nodes, links = 100_000, 300_000
    key = np.unique(rng.integers(0, nodes * nodes, links))
    key = rng.permutation(key[key // nodes != key % nodes])
    began = time.process_time()
    topology = Topology(nodes, key // nodes, key % nodes)
    topology.keep(topology.sender % 2 == 0)
    assert len(topology.by_sender) == topology.links == len(key)
    assert time.process_time() - began < 5.0


def test_links_as_a_state_holds_them_make_the_same_topology_without_another_look() -> None:
    first = Topology.complete(4)
    told = {"nodes": 4, "receiver": first.receiver.copy(), "sender": first.sender.copy()}
    for again in (Topology.of_sorted(**told), Topology.of_sorted(**told, indptr=first.indptr)):
        assert again == first
        assert again.has(3, 0)
        np.testing.assert_array_equal(again.in_degree, first.in_degree)
