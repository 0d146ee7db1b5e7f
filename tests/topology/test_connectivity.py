"""Connectivity against networkx, prunes against brute force, windows against the union they stand for."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_graphs import geometric, rings_with_chords, topologies

from flower_edge.errors import TopologyError
from flower_edge.store import tree_from_bytes, tree_to_bytes
from flower_edge.topology.connectivity import (
    UnionWindow,
    components,
    connected,
    periodically_connected,
    reaches_all,
    require_connected,
    safe_prunes,
)
from flower_edge.topology.topology import Topology

few = settings(max_examples=60)
seeds = st.integers(0, 2**32)


def strongly(topology: Topology, in_use: np.ndarray) -> bool:
    return topology.nodes <= 1 or nx.is_strongly_connected(topology.keep(in_use).to_networkx())


def masks(topology: Topology, seed: int, rounds: int, share: float = 0.6) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.random(topology.links) < share for _ in range(rounds)]


@few
@given(topologies(), seeds)
def test_connected_means_strongly_connected_over_the_links_in_use(topology: Topology, seed: int) -> None:
    (in_use,) = masks(topology, seed, 1)
    assert connected(topology, in_use) == strongly(topology, in_use)
    assert connected(topology) == strongly(topology, np.ones(topology.links, bool))
    labels = components(topology, in_use)
    for group in nx.strongly_connected_components(topology.keep(in_use).to_networkx()):
        assert set(np.flatnonzero(labels == labels[next(iter(group))]).tolist()) == group


def test_pieces_are_named() -> None:
    path = Topology(4, receiver=[1, 0, 3, 2], sender=[0, 1, 2, 3])
    with pytest.raises(TopologyError, match="leave 2 pieces, nodes 0 and 2 among them"):
        require_connected(path)
    with pytest.raises(TopologyError, match=r"expected bool \[4\]"):
        connected(path, np.ones(3, bool))
    require_connected(Topology(1, [], []))
    require_connected(Topology(0, [], []))


# -- prunes ----------------------------------------------------------------------------------------------------------


def one_by_one(topology: Topology, in_use: np.ndarray, candidates: list[int], also: np.ndarray) -> list[bool]:
    """The greedy rule, by asking networkx for a path each time."""
    left, out = in_use.copy(), []
    for k in candidates:
        if not left[k]:
            out.append(True)
            continue
        left[k] = False
        graph = topology.keep(left | also).to_networkx()
        safe = nx.has_path(graph, int(topology.sender[k]), int(topology.receiver[k]))
        left[k] = not safe
        out.append(safe)
    return out


@few
@given(topologies(least=2), seeds, st.booleans())
def test_prunes_are_let_go_as_if_each_was_tried_in_turn(topology: Topology, seed: int, promised: bool) -> None:
    in_use, also = masks(topology, seed, 2)
    also &= promised
    candidates = np.random.default_rng(seed).permutation(topology.links)[: topology.links // 2 + 1].tolist()
    found = safe_prunes(topology, in_use, candidates, also)
    assert found.tolist() == one_by_one(topology, in_use, candidates, also)


@few
@given(rings_with_chords(), seeds, st.integers(1, 4))
def test_no_prune_that_is_let_go_ever_breaks_a_window(topology: Topology, seed: int, tau: int) -> None:
    rng = np.random.default_rng(seed)
    in_use = np.ones(topology.links, bool)
    window = UnionWindow.empty(topology, tau)
    for _ in range(tau + 4):
        candidates = rng.permutation(topology.links)[:3]
        in_use = in_use.copy()
        in_use[candidates[safe_prunes(topology, in_use, candidates)]] = False
        assert window.connected_with(in_use)
        window = window.push(in_use)


def test_a_check_of_the_window_alone_lets_a_fatal_prune_pass_and_fails_tau_rounds_later() -> None:
    pair = Topology.complete(2)
    window = UnionWindow.empty(pair, tau=3).push(np.array([True, True]))
    without = np.array([True, False])
    assert safe_prunes(pair, np.array([True, True]), [1]).tolist() == [False]
    answers = []
    for _ in range(3):
        answers.append(window.connected_with(without))
        window = window.push(without)
    assert answers == [True, True, False]


def test_a_link_that_is_promised_or_not_there_is_safe() -> None:
    pair, both = Topology.complete(2), np.array([True, True])
    assert safe_prunes(pair, both, [0], also=np.array([True, False])).tolist() == [True]
    assert safe_prunes(pair, np.array([False, True]), [0, 0]).tolist() == [True, True]
    assert safe_prunes(pair, both, []).tolist() == []
    with pytest.raises(TopologyError, match="indices of links, 0 to 1"):
        safe_prunes(pair, both, [2])


def test_all_but_a_skeleton_of_a_large_network_can_go() -> None:
    topology = geometric(800, seed=1)
    everything = np.ones(topology.links, bool)
    order = np.random.default_rng(0).permutation(topology.links)
    gone = safe_prunes(topology, everything, order)
    left = everything.copy()
    left[order[gone]] = False
    assert connected(topology, left)
    assert 800 <= left.sum() < 1600
    # Nothing more can go.
    assert not safe_prunes(topology, left, np.flatnonzero(left)).any()


# -- windows ---------------------------------------------------------------------------------------------------------


@few
@given(topologies(least=1), seeds, st.integers(1, 4))
def test_a_window_is_the_union_of_its_rounds(topology: Topology, seed: int, tau: int) -> None:
    rounds = masks(topology, seed, 7, share=0.3)
    window = UnionWindow.empty(topology, tau)
    for number, in_use in enumerate(rounds):
        past = rounds[max(0, number + 1 - tau) : number]
        union = np.logical_or.reduce([in_use, *past])
        assert np.array_equal(window.union_with(in_use), union)
        assert window.connected_with(in_use) == strongly(topology, union)
        window = window.push(in_use)
        assert np.array_equal(window.union(), union)


def test_a_window_survives_a_checkpoint() -> None:
    topology = Topology.complete(4)
    window = UnionWindow.empty(topology, tau=3)
    for in_use in masks(topology, 1, 5):
        window = window.push(in_use)
    again = UnionWindow.from_state(topology, tree_from_bytes(tree_to_bytes(window.state())))
    (candidate,) = masks(topology, 2, 1, share=0.1)
    assert (again.tau, again.round) == (3, 5)
    assert np.array_equal(again.push(candidate).union(), window.push(candidate).union())


def test_pushing_leaves_the_window_handed_in_as_it_was() -> None:
    window = UnionWindow.empty(Topology.complete(3), tau=2)
    window.push(np.ones(6, bool))
    assert window.round == 0
    assert not window.union().any()
    with pytest.raises(TopologyError, match="tau = 0"):
        UnionWindow.empty(Topology.complete(3), tau=0)


@few
@given(topologies(least=1, most=5), seeds, st.integers(1, 3))
def test_periodically_connected_looks_at_every_run_of_tau_rounds(topology: Topology, seed: int, tau: int) -> None:
    rounds = masks(topology, seed, 4, share=0.8)
    runs = [rounds[k : k + tau] for k in range(len(rounds) - tau + 1)]
    assert periodically_connected(topology, rounds, tau) == all(strongly(topology, np.any(run, axis=0)) for run in runs)
    assert periodically_connected(topology, rounds, tau, reading="reach") == all(
        reaches_all(topology, run) for run in runs
    )


def test_a_union_can_be_connected_and_news_still_not_get_through() -> None:
    ring = Topology(3, receiver=[1, 2, 0], sender=[0, 1, 2])
    backwards = [ring.receiver == 0, ring.receiver == 2, ring.receiver == 1]
    assert periodically_connected(ring, backwards, tau=3)
    assert not periodically_connected(ring, backwards, tau=3, reading="reach")
    assert periodically_connected(ring, [np.ones(3, bool)] * 2, tau=2, reading="reach")
    with pytest.raises(TopologyError, match="tau = 4 over 3 rounds"):
        periodically_connected(ring, backwards, tau=4)


def test_one_peer_of_an_exponential_graph_reaches_all_in_as_many_rounds_as_there_are_hops() -> None:
    nodes, hops = 16, [1, 2, 4, 8]
    i = np.tile(np.arange(nodes), len(hops))
    hop = np.repeat(hops, nodes)
    graph = Topology(nodes, i, (i + hop) % nodes)
    used = [(graph.sender - graph.receiver) % nodes == h for h in hops]
    assert reaches_all(graph, used)
    assert not reaches_all(graph, used[:-1])


def test_a_window_without_a_link_does_not_count_on_it() -> None:
    there_and_back = Topology(2, receiver=[0, 1], sender=[1, 0])
    window = UnionWindow.empty(there_and_back, tau=3).push(np.ones(2, bool))
    assert window.connected_with(np.zeros(2, bool))
    assert not window.without(np.array([1])).connected_with(np.array([True, False]))
    assert window.without(np.array([1])).connected_with(np.array([False, True]))
