"""Baselines do what their names say, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from control.array_world import controls, equal_control, observation, random_topology, random_world
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.controller_laws import ControllerLaws, same
from scipy.optimize import minimize
from test_costs import EQUAL, ROUND, THREE

from flower_edge.control import baselines
from flower_edge.control.baselines import DynamicOpt, Equal, NoComm, Static
from flower_edge.control.controller import Control, Controller, Observation, Start
from flower_edge.control.costs import objective, row_costs
from flower_edge.control.ogd import Ogd, project_rows
from flower_edge.control.optimum import weighted_optimum
from flower_edge.errors import ConfigError, TopologyError
from flower_edge.topology.rows import spread, sum_rows
from flower_edge.topology.topology import Topology

BUDGET_HZ = np.full(3, 10e6)
START = Start(THREE, EQUAL, BUDGET_HZ, ROUND.payload_bits, ROUND.spectral_efficiency)


class TestEqual(ControllerLaws):
    def make(self) -> Controller:
        return Equal()


class TestNoComm(ControllerLaws):
    connects = False

    def make(self) -> Controller:
        return NoComm()


class TestStatic(ControllerLaws):
    # The optimum of f may leave a network in parts, and this one does not look.
    connects = False

    def make(self) -> Controller:
        return Static()


class TestDynamicOpt(ControllerLaws):
    connects = False

    def make(self) -> Controller:
        return DynamicOpt()


class TestOgdPerRow(ControllerLaws):
    def make(self) -> Controller:
        return Ogd("row", weight_step=0.02, band_step=1e-3)


class TestOgdGlobal(ControllerLaws):
    def make(self) -> Controller:
        return Ogd("global", weight_step=0.1, band_step=1e-4, weight_floor=1e-2)


# -- the simple ones -------------------------------------------------------------------------------------------------


def test_equal_on_a_complete_network_is_the_matrix_of_ones_over_n() -> None:
    control, _ = Equal().init(START)
    assert same(control, EQUAL)


def test_equal_agrees_with_the_definition_on_directed_networks() -> None:
    for seed in range(4):
        world = random_world(seed, random_topology(seed))
        mine = baselines.equal_control(world.topology, world.budget_hz)
        theirs = equal_control(world.topology, world.budget_hz)
        np.testing.assert_allclose(mine.weights, theirs.weights, rtol=1e-15)
        np.testing.assert_allclose(mine.self_weights, theirs.self_weights, rtol=1e-12)
        np.testing.assert_allclose(mine.bandwidth_hz, theirs.bandwidth_hz, rtol=1e-15)


def test_equal_leaves_out_a_link_while_it_carries_nothing_and_takes_it_back() -> None:
    _, state = Equal().init(START)
    dead = replace(ROUND, spectral_efficiency=np.array([0.0, 1.0, 4.0, 2.0, 1.0, 2.0]))
    without, state = Equal().step(state, dead)
    np.testing.assert_array_equal(without.weights[:2], [0.0, 0.5])
    np.testing.assert_array_equal(without.bandwidth_hz[:2], [0.0, 10e6])
    again, _ = Equal().step(state, ROUND)
    assert same(again, EQUAL)


def test_nocomm_sends_nothing() -> None:
    for control in controls(NoComm(), random_world(1), 3):
        assert not control.in_use.any()
        np.testing.assert_array_equal(control.self_weights, 1.0)


def test_a_static_control_is_the_one_given_in_every_round() -> None:
    world = random_world(2)
    given_one = equal_control(world.topology, world.budget_hz)
    assert all(same(control, given_one) for control in controls(Static(given_one), world, 5))


def test_a_static_control_that_cannot_be_carried_out_is_refused() -> None:
    wrong = Control(EQUAL.weights * 2.0, EQUAL.self_weights, EQUAL.bandwidth_hz)
    with pytest.raises(TopologyError, match="weights of node 0"):
        Static(wrong).init(START)


def test_the_static_optimum_is_that_of_what_is_expected_at_the_start() -> None:
    expected_s = ROUND.processing_s
    control, _ = Static().init(replace(START, processing_s=expected_s))
    assert same(control, weighted_optimum(THREE, BUDGET_HZ, ROUND))
    unknown, _ = Static().init(START)
    assert same(unknown, weighted_optimum(THREE, BUDGET_HZ, replace(ROUND, processing_s=np.ones(3))))


def test_nobody_does_better_than_the_controller_that_knows_the_round() -> None:
    for seed in range(3):
        world = random_world(seed)
        for other in (Equal(), Static(), Ogd()):
            pairs = zip(controls(DynamicOpt(), world, 8), controls(other, world, 8), strict=True)
            for round, (best, control) in enumerate(pairs, start=1):
                seen = observation(world, round)
                assert objective(world.topology, best, seen) <= objective(world.topology, control, seen) * (1 + 1e-12)


# -- online gradient descent -----------------------------------------------------------------------------------------


@st.composite
def rows_to_project(draw: st.DrawFn) -> tuple[Topology, np.ndarray, np.ndarray, np.ndarray, float]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    topology = random_topology(int(rng.integers(100)), nodes=draw(st.integers(2, 6)), extra=draw(st.integers(0, 12)))
    scale = 10.0 ** draw(st.integers(-3, 2))
    return (
        topology,
        rng.normal(0.3, scale, topology.links),
        rng.random(topology.links) < 0.8,
        rng.normal(0.3, scale, topology.nodes),
        draw(st.sampled_from([0.0, 1e-3, 0.05, 0.5])),
    )


@settings(max_examples=60, deadline=None)
@given(rows_to_project())
def test_projected_rows_sum_to_one_above_the_floor_and_stay_when_projected_again(
    case: tuple[Topology, np.ndarray, np.ndarray, np.ndarray, float],
) -> None:
    topology, values, allowed, own, floor = case
    rows, diagonal = project_rows(values, topology.indptr, allowed, own, floor=floor)
    np.testing.assert_allclose(sum_rows(rows, topology.indptr) + diagonal, 1.0, rtol=1e-13)
    low = np.minimum(floor, 1.0 / (sum_rows(allowed.astype(float), topology.indptr) + 1.0))
    assert (rows[allowed] >= spread(low, topology.indptr)[allowed] - 1e-12).all()
    assert not rows[~allowed].any()
    again, own_again = project_rows(rows, topology.indptr, allowed, diagonal, floor=floor)
    np.testing.assert_allclose(again, rows, atol=1e-12)
    np.testing.assert_allclose(own_again, diagonal, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(rows_to_project(), st.integers(0, 2**32 - 1))
def test_no_point_of_the_set_is_nearer_than_the_projection(
    case: tuple[Topology, np.ndarray, np.ndarray, np.ndarray, float], seed: int
) -> None:
    topology, values, allowed, own, floor = case
    rows, diagonal = project_rows(values, topology.indptr, allowed, own, floor=floor)
    # For a convex set: (v - p) . (q - p) <= 0 for the projection p of v and every q of it.
    rng = np.random.default_rng(seed)
    other, other_own = project_rows(
        rng.normal(0.2, 1.0, topology.links),
        topology.indptr,
        allowed,
        rng.normal(0.2, 1.0, topology.nodes),
        floor=floor,
    )
    product = sum_rows(np.where(allowed, (values - rows) * (other - rows), 0.0), topology.indptr)
    product += (own - diagonal) * (other_own - diagonal)
    assert (product <= 1e-9 * (1.0 + np.abs(values).max())).all()


def test_a_projection_is_what_a_general_solver_finds() -> None:
    values = np.array([0.9, -0.4, 0.35, 0.2])
    mine, _ = project_rows(values, np.array([0, 4]), np.ones(4, bool), floor=0.05)
    found = minimize(
        lambda x: ((x - values) ** 2).sum(),
        np.full(4, 0.25),
        bounds=[(0.05, 1)] * 4,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(mine, found.x, atol=1e-7)


def test_a_row_of_nobody_is_projected_to_nothing_or_to_itself() -> None:
    rows, diagonal = project_rows(np.zeros(0), np.array([0, 0]), np.zeros(0, bool))
    assert rows.shape == (0,)
    np.testing.assert_array_equal(diagonal, [0.0])
    _, diagonal = project_rows(np.zeros(0), np.array([0, 0]), np.zeros(0, bool), np.array([0.2]))
    np.testing.assert_array_equal(diagonal, [1.0])


@pytest.mark.parametrize("kind", ["row", "global"])
def test_the_subgradient_is_the_slope_of_what_it_descends(kind: str) -> None:
    world = random_world(7)
    topology, seen = world.topology, observation(world, 1)
    rng = np.random.default_rng(1)
    control = equal_control(topology, world.budget_hz)
    control = replace(control, weights=control.weights * rng.uniform(0.9, 1.1, topology.links))

    def value(weights: np.ndarray, own: np.ndarray, b: np.ndarray) -> float:
        now = Control(weights, own, b * spread(world.budget_hz, topology.indptr))
        costs = row_costs(topology, now, seen)
        return float(costs.sum() if kind == "row" else costs.max())

    ogd = Ogd(kind, weight_step=1.0, band_step=1.0)  # type: ignore[arg-type]
    along_w, along_own, along_b = ogd._subgradient(topology, control, world.budget_hz, seen)
    b = control.bandwidth_hz / spread(world.budget_hz, topology.indptr)
    h = 1e-7
    for k in range(topology.links):
        step = h * (np.arange(topology.links) == k)
        slope = (
            value(control.weights + step, control.self_weights, b) - value(control.weights, control.self_weights, b)
        ) / h
        assert slope == pytest.approx(along_w[k], rel=1e-4, abs=1e-6)
        slope = (
            value(control.weights, control.self_weights, b + step) - value(control.weights, control.self_weights, b)
        ) / h
        assert slope == pytest.approx(along_b[k], rel=1e-4, abs=1e-6)
    assert np.count_nonzero(along_w) + np.count_nonzero(along_own) == (topology.nodes if kind == "row" else 1)


def test_a_step_of_descent_on_the_worked_example() -> None:
    # Node 0 waits for node 2: W = 1/3 loses .003 * 1.9, which all three entries of the row make good.
    _, state = Ogd("global").init(START)
    after, _ = Ogd("global").step(state, ROUND)
    down = 3e-3 * 1.9
    np.testing.assert_allclose(after.weights[:2], [1 / 3 + down / 3, 1 / 3 - down * 2 / 3], rtol=1e-12)
    assert after.self_weights[0] == pytest.approx(1 / 3 + down / 3)
    # d f/db = -W C / b = -(1/3) .4 / .5; half of the step is taken back by the other link.
    up = 1e-5 * (1 / 3) * 0.4 / 0.5
    np.testing.assert_allclose(after.bandwidth_hz[:2], [5e6 - 5e6 * up, 5e6 + 5e6 * up], rtol=1e-12)
    np.testing.assert_allclose(after.weights[2:], 1 / 3, rtol=1e-15)


def test_descent_of_a_world_that_does_not_change_comes_near_its_optimum() -> None:
    world = random_world(3)
    fixed = replace(world, processing=world.processing[0], efficiency=world.efficiency[0])
    seen = observation(fixed, 1)
    best = objective(fixed.topology, weighted_optimum(fixed.topology, fixed.budget_hz, seen), seen)
    values = [
        objective(fixed.topology, control, seen)
        for control in controls(Ogd("row", weight_step=1e-3, band_step=3e-3), fixed, 2000)
    ]
    assert min(values) < 1.1 * best < values[0]


def test_options_that_make_no_sense_are_refused_by_name() -> None:
    for name, options in (
        ("subgradient", {"subgradient": "column"}),
        ("weight_step", {"weight_step": -1.0}),
        ("band_step", {"band_step": float("nan")}),
        ("weight_floor", {"weight_floor": 0.0}),
    ):
        with pytest.raises(ConfigError, match=name):
            Ogd(**options)  # type: ignore[arg-type]


def test_costs_of_a_link_that_went_silent_do_not_stop_descent() -> None:
    _, state = Ogd().init(START)
    dead = Observation(np.array([1.0, np.nan, 1.5]), np.array([4.0, 0.0, 4.0, 2.0, np.nan, 2.0]), np.full(3, 2e6))
    after, _ = Ogd().step(state, dead)
    after.check(THREE, BUDGET_HZ, tolerance=1e-12)
    np.testing.assert_array_equal(after.in_use, [True, False, True, True, True, True])
