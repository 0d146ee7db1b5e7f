"""The variant with a single matrix: nodes divide their own band."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from control.array_world import ArrayWorld, controls, observation, random_world

from flower_edge.control.baselines import DynamicOpt, Equal
from flower_edge.control.dcent import Dcent
from flower_edge.control.min_max import min_max_bandwidth
from flower_edge.control.weights_only import WeightsOnly
from flower_edge.errors import ConfigError


def test_the_weights_are_the_inner_controllers_and_links_without_weight_get_no_band() -> None:
    world = random_world(61)
    told = list(controls(WeightsOnly(Equal(), divide="equal"), world, 5))
    for control, equal in zip(told, controls(Equal(), world, 5), strict=True):
        np.testing.assert_array_equal(control.weights, equal.weights)
        np.testing.assert_allclose(control.bandwidth_hz, equal.bandwidth_hz, rtol=1e-14)


def test_min_max_is_exact_for_what_was_last_seen() -> None:
    world = random_world(62)
    *_, last = controls(WeightsOnly(Equal()), world, 4)
    best_hz, _ = min_max_bandwidth(world.topology, last.in_use, world.budget_hz, observation(world, 3))
    np.testing.assert_allclose(last.bandwidth_hz, best_hz, rtol=1e-12)


def test_by_weight_a_heavier_link_has_more_band() -> None:
    world = random_world(63)
    *_, last = controls(WeightsOnly(Dcent(step_cap=0.2, steps="row"), divide="by weight"), world, 10)
    row = world.topology.row(0)
    ratio = last.bandwidth_hz[row] / last.weights[row]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)
    assert len(np.unique(last.weights[row])) > 2


def test_the_inner_controller_reckons_with_the_delays_that_were_really_measured() -> None:
    # With band by weight every cost is W P + D / (S k): it is late P, not little band, that makes a straggler.
    world = random_world(64, rounds=1)
    inner = Dcent(theta=1.0, smoothing=1.0, self_entry="fixed", steps="row", step_cap=0.5)
    seen: list[Any] = []

    class Spied(Dcent):
        def require(self, memory: Any, topology: Any, control: Any, budget_hz: Any, shown: Any) -> Any:
            seen.append(shown.transfer_s(topology, control.bandwidth_hz))
            return super().require(memory, topology, control, budget_hz, shown)

    spied = Spied(**vars(inner))
    told = list(controls(WeightsOnly(spied, divide="by weight"), world, 6))
    for control, transfer_s in zip(told[:-1], seen, strict=True):
        real_s = observation(world, 1).transfer_s(world.topology, control.bandwidth_hz)
        np.testing.assert_allclose(transfer_s, real_s, rtol=1e-12)


def test_a_clairvoyant_controller_is_refused() -> None:
    with pytest.raises(ConfigError, match="coming round"):
        WeightsOnly(DynamicOpt())


def test_pruned_links_speed_up_a_round_of_nodes_that_divide_their_own_band() -> None:
    world: ArrayWorld = random_world(65, nodes=8)

    def waits(controller: Any) -> float:
        *_, last = controls(controller, world, 80)
        late = observation(world, 80).ready_s(world.topology)
        late = late + observation(world, 80).transfer_s(world.topology, np.where(last.in_use, last.bandwidth_hz, 1.0))
        return float(late[last.in_use].max())

    assert waits(WeightsOnly(Dcent(step_cap=0.05, prune_below=0.1))) < 0.9 * waits(WeightsOnly(Equal()))
