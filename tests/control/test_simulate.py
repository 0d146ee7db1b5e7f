"""A simulation shows every controller the same rounds, in the right order, and adds up what they cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from control.array_world import controls, observation, random_world
from laws.controller_laws import same

from flower_edge.control.baselines import DynamicOpt, Equal, NoComm, Static, equal_control
from flower_edge.control.controller import Control, Observation, Start
from flower_edge.control.costs import objective, round_time_s
from flower_edge.control.ogd import Ogd
from flower_edge.control.optimum import weighted_optimum
from flower_edge.control.simulate import first_look, observe, simulate
from flower_edge.errors import ConfigError

BITS = 61_706 * 32


@dataclass(frozen=True)
class Diary:
    """Keeps what it is shown, in its state."""

    clairvoyant: ClassVar[bool] = False

    def init(self, start: Start) -> tuple[Control, dict[str, Any]]:
        return start.control, {"seen": [], "control": start.control}

    def step(self, state: dict[str, Any], observation: Observation) -> tuple[Control, dict[str, Any]]:
        return state["control"], {**state, "seen": [*state["seen"], observation.processing_s]}


@dataclass(frozen=True)
class Oracle(Diary):
    clairvoyant: ClassVar[bool] = True


def test_a_controller_is_shown_each_round_after_it_and_a_clairvoyant_one_before_it() -> None:
    world = random_world(1)
    p = [world.processing_s(round) for round in range(1, 6)]
    np.testing.assert_array_equal(simulate(Diary(), world, 5).state["seen"], p[:4])
    np.testing.assert_array_equal(simulate(Oracle(), world, 5).state["seen"], p)


def test_the_trace_of_equal_is_what_its_control_costs_round_by_round() -> None:
    world = random_world(2)
    trace = simulate(Equal(), world, 10, sigma2=True)
    for t, control in enumerate(controls(Equal(), world, 10)):
        seen = observation(world, t + 1, BITS)
        assert trace.f_s[t] == objective(world.topology, control, seen)
        assert trace.true_s[t] == round_time_s(world.topology, control, seen)
        assert trace.floor_s[t] == seen.processing_s.max()
        best = weighted_optimum(world.topology, world.budget_hz, seen)
        assert trace.optimum_s[t] == objective(world.topology, best, seen)
    np.testing.assert_array_equal(trace.links, world.topology.links)
    np.testing.assert_allclose(trace.sigma2, 0.0, atol=1e-12)
    assert same(trace.control, control)


def test_regret_is_zero_for_the_optimum_and_for_nobody_else() -> None:
    world = random_world(3)
    assert simulate(DynamicOpt(), world, 20).regret_s == 0.0
    assert simulate(DynamicOpt(), world, 20).f_over_opt() == 1.0
    for controller in (Equal(), NoComm(), Ogd(), Static()):
        trace = simulate(controller, world, 20)
        assert trace.regret_s > 0.0
        assert trace.regret_s == pytest.approx((trace.f_s - trace.optimum_s).sum())


def test_nocomm_runs_at_the_floor_and_never_agrees() -> None:
    trace = simulate(NoComm(), random_world(4), 12, sigma2=True)
    np.testing.assert_array_equal(trace.true_s, trace.floor_s)
    assert trace.true_over_floor() == trace.true_over_floor(5) == 1.0
    np.testing.assert_array_equal(trace.sigma2, 1.0)
    np.testing.assert_array_equal(trace.links, 0)


def test_ratios_are_those_of_the_last_rounds() -> None:
    trace = simulate(Equal(), random_world(5), 30)
    assert trace.f_over_opt(7) == pytest.approx(trace.f_s[23:].mean() / trace.optimum_s[23:].mean())
    assert trace.true_over_floor() == pytest.approx(trace.true_s.mean() / trace.floor_s.mean())


def test_the_same_controller_in_the_same_world_leaves_the_same_trace() -> None:
    world = random_world(6)
    once, again = simulate(Ogd(), world, 15), simulate(Ogd(), world, 15)
    np.testing.assert_array_equal(once.f_s, again.f_s)
    assert same(once.control, again.control)
    assert once.sigma2.size == 0


def test_nothing_is_known_of_p_at_the_start_unless_it_is_given() -> None:
    world = random_world(7)
    look = first_look(world, BITS)
    assert look.processing_s is None
    np.testing.assert_array_equal(look.spectral_efficiency, world.spectral_efficiency(1))
    assert same(look.control, equal_control(world.topology, world.budget_hz))
    known = replace(look, processing_s=world.processing_s(1))
    blind, told = simulate(Static(), world, 1), simulate(Static(), world, 1, start=known)
    assert told.f_s[0] == pytest.approx(told.optimum_s[0])
    assert blind.f_s[0] > told.f_s[0]


def test_payloads_may_differ_by_node() -> None:
    world = random_world(8)
    bits = np.linspace(1e5, 1e6, world.topology.nodes)
    np.testing.assert_array_equal(first_look(world, bits).payload_bits, bits)
    np.testing.assert_array_equal(observe(world, 3, bits).payload_bits, bits)
    assert simulate(Equal(), world, 5, payload_bits=bits).f_s.sum() < simulate(Equal(), world, 5).f_s.sum()


def test_no_rounds_leave_an_empty_trace() -> None:
    trace = simulate(Equal(), random_world(1), 0)
    assert trace.f_s.size == trace.links.size == 0
    assert trace.regret_s == 0.0


def test_means_over_no_rounds_and_worlds_of_other_sizes_are_refused() -> None:
    world = random_world(1)
    with pytest.raises(ConfigError, match="last 50 of 0 rounds"):
        simulate(Equal(), world, 0).f_over_opt()
    with pytest.raises(ConfigError, match="last 0 of 2 rounds"):  # not all of them, as a slice from -0 would be
        simulate(Equal(), world, 2).true_over_floor(last=0)
    with pytest.raises(ConfigError, match="rounds = -1"):
        simulate(Equal(), world, -1)
    with pytest.raises(ConfigError, match="payload_bits has shape"):
        simulate(Equal(), world, 1, payload_bits=np.ones(5))


def test_a_world_in_which_nobody_answers_takes_no_time() -> None:
    world = random_world(1)
    silent = replace(world, processing=np.full(6, np.nan))
    trace = simulate(Equal(), silent, 3)
    assert not trace.true_s.any()
    assert not trace.floor_s.any()
