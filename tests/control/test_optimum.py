"""The weighted optimum: no other control has a smaller f, and a general solver finds none either."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from control.array_world import equal_control, observation, random_topology, random_world, with_silent
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from test_costs import ROUND, THREE
from test_min_max import rounds

from flower_edge.control.bridges import bridges
from flower_edge.control.controller import Control, Observation
from flower_edge.control.costs import link_costs, row_costs, self_costs
from flower_edge.control.min_max import band_seconds
from flower_edge.control.optimum import weighted_optimum
from flower_edge.topology.connectivity import connected
from flower_edge.topology.rows import spread, sum_rows
from flower_edge.topology.topology import Topology

Case = tuple[Topology, np.ndarray, Observation, np.ndarray]


def test_the_worked_example_comes_out_as_printed() -> None:
    best = weighted_optimum(THREE, np.full(3, 10e6), ROUND)
    printed = [6.4, 3.6, 5.247691321, 4.752308679, 3.7989898732, 6.2010101268]
    np.testing.assert_allclose(best.bandwidth_hz / 1e6, printed, atol=5e-10)
    np.testing.assert_allclose(row_costs(THREE, best, ROUND), [0.3109243697, 0.2859055245, 0.3528538903], atol=5e-11)


def slsqp_tau_s(topology: Topology, seen: Observation, budget_hz: np.ndarray, i: int, self_included: bool) -> float:
    """The same row by a solver that knows nothing of its structure: variables tau, W and b, costs as constraints."""
    row = topology.row(i)
    n = row.stop - row.start
    ready_s, need_s = seen.ready_s(topology)[row], band_seconds(topology, seen)[row] / budget_hz[i]
    own_s = seen.processing_s[i]

    def slack(x: np.ndarray) -> np.ndarray:
        # W (P + a / b) <= tau, multiplied by b so that it is smooth at b = 0.
        tau, weights, own, b = x[0], x[1 : n + 1], x[n + 1], x[n + 2 :]
        link_slack = tau * b - weights * (ready_s * b + need_s)
        return np.append(link_slack, tau - own * own_s) if self_included else link_slack

    held = 1.0 / (n + 1)
    x0 = np.concatenate([[50.0], np.full(n + 1, held), np.full(n, 1.0 / n)])
    found = minimize(
        lambda x: x[0],
        x0,
        jac=lambda x: np.eye(len(x))[0],
        method="SLSQP",
        bounds=[(0, None)] + [(0, 1)] * n + [(0, 1) if self_included else (held, held)] + [(0, 1)] * n,
        constraints=[
            {"type": "ineq", "fun": slack},
            {"type": "eq", "fun": lambda x: x[1 : n + 2].sum() - 1.0},
            {"type": "eq", "fun": lambda x: x[n + 2 :].sum() - 1.0},
        ],
        options={"ftol": 1e-13, "maxiter": 2000},
    )
    # 8: no descent left to the precision of its finite differences; the comparison says whether that is enough.
    assert found.status in (0, 8), found.message
    return float(found.fun)


@pytest.mark.parametrize("self_included", [True, False])
def test_slsqp_finds_the_same_optimum_on_random_instances(self_included: bool) -> None:
    for seed in range(6):
        rng = np.random.default_rng([seed, 1])
        topology = Topology.complete(int(rng.integers(2, 6)))
        seen = Observation(
            rng.uniform(0.2, 2.0, topology.nodes),
            10.0 ** rng.uniform(-1.0, 1.0, topology.links),
            np.full(topology.nodes, 2e6),
        )
        budget_hz = rng.uniform(5e6, 2e7, topology.nodes)
        best = weighted_optimum(topology, budget_hz, seen, self_included=self_included)
        tau = row_costs(topology, best, seen, self_included=self_included)
        for i in range(topology.nodes):
            assert slsqp_tau_s(topology, seen, budget_hz, i, self_included) == pytest.approx(tau[i], rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(rounds())
def test_all_links_wanted_cost_the_same_and_no_other_link_would_help(case: Case) -> None:
    topology, allowed, seen, budget_hz = case
    best = weighted_optimum(topology, budget_hz, seen, allowed)
    best.check(topology, budget_hz, tolerance=1e-12)
    assert not (best.in_use & ~allowed).any()
    assert ((best.bandwidth_hz > 0.0) == best.in_use).all()
    hears = sum_rows(allowed, topology.indptr) > 0
    np.testing.assert_allclose(
        sum_rows(best.bandwidth_hz, topology.indptr)[hears], budget_hz[hears], rtol=1e-12
    )  # the band is spent
    tau = spread(row_costs(topology, best, seen), topology.indptr)
    np.testing.assert_allclose(link_costs(topology, best, seen)[best.in_use], tau[best.in_use], rtol=1e-9)
    np.testing.assert_allclose(self_costs(best, seen)[hears], row_costs(topology, best, seen)[hears], rtol=1e-9)
    # d(1 / L)/dB is the same on every link in use, and no larger at B = 0 on those that are not.
    need, band = band_seconds(topology, seen), best.bandwidth_hz
    gain = need / (np.maximum(seen.ready_s(topology), 1e-9) * band + need) ** 2
    most = np.zeros(topology.nodes)
    np.maximum.at(most, topology.receiver[best.in_use], gain[best.in_use])
    level = spread(most, topology.indptr)
    assert (gain[best.in_use] >= level[best.in_use] * (1 - 1e-6)).all()
    assert (gain[allowed & ~best.in_use] <= level[allowed & ~best.in_use] * (1 + 1e-6)).all()


@settings(max_examples=40, deadline=None)
@given(rounds(), st.integers(0, 2**32 - 1))
def test_no_other_control_has_a_smaller_cost_in_any_row(case: Case, seed: int) -> None:
    topology, allowed, seen, budget_hz = case
    tau = row_costs(topology, weighted_optimum(topology, budget_hz, seen, allowed), seen)
    rng = np.random.default_rng(seed)
    weights, own = np.where(allowed, rng.exponential(size=topology.links), 0.0), rng.exponential(size=topology.nodes)
    total = sum_rows(weights, topology.indptr) + own
    band = np.where(allowed, rng.exponential(size=topology.links), 0.0)
    spent = sum_rows(band, topology.indptr)
    other = Control(
        weights / spread(total, topology.indptr),
        own / total,
        band * spread(budget_hz / np.where(spent > 0.0, spent, 1.0), topology.indptr),
    )
    assert (row_costs(topology, other, seen) >= tau * (1.0 - 1e-12)).all()


def test_rows_of_all_magnitudes_beside_each_other_do_not_disturb_each_other() -> None:
    # One row of each kind alone, then all of them in one network: the same to the last digits.
    rng = np.random.default_rng(4)
    parts = [Topology(6, np.zeros(5, int), np.arange(1, 6)) for _ in range(8)]
    scale = 10.0 ** np.arange(-8, 8, 2)
    alone, receiver, sender, efficiency = [], [], [], []
    for k, part in enumerate(parts):
        s = 10.0 ** rng.uniform(-1, 1, 5) * scale[k]
        seen = Observation(np.linspace(0.5, 1.5, 6), s, np.full(6, 2e6))
        alone.append(weighted_optimum(part, np.full(6, 2e7), seen))
        receiver += [6 * k] * 5
        sender += (6 * k + np.arange(1, 6)).tolist()
        efficiency.append(s)
    together = weighted_optimum(
        Topology(48, receiver, sender),
        np.full(48, 2e7),
        Observation(np.tile(np.linspace(0.5, 1.5, 6), 8), np.concatenate(efficiency), np.full(48, 2e6)),
    )
    np.testing.assert_allclose(together.weights, np.concatenate([one.weights for one in alone]), rtol=1e-13)
    np.testing.assert_allclose(together.bandwidth_hz, np.concatenate([one.bandwidth_hz for one in alone]), rtol=1e-13)


def test_links_that_carry_nothing_and_silent_nodes_are_left_out() -> None:
    dead = replace(ROUND, spectral_efficiency=np.array([0.0, 1.0, np.nan, 2.0, 0.0, 0.0]))
    best = weighted_optimum(THREE, np.full(3, 10e6), dead)
    np.testing.assert_array_equal(best.in_use, [False, True, False, True, False, False])
    assert best.self_weights[2] == 1.0
    silent = weighted_optimum(THREE, np.full(3, 10e6), with_silent(ROUND, [1]))
    assert not silent.in_use[[0, 5]].any()
    assert silent.self_weights[1] == 0.0  # nothing is known of its own P; its neighbours are
    everybody = weighted_optimum(THREE, np.full(3, 10e6), with_silent(ROUND, [0, 1, 2]))
    np.testing.assert_array_equal(everybody.self_weights, 1.0)


def test_a_node_without_neighbours_or_band_keeps_its_model() -> None:
    alone = weighted_optimum(Topology(1, [], []), np.array([1e6]), Observation(np.ones(1), np.zeros(0), np.ones(1)))
    np.testing.assert_array_equal(alone.self_weights, [1.0])
    mute = weighted_optimum(THREE, np.array([0.0, 10e6, 10e6]), ROUND)
    assert not mute.bandwidth_hz[:2].any()
    assert mute.self_weights[0] == 1.0


def test_own_weights_are_held_where_they_are_not_to_be_chosen() -> None:
    world = random_world(5, random_topology(5))
    seen = observation(world, 1)
    best = weighted_optimum(world.topology, world.budget_hz, seen, self_included=False)
    np.testing.assert_allclose(best.self_weights, 1.0 / (1.0 + world.topology.in_degree))
    best.check(world.topology, world.budget_hz, tolerance=1e-12)


def test_a_link_that_is_ready_at_once_is_no_division_by_zero() -> None:
    at_once = replace(ROUND, processing_s=np.array([0.0, 0.5, 1.5]))
    best = weighted_optimum(THREE, np.full(3, 10e6), at_once)
    best.check(THREE, np.full(3, 10e6), tolerance=1e-12)
    assert best.self_weights[0] > 0.999999  # node 0 need not wait for anybody


@settings(max_examples=30, deadline=None)
@given(rounds(), st.integers(0, 2**32 - 1))
def test_links_held_at_a_least_band_stay_and_cost_what_the_others_do(case: Case, seed: int) -> None:
    topology, _, seen, budget_hz = case
    rng = np.random.default_rng(seed)
    some = rng.random(topology.links) < 0.3
    least_hz = np.where(some, 0.9 / 30 * spread(budget_hz, topology.indptr), 0.0)
    best = weighted_optimum(topology, budget_hz, seen, at_least_hz=least_hz)
    best.check(topology, budget_hz, tolerance=1e-12)
    assert best.in_use[some].all()
    assert (best.bandwidth_hz >= least_hz * (1.0 - 1e-12)).all()
    tau = spread(row_costs(topology, best, seen), topology.indptr)
    np.testing.assert_allclose(link_costs(topology, best, seen)[best.in_use], tau[best.in_use], rtol=1e-9)
    free = weighted_optimum(topology, budget_hz, seen)
    assert (row_costs(topology, best, seen) >= row_costs(topology, free, seen) * (1.0 - 1e-12)).all()


def test_bridges_connect_whatever_can_be_connected_and_take_the_cheapest_link() -> None:
    for seed in range(20):
        rng = np.random.default_rng([seed, 2])
        topology = random_topology(seed, nodes=9, extra=20)
        used = rng.random(topology.links) < rng.uniform(0.0, 0.6)
        extra = bridges(topology, used, ~used, rng.random(topology.links))
        assert connected(topology, used | extra)
        assert not (extra & used).any()
        assert not bridges(topology, used | extra, ~used, rng.random(topology.links)).any()
    pair, nothing = Topology.complete(3), np.zeros(6, bool)
    cost = np.array([5.0, 1.0, 1.0, 5.0, 1.0, 5.0])  # 0 <- 2, 1 <- 0 and 2 <- 0 are cheap
    np.testing.assert_array_equal(bridges(pair, nothing, ~nothing, cost)[[1, 2, 4]], True)


def test_bridges_give_up_where_no_link_may_be_added() -> None:
    path = Topology(3, receiver=[1, 0], sender=[0, 1])
    assert not bridges(path, np.array([True, True]), np.array([False, False]), np.ones(2)).any()
    assert not bridges(Topology(0, [], []), np.zeros(0, bool), np.zeros(0, bool), np.zeros(0)).any()


def test_the_optimum_of_equal_links_is_the_equal_control() -> None:
    topology = Topology.complete(5)
    seen = Observation(np.full(5, 1e-3), np.full(20, 2.0), np.full(5, 2e6))
    best = weighted_optimum(topology, np.full(5, 1e7), seen, self_included=False)
    equal = equal_control(topology, np.full(5, 1e7))
    np.testing.assert_allclose(best.weights, equal.weights, rtol=1e-12)
    np.testing.assert_allclose(best.bandwidth_hz, equal.bandwidth_hz, rtol=1e-12)
