"""What a control comes to in seconds, weighted and in truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from control.array_world import equal_control, observation, random_topology, random_world, with_silent

from flower_edge.control.controller import Control, Observation
from flower_edge.control.costs import latencies_s, link_costs, objective, round_time_s, row_costs, self_costs
from flower_edge.topology.topology import Topology

# The worked example: three nodes, links 0<-1, 0<-2, 1<-0, 1<-2, 2<-0, 2<-1.
THREE = Topology.complete(3)
ROUND = Observation(np.array([1.0, 0.5, 1.5]), np.array([4.0, 1.0, 4.0, 2.0, 1.0, 2.0]), np.full(3, 2e6))
EQUAL = Control(np.full(6, 1 / 3), np.full(3, 1 / 3), np.full(6, 5e6))


def test_latencies_of_the_worked_example_are_the_printed_ones() -> None:
    np.testing.assert_allclose(latencies_s(THREE, EQUAL, ROUND), [0.6, 1.9, 1.1, 1.7, 1.4, 0.7], rtol=1e-15)


def test_row_costs_of_the_worked_example_are_19_17_and_14_thirtieths() -> None:
    tau = row_costs(THREE, EQUAL, ROUND, self_included=False)
    np.testing.assert_allclose(tau, [19 / 30, 17 / 30, 14 / 30], rtol=1e-15)


def test_the_senders_side_counts_the_nodes_own_p_instead_of_its_neighbours() -> None:
    np.testing.assert_allclose(latencies_s(THREE, EQUAL, ROUND, "sender"), [1.1, 1.4, 0.6, 0.7, 1.9, 1.7], rtol=1e-15)


def test_on_one_link_of_equal_p_both_sides_agree() -> None:
    world = random_world(3)
    seen = replace(observation(world, 1), processing_s=np.full(world.topology.nodes, 1.2))
    control = equal_control(world.topology, world.budget_hz)
    np.testing.assert_array_equal(
        link_costs(world.topology, control, seen), link_costs(world.topology, control, seen, "sender")
    )


def test_a_link_without_weight_costs_nothing_and_holds_nobody_up() -> None:
    pruned = Control(np.array([0, 2, 1, 1, 1, 1]) / 3, np.full(3, 1 / 3), np.array([0, 1e7, 5e6, 5e6, 5e6, 5e6]))
    assert link_costs(THREE, pruned, ROUND)[0] == 0.0
    assert np.isinf(latencies_s(THREE, pruned, ROUND)[0])
    assert round_time_s(THREE, pruned, ROUND) == pytest.approx(1.7)  # 0 <- 2 took 1.9 s on half the band


def test_weight_without_band_costs_for_ever() -> None:
    mute = Control(EQUAL.weights, EQUAL.self_weights, np.array([0, 1e7, 5e6, 5e6, 5e6, 5e6]))
    assert objective(THREE, mute, ROUND) == np.inf
    assert round_time_s(THREE, mute, ROUND) == np.inf


def test_true_time_does_not_depend_on_weights_and_the_objective_does() -> None:
    light = Control(np.full(6, 0.01), np.full(3, 0.98), EQUAL.bandwidth_hz)
    assert round_time_s(THREE, light, ROUND) == round_time_s(THREE, EQUAL, ROUND) == pytest.approx(1.9)
    assert objective(THREE, light, ROUND) == pytest.approx(0.98 * 1.5)  # its own model, at the slowest node


def test_the_objective_is_the_largest_of_row_costs_and_own_costs() -> None:
    for seed in range(5):
        world = random_world(seed, random_topology(seed))
        seen, control = observation(world, 1), equal_control(world.topology, world.budget_hz)
        largest = max(link_costs(world.topology, control, seen).max(), self_costs(control, seen).max())
        assert objective(world.topology, control, seen) == largest


def test_a_silent_node_is_left_out_and_not_waited_for() -> None:
    silent = with_silent(ROUND, [2])
    assert np.isnan(link_costs(THREE, EQUAL, silent)[1])
    np.testing.assert_allclose(row_costs(THREE, EQUAL, silent), [1 / 3, 1.1 / 3, 1.4 / 3])
    assert round_time_s(THREE, EQUAL, silent) == pytest.approx(1.4)
    everybody = with_silent(ROUND, [0, 1, 2])
    assert objective(THREE, EQUAL, everybody) == round_time_s(THREE, EQUAL, everybody) == 0.0


def test_latency_that_is_not_transfer_counts_like_p_on_both_sides() -> None:
    delayed = replace(ROUND, latency_s=np.arange(6.0))
    for side in ("receiver", "sender"):
        more_s = latencies_s(THREE, EQUAL, delayed, side) - latencies_s(THREE, EQUAL, ROUND, side)
        np.testing.assert_allclose(more_s, np.arange(6.0))


def test_a_network_of_nobody_costs_nothing() -> None:
    nobody, nothing = Topology(0, [], []), Control(np.zeros(0), np.zeros(0), np.zeros(0))
    seen = Observation(np.zeros(0), np.zeros(0), np.zeros(0))
    assert objective(nobody, nothing, seen) == round_time_s(nobody, nothing, seen) == 0.0
