"""Eqs. 1 to 8 of [1]: the worked network of three nodes, laws over random rows, and what happens at the edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from control import networkx_round
from control.array_world import ArrayWorld, controls, equal_control, observation, random_topology, random_world, start
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.control.controller import Control, Observation
from flower_edge.control.dcent import Dcent
from flower_edge.control.link_memory import look_at_links, no_memory
from flower_edge.control.moves import Step, move
from flower_edge.control.requirements import Requirements, link_requirements
from flower_edge.errors import ConfigError, TopologyError
from flower_edge.topology.rows import spread, sum_rows
from flower_edge.topology.topology import Topology

# Links of the worked network, by receiver, then sender: 01, 02, 10, 12, 20, 21.
THREE = Topology.complete(3)
SEEN = Observation(np.array([1.0, 0.5, 1.5]), np.array([4.0, 1, 4, 2, 1, 2]), np.full(3, 2e6))
THIRDS = Control(np.full(6, 1 / 3), np.full(3, 1 / 3), np.full(6, 5e6))
BUDGET_HZ = np.full(3, 10e6)


def wanted(
    control: Control = THIRDS,
    seen: Observation = SEEN,
    topology: Topology = THREE,
    budget_hz: Any = BUDGET_HZ,
    side: Any = "receiver",
    **options: Any,
) -> Requirements:
    known, _ = look_at_links(no_memory(topology), topology, seen, side)
    return link_requirements(topology, control, budget_hz, known, seen.processing_s, **options)


def stepped(requirements: Requirements, alpha: float) -> Control:
    return move(THREE, THIRDS, BUDGET_HZ, requirements, Step.of(THREE, alpha, "global"))


# -- the worked network ------------------------------------------------------------------------------------------------


def test_stragglers_and_their_costs_are_those_of_the_worked_network() -> None:
    values = wanted()
    np.testing.assert_array_equal(values.straggler, [1, 3, 4])
    np.testing.assert_allclose(values.tau_s, [19 / 30, 17 / 30, 7 / 15], rtol=1e-14)
    assert (values.clipped, values.impossible) == (0, 0)


def test_least_bands_and_largest_weights_are_those_of_the_worked_network() -> None:
    values = wanted()
    others, stragglers = [0, 2, 5], [1, 3, 4]
    np.testing.assert_allclose(
        values.bandwidth_hat_hz[others] / 1e6, [0.3571428571, 0.7142857143, 1.1111111111], rtol=0, atol=5e-11
    )
    np.testing.assert_allclose(values.weights_hat[others], [1, 0.5151515152, 0.6666666667], rtol=0, atol=5e-11)
    np.testing.assert_array_equal(values.weights_hat[stragglers], THIRDS.weights[stragglers])
    np.testing.assert_array_equal(values.bandwidth_hat_hz[stragglers], THIRDS.bandwidth_hz[stragglers])
    np.testing.assert_allclose(values.alpha_max, [0.5, 1.8333333333, 1], rtol=0, atol=5e-11)


def test_eq_2_with_the_whole_budget_is_as_printed() -> None:
    values = wanted(cap="budget")
    np.testing.assert_allclose(values.weights_hat[[0, 2, 5]], [1, 0.5396825397, 0.7777777778], rtol=0, atol=5e-11)
    np.testing.assert_allclose(values.alpha_max, [0.5, 1.6153846154, 0.75], rtol=0, atol=5e-11)


def test_a_step_of_a_tenth_is_that_of_the_worked_network() -> None:
    after = stepped(wanted(), 0.1)
    weights = [0.4, 0.2666666667, 0.3515151515, 0.3151515152, 0.3, 0.3666666667]
    bands = [4.5357142857, 5.4642857143, 4.5714285714, 5.4285714286, 5.3888888889, 4.6111111111]
    np.testing.assert_allclose(after.weights, weights, rtol=0, atol=5e-11)
    np.testing.assert_allclose(after.bandwidth_hz / 1e6, bands, rtol=0, atol=5e-11)
    np.testing.assert_array_equal(after.self_weights, THIRDS.self_weights)


def test_half_of_the_slack_for_weight_and_half_for_band_is_that_of_the_worked_network() -> None:
    values = wanted(theta=0.5)
    np.testing.assert_allclose(
        values.weights_hat[[0, 2, 5]], [0.593171014, 0.414387707, 0.4714045208], rtol=0, atol=5e-10
    )
    np.testing.assert_allclose(
        values.bandwidth_hat_hz[[0, 2, 5]] / 1e6, [0.8807347333, 1.3606203639, 2.0410267036], rtol=0, atol=5e-11
    )


def test_the_whole_controller_takes_the_step_of_the_worked_network() -> None:
    world = ArrayWorld(THREE, BUDGET_HZ, SEEN.processing_s, SEEN.spectral_efficiency)
    controller = Dcent(step_cap=0.1, self_entry="fixed")
    _, after = controls(controller, world, 2, seen=lambda round: SEEN, begin=start(world, 2e6, THIRDS))
    np.testing.assert_array_equal(after.weights, stepped(wanted(), 0.1).weights)
    np.testing.assert_array_equal(after.bandwidth_hz, stepped(wanted(), 0.1).bandwidth_hz)


def test_on_the_senders_side_a_link_costs_the_rows_own_p() -> None:
    values = wanted(side="sender")
    # L = P[i] + C: node 0 waits 1 + .1 s for node 1 and 1 + .4 s for node 2.
    np.testing.assert_allclose(values.tau_s, [1.4 / 3, 0.7 / 3, 1.9 / 3], rtol=1e-14)


def test_theta_one_moves_weight_only_and_theta_nought_band_only() -> None:
    only_weight, only_band = wanted(theta=1.0), wanted(theta=0.0)
    np.testing.assert_allclose(only_weight.bandwidth_hat_hz[[2, 5]], THIRDS.bandwidth_hz[[2, 5]], rtol=1e-12)
    np.testing.assert_allclose(only_weight.weights_hat, wanted().weights_hat, rtol=1e-12)
    np.testing.assert_array_equal(only_band.weights_hat, THIRDS.weights)
    np.testing.assert_allclose(only_band.bandwidth_hat_hz, wanted().bandwidth_hat_hz, rtol=1e-12)


# -- laws --------------------------------------------------------------------------------------------------------------


@st.composite
def rows(draw: st.DrawFn) -> tuple[ArrayWorld, Control, Observation]:
    """Networks with unequal weights and bands, some links pruned, P and S over three decades."""
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng([seed, 7])
    nodes = draw(st.integers(2, 7))
    world = random_world(seed, random_topology(seed, nodes, draw(st.integers(0, 20))))
    topology = world.topology
    used = rng.random(topology.links) > draw(st.sampled_from([0.0, 0.3]))
    weights = rng.lognormal(0, 1, topology.links) * used
    own = rng.lognormal(0, 1, nodes)
    total = sum_rows(weights, topology.indptr) + own
    bands = rng.lognormal(0, 1, topology.links) * used
    per_hz = world.budget_hz / np.maximum(sum_rows(bands, topology.indptr), 1e-300)
    control = Control(weights / spread(total, topology.indptr), own / total, bands * spread(per_hz, topology.indptr))
    seen = replace(
        observation(world, 1),
        processing_s=rng.lognormal(0, 1.5, nodes),
        spectral_efficiency=rng.lognormal(0, 1.5, topology.links),
    )
    return world, control, seen


def costs(topology: Topology, control: Control, seen: Observation) -> np.ndarray:
    used = control.in_use
    out = np.zeros(topology.links)
    late = seen.processing_s[topology.sender] + seen.transfer_s(topology, np.where(used, control.bandwidth_hz, 1.0))
    out[used] = (control.weights * late)[used]
    return out


@settings(max_examples=150)
@given(rows(), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_with_a_split_slack_no_step_makes_another_link_the_straggler(case: Any, theta: float, alpha: float) -> None:
    world, control, seen = case
    topology = world.topology
    values = wanted(control, seen, topology, world.budget_hz, theta=theta)
    # The bare eqs. 7 and 8: for any step, also one that the straggler could not pay for.
    after = Control(
        control.weights + alpha * (values.weights_hat - control.weights),
        control.self_weights,
        control.bandwidth_hz - alpha * (control.bandwidth_hz - values.bandwidth_hat_hz),
    )
    tau = spread(values.tau_s, topology.indptr)
    assert (costs(topology, after, seen) <= tau * (1 + 1e-9)).all()


@settings(max_examples=100)
@given(rows(), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.sampled_from(["fixed", "full"]))
def test_with_a_split_slack_no_rows_largest_cost_ever_grows(case: Any, theta: float, alpha: float, own: Any) -> None:
    world, control, seen = case
    topology = world.topology
    values = wanted(control, seen, topology, world.budget_hz, theta=theta, self_entry=own)
    step = Step.of(topology, np.minimum(values.alpha_max, 1.0) * alpha, "row")
    after = move(topology, control, world.budget_hz, values, step)
    for before, now in zip(_largest(topology, control, seen, own), _largest(topology, after, seen, own), strict=True):
        assert now <= before * (1 + 1e-9)


def _largest(topology: Topology, control: Control, seen: Observation, own: str) -> list[float]:
    cost = costs(topology, control, seen)
    mine = control.self_weights * seen.processing_s * (own == "full")
    return [float(cost[topology.row(i)].max(initial=mine[i])) for i in range(topology.nodes)]


@settings(max_examples=100)
@given(
    rows(),
    st.sampled_from(["receiver", "sender"]),
    st.sampled_from([("current", None), ("budget", None), ("current", 0.4)]),
    st.sampled_from(["fixed", "free", "full"]),
    st.sampled_from(["first", "shared"]),
)
def test_hats_lie_between_what_is_and_what_can_be(case: Any, side: Any, kind: Any, own: Any, ties: Any) -> None:
    world, control, seen = case
    values = wanted(
        control, seen, world.topology, world.budget_hz, side, cap=kind[0], theta=kind[1], self_entry=own, ties=ties
    )
    assert ((values.bandwidth_hat_hz >= 0) & (values.bandwidth_hat_hz <= control.bandwidth_hz)).all()
    assert ((values.weights_hat >= control.weights) & (values.weights_hat <= 1)).all()
    assert (values.self_weights_hat >= control.self_weights).all()
    pruned = ~control.in_use
    assert (values.weights_hat[pruned] == 0).all()
    assert (values.bandwidth_hat_hz[pruned] == 0).all()
    assert values.impossible == 0
    # At its largest step a row pays with all its straggler has.
    step = Step.of(world.topology, np.minimum(values.alpha_max, 1.0), "row")
    move(world.topology, control, world.budget_hz, values, step).check(world.topology, world.budget_hz)


@settings(max_examples=40)
@given(rows())
def test_without_a_split_each_equation_alone_brings_a_link_to_the_stragglers_cost(case: Any) -> None:
    world, control, seen = case
    topology = world.topology
    values = wanted(control, seen, topology, world.budget_hz)
    tau = spread(values.tau_s, topology.indptr)[control.in_use]
    heavier = costs(topology, replace(control, weights=values.weights_hat), seen)[control.in_use]
    slower = costs(topology, replace(control, bandwidth_hz=values.bandwidth_hat_hz), seen)[control.in_use]
    capped = values.weights_hat[control.in_use] == 1.0
    np.testing.assert_allclose(heavier[~capped], tau[~capped], rtol=1e-9)
    np.testing.assert_allclose(slower, tau, rtol=1e-6)


def test_rows_sum_to_one_after_a_thousand_rounds() -> None:
    world = random_world(11, nodes=8, rounds=50)
    for controller in (Dcent(step_cap=0.2, steps="row"), Dcent.literal(), Dcent(steps="link", prune_below=0.02)):
        *_, last = controls(controller, world, 1000)
        assert np.abs(sum_rows(last.weights, world.topology.indptr) + last.self_weights - 1.0).max() <= 1e-12
        used_hz = sum_rows(last.bandwidth_hz, world.topology.indptr)
        np.testing.assert_allclose(used_hz, world.budget_hz, rtol=1e-12)


def test_with_a_split_slack_f_never_grows_while_p_and_s_stand_still() -> None:
    world = random_world(12, nodes=8, rounds=1)
    seen = observation(world, 1)

    def f(control: Control) -> float:
        return max(_largest(world.topology, control, seen, "full"))

    for steps in ("global", "row", "link"):
        controller = Dcent(theta=0.5, step_cap=0.5, steps=steps)
        values = np.array([f(control) for control in controls(controller, world, 200)])
        assert (np.diff(values) <= values[:-1] * 1e-9).all()
        assert values[-1] < 0.7 * values[0]


def test_the_literal_pair_makes_f_grow_at_times_even_then() -> None:
    world = random_world(12, nodes=8, rounds=1)
    seen = observation(world, 1)
    literal = Dcent.literal(step_cap=0.5, side="receiver")
    values = np.array([max(_largest(world.topology, c, seen, "full")) for c in controls(literal, world, 200)])
    assert (np.diff(values) > 0).any()


def test_a_round_is_the_same_written_link_by_link_over_networkx() -> None:
    world = random_world(13, random_topology(13, nodes=12, extra=60))
    topology = world.topology
    graph = networkx_round.graph_of(topology, equal_control(topology, world.budget_hz), world.budget_hz)
    ours = controls(Dcent(self_entry="fixed", smoothing=1.0), world, 41)
    next(ours)
    for round, control in enumerate(ours, 1):
        networkx_round.observe(graph, topology, observation(world, round))
        networkx_round.round_of_dcent(graph)
        theirs = networkx_round.control_of(graph, topology)
        np.testing.assert_allclose(control.weights, theirs.weights, rtol=0, atol=1e-12)
        np.testing.assert_allclose(control.bandwidth_hz, theirs.bandwidth_hz, rtol=1e-11)


# -- edges -------------------------------------------------------------------------------------------------------------


def test_a_denominator_of_nought_releases_nothing_and_is_counted() -> None:
    # Links so fast that what they add to P is lost in rounding: tau / W - P is 0, where it should be C.
    fast = replace(SEEN, processing_s=np.ones(3), spectral_efficiency=np.array([1e20, 2e20, 1e20, 2e20, 1e20, 2e20]))
    values = wanted(seen=fast)
    assert values.impossible == 3
    np.testing.assert_array_equal(values.bandwidth_hat_hz, THIRDS.bandwidth_hz)


def test_all_tied_is_a_fixed_point() -> None:
    same = Observation(np.ones(3), np.full(6, 2.0), np.full(3, 2e6))
    for ties in ("first", "shared"):
        values = wanted(seen=same, ties=ties)
        assert np.isinf(values.alpha_max).all() or (values.alpha_max > 1e9).all()
        after = stepped(values, 1.0)
        np.testing.assert_allclose(after.weights, THIRDS.weights, rtol=1e-14)
        np.testing.assert_allclose(after.bandwidth_hz, THIRDS.bandwidth_hz, rtol=1e-14)


def test_of_tied_stragglers_the_first_pays_or_all_alike() -> None:
    four = Topology.complete(4)
    seen = Observation(np.array([1.0, 0.2, 1.0, 1.0]), np.full(12, 2.0), np.full(4, 2e6))
    quarter = Control(np.full(12, 0.25), np.full(4, 0.25), np.full(12, 2e6))
    budget_hz = np.full(4, 6e6)
    first, shared = (wanted(quarter, seen, four, budget_hz, ties=ties) for ties in ("first", "shared"))
    one, both = (move(four, quarter, budget_hz, values, Step.of(four, 0.1, "global")) for values in (first, shared))
    row = four.row(0)  # nodes 1, 2, 3; the last two are equally late
    assert one.weights[row][1] < one.weights[row][2] == 0.25
    assert both.weights[row][1] == pytest.approx(both.weights[row][2], rel=1e-14)
    assert both.bandwidth_hz[row][1] == pytest.approx(both.bandwidth_hz[row][2], rel=1e-14)
    assert both.weights[row].sum() + 0.25 == pytest.approx(1.0, abs=1e-15)
    assert shared.alpha_max[0] == pytest.approx(2 * first.alpha_max[0])


def test_a_single_neighbour_keeps_the_whole_budget() -> None:
    pair = Topology.complete(2)
    half = Control(np.full(2, 0.5), np.full(2, 0.5), np.full(2, 1e6))
    seen = Observation(np.array([1.0, 3.0]), np.ones(2), np.full(2, 1e6))
    values = wanted(half, seen, pair, np.full(2, 1e6))
    assert np.isinf(values.alpha_max).all()
    full = wanted(half, seen, pair, np.full(2, 1e6), self_entry="full")
    # Node 0 waits 4 s for node 1 and 1 s for itself: it may count itself as much as 2 / 1 s, so all.
    assert full.self_weights_hat[0] == 1.0
    after = move(pair, half, np.full(2, 1e6), full, Step.of(pair, 0.5, "global"))
    np.testing.assert_array_equal(after.bandwidth_hz, [1e6, 1e6])
    np.testing.assert_allclose(after.weights[0] + after.self_weights[0], 1.0, atol=1e-15)
    assert after.self_weights[0] == 0.75


def test_a_node_that_is_its_own_straggler_gives_up_weight_and_its_links_keep_their_band() -> None:
    slow = replace(SEEN, processing_s=np.array([9.0, 0.5, 1.5]))
    values = wanted(seen=slow, self_entry="full")
    assert values.own_straggler is not None
    assert values.own_straggler.tolist() == [True, False, False]
    after = stepped(values, 0.1)
    assert after.self_weights[0] < 1 / 3
    assert (after.weights[:2] > 1 / 3).all()
    np.testing.assert_array_equal(after.bandwidth_hz[:2], THIRDS.bandwidth_hz[:2])
    after.check(THREE, BUDGET_HZ, tolerance=1e-12)


def test_a_free_self_entry_runs_away() -> None:
    world = random_world(14, nodes=8)
    last: dict[str, float] = {}
    for own in ("fixed", "free", "full"):
        *_, control = controls(Dcent(self_entry=own), world, 150)
        last[own] = float(control.self_weights.mean())
    assert last["fixed"] < last["full"] < last["free"]


def test_a_silent_node_is_no_straggler_and_does_not_move() -> None:
    world = random_world(15)
    topology = world.topology
    quiet = observation(world, 1)
    quiet = replace(quiet, processing_s=np.where(np.arange(6) == 2, np.nan, quiet.processing_s))
    controller = Dcent(steps="row", step_cap=0.3)
    first, second = controls(controller, world, 2, seen=lambda round: quiet)
    report, memory = controller.require(controller.memory(topology), topology, first, world.budget_hz, quiet)
    senders = topology.sender[report.requirements.straggler[report.requirements.straggler >= 0]]
    assert 2 not in senders
    from_it = topology.sender == 2
    np.testing.assert_array_equal(second.weights[from_it], first.weights[from_it])
    np.testing.assert_array_equal(second.weights[topology.row(2)], first.weights[topology.row(2)])
    assert (memory["silent"][from_it] == 1).all()
    assert (memory["silent"][~from_it] == 0).all()


def test_what_was_last_known_of_a_silent_node_stands() -> None:
    known, memory = look_at_links(no_memory(THREE), THREE, SEEN, "receiver")
    quiet = replace(SEEN, processing_s=np.array([1.0, np.nan, 1.5]), spectral_efficiency=np.full(6, np.nan))
    later, _ = look_at_links(memory, THREE, quiet, "receiver")
    np.testing.assert_array_equal(later.ready_s, known.ready_s)
    np.testing.assert_array_equal(later.need_hz_s, known.need_hz_s)
    assert later.heard is not None
    assert later.heard.tolist() == [False, True, False, False, True, False]


def test_delays_are_smoothed_towards_the_last_round() -> None:
    _, memory = look_at_links(no_memory(THREE), THREE, SEEN, "receiver", 0.25)
    twice = replace(SEEN, processing_s=2 * SEEN.processing_s)
    known, _ = look_at_links(memory, THREE, twice, "receiver", 0.25)
    np.testing.assert_allclose(known.ready_s, 1.25 * SEEN.processing_s[THREE.sender], rtol=1e-15)


def test_payloads_and_budgets_may_differ_by_node() -> None:
    uneven = replace(SEEN, payload_bits=np.array([1e6, 4e6, 2e6]))
    values = wanted(seen=uneven)
    # Node 0: .5 + 4e6 / (5e6 x 4) = .7 s for node 1, 1.5 + 2e6 / 5e6 = 1.9 s for node 2.
    assert values.tau_s[0] == pytest.approx(1.9 / 3)
    assert values.weights_hat[0] == pytest.approx(min(1.9 / 3 / 0.7, 1.0))


def test_a_step_that_takes_more_than_the_straggler_has_is_refused() -> None:
    with pytest.raises(TopologyError, match=r"node 0 .* largest step it can take is 0.5"):
        stepped(wanted(), 0.6)


def test_options_that_exclude_each_other_are_named() -> None:
    with pytest.raises(ConfigError, match="theta with cap"):
        Dcent(theta=0.5, cap="budget")
    with pytest.raises(ConfigError, match=r"theta = 1\.5.*eta = 0"):
        Dcent(theta=1.5, eta=0.0)
    with pytest.raises(ConfigError, match='steps="global"'):
        Dcent.dolbie(steps="row")
