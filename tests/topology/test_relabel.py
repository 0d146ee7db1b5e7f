"""Seats are given so that the hops of a schedule are short."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from flower_edge.topology.overlays import nearest
from flower_edge.topology.relabel import curve_order, exchange_seats, smoothest_vector, spectral_order
from flower_edge.topology.topology import Topology


def places(nodes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, nodes]).uniform(0.0, 500.0, (nodes, 2))


def round_trip_m(where: np.ndarray, orders: np.ndarray) -> np.ndarray:
    tour = where[orders]
    return np.hypot(*(tour - np.roll(tour, 1, axis=1)).transpose(2, 0, 1)).sum(axis=1)


def test_a_ring_of_places_on_a_circle_is_found() -> None:
    angle = 2 * np.pi * np.arange(10) / 10
    where = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    shuffled = np.random.default_rng(4).permutation(10)
    _, length = exchange_seats(lambda orders: round_trip_m(where, orders), shuffled, starts=8)
    assert length == pytest.approx(round_trip_m(where, np.arange(10)[None])[0])


def test_the_search_never_ends_above_its_beginning_and_is_a_seating() -> None:
    where, first = places(15), np.random.default_rng(1).permutation(15)
    order, length = exchange_seats(lambda orders: round_trip_m(where, orders), first, trials=300)
    assert sorted(order.tolist()) == list(range(15))
    assert length <= round_trip_m(where, first[None])[0]
    again, _ = exchange_seats(lambda orders: round_trip_m(where, orders), first, trials=300)
    np.testing.assert_array_equal(order, again)


def test_more_nodes_than_trials_for_a_pass_still_gain() -> None:
    where, first = places(90), np.arange(90)
    _, length = exchange_seats(lambda orders: round_trip_m(where, orders), first, trials=4000, starts=1)
    assert length < 0.9 * round_trip_m(where, first[None])[0]


def test_one_seat_and_none_are_seated() -> None:
    assert exchange_seats(lambda orders: np.zeros(len(orders)), [0])[0].tolist() == [0]
    assert curve_order(np.zeros((0, 2))).tolist() == []


def test_neighbours_on_the_curve_are_neighbours_on_a_grid() -> None:
    grid = np.array([[i, j] for i in range(8) for j in range(8)], float)
    steps = np.abs(np.diff(grid[curve_order(grid)], axis=0)).sum(axis=1)
    assert (steps == 1).all()


def test_the_curve_is_short_among_many_places() -> None:
    where = places(2000)
    hop_m = np.hypot(*np.diff(where[curve_order(where)], axis=0).T)
    assert hop_m.mean() < 1.2 * 500 / np.sqrt(2000)


@pytest.mark.parametrize("nodes", [40, 400])
def test_a_path_is_ordered_along_itself(nodes: int) -> None:
    mixed = np.random.default_rng(2).permutation(nodes)
    path = Topology.from_networkx(nx.path_graph(nodes))
    shuffled = Topology(nodes, mixed[path.receiver], mixed[path.sender])
    order = spectral_order(shuffled, np.ones(shuffled.links)).tolist()
    assert order in (mixed.tolist(), mixed[::-1].tolist())


def test_the_smoothest_vector_is_that_of_networkx() -> None:
    base = nearest(places(30), 4)
    expected = nx.fiedler_vector(base.to_networkx().to_undirected(), method="tracemin_lu", seed=1, tol=1e-10)
    found = smoothest_vector(base, np.ones(base.links))
    assert abs(float(found @ expected)) == pytest.approx(np.linalg.norm(expected), rel=1e-6)
