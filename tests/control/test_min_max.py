"""Exact min-max bandwidth: all models arrive together, and no split of the band is sooner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from control.array_world import observation, random_topology, random_world, with_silent
from hypothesis import given, settings
from hypothesis import strategies as st
from test_costs import ROUND, THREE  # the worked example

from flower_edge.control.controller import Observation
from flower_edge.control.min_max import band_seconds, min_max_bandwidth
from flower_edge.topology.rows import largest_in_rows, spread, sum_rows
from flower_edge.topology.topology import Topology

ALL = np.ones(6, bool)


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Topology, np.ndarray, Observation, np.ndarray]:
    """A directed network with some links in use, S and P over many magnitudes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nodes = draw(st.integers(2, 9))
    topology = random_topology(int(rng.integers(1000)), nodes, extra=draw(st.integers(0, 30)))
    decades = draw(st.floats(0.0, 4.0))
    seen = Observation(
        rng.uniform(0.0, 2.0, nodes) * 10.0 ** draw(st.integers(-3, 3)),
        10.0 ** rng.uniform(-decades, 1.0, topology.links),
        rng.uniform(1e5, 1e7, nodes),
        rng.uniform(0.0, 1.0, topology.links) if draw(st.booleans()) else np.zeros(0),
    )
    return topology, rng.random(topology.links) < draw(st.floats(0.2, 1.0)), seen, rng.uniform(1e6, 2e7, nodes)


def test_the_worked_example_comes_out_as_printed() -> None:
    bandwidth_hz, ends_s = min_max_bandwidth(THREE, ALL, np.full(3, 10e6), ROUND)
    np.testing.assert_allclose(ends_s, [1.7086308765, 1.6089454173, 1.231662479], atol=5e-11)
    np.testing.assert_allclose(bandwidth_hz[[0, 2, 4]] / 1e6, [0.413691235, 0.8210916542, 8.6332495807], atol=5e-10)


@settings(max_examples=60, deadline=None)
@given(rounds())
def test_all_models_of_a_row_arrive_together_and_the_band_is_spent(
    case: tuple[Topology, np.ndarray, Observation, np.ndarray],
) -> None:
    topology, in_use, seen, budget_hz = case
    bandwidth_hz, ends_s = min_max_bandwidth(topology, in_use, budget_hz, seen)
    hears = sum_rows(in_use, topology.indptr) > 0
    np.testing.assert_allclose(sum_rows(bandwidth_hz, topology.indptr), np.where(hears, budget_hz, 0.0), rtol=1e-12)
    assert ((bandwidth_hz > 0.0) == in_use).all()
    arrives_s = seen.ready_s(topology) + seen.transfer_s(topology, bandwidth_hz)
    np.testing.assert_allclose(arrives_s[in_use], spread(ends_s, topology.indptr)[in_use], rtol=1e-13)


@settings(max_examples=40, deadline=None)
@given(rounds(), st.integers(0, 2**32 - 1))
def test_no_other_split_of_the_band_ends_sooner(
    case: tuple[Topology, np.ndarray, Observation, np.ndarray], seed: int
) -> None:
    topology, in_use, seen, budget_hz = case
    bandwidth_hz, ends_s = min_max_bandwidth(topology, in_use, budget_hz, seen)
    rng = np.random.default_rng(seed)
    for size in (1e-6, 0.1, 1.0):
        other = np.where(in_use, bandwidth_hz * np.exp(size * rng.normal(size=topology.links)), 0.0)
        total = sum_rows(other, topology.indptr)
        other *= spread(budget_hz / np.where(total > 0.0, total, 1.0), topology.indptr)
        arrives_s = np.where(in_use, seen.ready_s(topology) + seen.transfer_s(topology, other), 0.0)
        assert (largest_in_rows(arrives_s, topology.indptr, empty=0.0) >= ends_s * (1.0 - 1e-13)).all()


def test_precision_does_not_suffer_from_transfers_that_are_short_beside_p() -> None:
    # 1e-9 s of transfer after 1000 s of computing: T - P cancels all digits but three unless it is avoided.
    seen = Observation(np.full(3, 1000.0), np.array([1.0, 3.0] * 3), np.full(3, 1e-2))
    bandwidth_hz, _ = min_max_bandwidth(THREE, ALL, np.full(3, 10e6), seen)
    np.testing.assert_allclose(bandwidth_hz, [7.5e6, 2.5e6] * 3, rtol=1e-14)


def test_a_row_of_nobody_has_no_band_and_nothing_to_wait_for() -> None:
    lonely = Topology(3, receiver=[0], sender=[2])
    seen = Observation(np.ones(3), np.array([2.0]), np.full(3, 2e6))
    bandwidth_hz, ends_s = min_max_bandwidth(lonely, np.array([True]), np.full(3, 1e6), seen)
    np.testing.assert_array_equal(bandwidth_hz, [1e6])
    np.testing.assert_array_equal(ends_s, [2.0, 0.0, 0.0])
    bandwidth_hz, ends_s = min_max_bandwidth(lonely, np.array([False]), np.full(3, 1e6), seen)
    assert not bandwidth_hz.any()
    assert not ends_s.any()


def test_links_that_carry_nothing_or_are_not_known_get_no_band() -> None:
    dead = replace(ROUND, spectral_efficiency=np.array([0.0, 1.0, 4.0, np.nan, 0.0, 0.0]))
    bandwidth_hz, ends_s = min_max_bandwidth(THREE, ALL, np.full(3, 10e6), dead)
    np.testing.assert_array_equal(bandwidth_hz, [0.0, 10e6, 10e6, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(ends_s, [1.7, 1.05, 0.0], rtol=1e-14)
    bandwidth_hz, _ = min_max_bandwidth(THREE, ALL, np.full(3, 10e6), with_silent(ROUND, [1]))
    np.testing.assert_array_equal(bandwidth_hz[[0, 5]], 0.0)


def test_a_node_without_band_hears_nobody() -> None:
    bandwidth_hz, ends_s = min_max_bandwidth(THREE, ALL, np.array([0.0, 10e6, 10e6]), ROUND)
    assert not bandwidth_hz[:2].any()
    assert ends_s[0] == 0.0
    assert ends_s[1] > 1.5


def test_every_unit_of_time_gives_the_same_split() -> None:
    world = random_world(2)
    seen, all_links = observation(world, 1), np.ones(world.topology.links, bool)
    once, _ = min_max_bandwidth(world.topology, all_links, world.budget_hz, seen)
    in_ms = replace(seen, processing_s=seen.processing_s * 1e3, payload_bits=seen.payload_bits * 1e3)
    again, _ = min_max_bandwidth(world.topology, all_links, world.budget_hz, in_ms)
    np.testing.assert_allclose(once, again, rtol=1e-12)
    assert (band_seconds(world.topology, in_ms) > band_seconds(world.topology, seen)).all()
