"""What the server decides: steps, which links may go, which come back; and that all ways of signalling agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from control.array_world import ArrayWorld, controls, equal_control, observation, random_topology, random_world, start
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.controller_laws import strongly_connected, through_a_file

from flower_edge.control.controller import Control, Observation
from flower_edge.control.dcent import Dcent
from flower_edge.control.decision import Decision, Report, Signals, gather, gather_reports, row_topology
from flower_edge.control.probing import give_probes
from flower_edge.control.pruning import drop_links
from flower_edge.control.step_size import largest_valid_step, link_steps, one_step
from flower_edge.errors import ConfigError, TopologyError
from flower_edge.topology.connectivity import periodically_connected
from flower_edge.topology.mixing import spectral_gap
from flower_edge.topology.rows import sum_rows
from flower_edge.topology.topology import Topology

WAYS = [
    Dcent(),
    Dcent.literal(),
    Dcent.literal(step_cap=1.0),
    Dcent(steps="row", step_cap=0.3, prune_below=0.08, hand_over="min-max", probe_every=4),
    Dcent(steps="link", step_cap=0.3, prune_below=0.08, theta=0.5, probe_every=3),
    Dcent(steps="row", step_cap=0.5, prune_below=0.2, connect="within tau", tau=4, ties="shared"),
    Dcent.dolbie(step_cap=0.2, prune_below=0.03),
]


def same_to(left: Control, right: Control, digits: float = 1e-12) -> None:
    np.testing.assert_allclose(left.weights, right.weights, rtol=0, atol=digits)
    np.testing.assert_allclose(left.self_weights, right.self_weights, rtol=0, atol=digits)
    np.testing.assert_allclose(left.bandwidth_hz, right.bandwidth_hz, rtol=digits)


# -- three ways to signal ----------------------------------------------------------------------------------------------


class Node:
    """A node that knows its own row, its neighbours' delays and what it is told."""

    def __init__(self, controller: Dcent, world: ArrayWorld, i: int) -> None:
        self.controller, self.i, self.whole = controller, i, world.topology
        self.topology = row_topology(world.topology, i)
        begin = equal_control(world.topology, world.budget_hz)
        row, others = world.topology.row(i), np.zeros(self.topology.nodes - 1)
        self.control = Control(
            begin.weights[row], np.concatenate([begin.self_weights[i : i + 1], others]), begin.bandwidth_hz[row]
        )
        self.budget_hz = np.concatenate([world.budget_hz[i : i + 1], others])
        self.memory = controller.memory(self.topology)

    def report(self, seen: Observation) -> Report:
        row = self.whole.row(self.i)
        near = np.concatenate([[self.i], self.whole.sender[row]])
        mine = Observation(seen.processing_s[near], seen.spectral_efficiency[row], seen.payload_bits[near])
        self.kept, self.memory = self.controller.require(self.memory, self.topology, self.control, self.budget_hz, mine)
        return self.kept

    def told(self, plain: dict[str, Any]) -> None:
        decision = Decision.from_plain(plain)
        self.control = self.controller.apply(self.topology, self.control, self.budget_hz, self.kept, decision)


def gathered(nodes: list[Node]) -> Control:
    return Control(
        np.concatenate([node.control.weights for node in nodes]),
        np.array([node.control.self_weights[0] for node in nodes]),
        np.concatenate([node.control.bandwidth_hz for node in nodes]),
    )


@pytest.mark.parametrize("controller", WAYS, ids=repr)
def test_matrices_from_the_server_steps_from_the_server_and_small_signals_give_the_same_control(
    controller: Dcent,
) -> None:
    world = random_world(21, random_topology(21, nodes=7, extra=25))
    topology = world.topology
    told, signalled = ([Node(controller, world, i) for i in range(7)] for _ in range(2))
    begin = equal_control(topology, world.budget_hz)
    knowing = controller.begin(topology, begin.in_use, begin, world.budget_hz)
    ignorant = controller.begin(topology, begin.in_use)
    pruned, needs_delays = 0, controller.hand_over == "min-max"
    for round, alone in enumerate(controls(controller, world, 31), 1):
        same_to(gathered(signalled), alone)
        pruned += int((~alone.in_use).sum())
        seen = observation(world, round)
        # Requirement values up, steps down; the server's own matrices are what it could send instead.
        if not needs_delays:
            same_to(gathered(told), alone)
            same_to(controller.control_of(knowing), alone)
            reports = {node.i: Report.from_plain(through_a_file(node.report(seen).to_plain())) for node in told}
            whole = gather_reports(topology, controller.control_of(knowing), reports)
            decision, knowing = controller.decide(through_a_file(knowing), whole)
            for node in told:
                node.told(through_a_file(decision.for_row(topology, node.i).to_plain()))
        # alpha_max and requests up, no weights known.
        parts = {node.i: Signals.from_plain(through_a_file(node.report(seen).signals.to_plain())) for node in signalled}
        decision, ignorant = controller.decide_from_signals(through_a_file(ignorant), gather(topology, parts))
        for node in signalled:
            node.told(through_a_file(decision.for_row(topology, node.i).to_plain()))
        np.testing.assert_array_equal(ignorant["in_use"], gathered(signalled).in_use)
    if controller.prune_below or controller.step_cap == 1.0:
        assert pruned > 0


def test_a_row_that_sends_nothing_does_not_move() -> None:
    world = random_world(22)
    controller = Dcent(steps="row", step_cap=0.3)
    nodes = [Node(controller, world, i) for i in range(6)]
    begin = equal_control(world.topology, world.budget_hz)
    server = controller.begin(world.topology, begin.in_use, begin, world.budget_hz)
    reports = {node.i: node.report(observation(world, 1)) for node in nodes if node.i != 3}
    _, server = controller.decide(server, gather_reports(world.topology, begin, reports))
    after, row = controller.control_of(server), world.topology.row(3)
    np.testing.assert_array_equal(after.weights[row], begin.weights[row])
    assert (after.weights[world.topology.row(2)] != begin.weights[world.topology.row(2)]).any()


def test_signals_are_of_one_number_per_node_and_what_has_to_be_asked() -> None:
    world = random_world(23, nodes=30)
    controller = Dcent()
    node = Node(controller, world, 4)
    plain = node.report(observation(world, 1)).signals.to_plain()
    assert plain["alpha_max"].shape == (30,)
    assert np.isinf(plain["alpha_max"][1:]).all()
    assert len(plain["requests"]["link"]) == len(plain["probes"]) == 0


def test_a_server_without_weights_cannot_hold_a_spectral_gap() -> None:
    world = random_world(24)
    controller = Dcent(gap_min=0.3)
    server = controller.begin(world.topology, np.ones(30, bool))
    report = Node(controller, world, 0).report(observation(world, 1))
    with pytest.raises(ConfigError, match="gap_min"):
        controller.decide_from_signals(server, report.signals)
    with pytest.raises(ConfigError, match="knows no matrices"):
        controller.control_of(server)


def test_signals_of_one_row_are_not_taken_for_those_of_all() -> None:
    world = random_world(24, nodes=9)
    controller = Dcent()
    server = controller.begin(row_topology(world.topology, 0), np.ones(8, bool))
    signals = gather(world.topology, {})
    controller.decide_from_signals(server, signals)
    with pytest.raises(TopologyError, match="alpha_max of 3 nodes"):
        controller.decide_from_signals(server, replace(signals, alpha_max=np.ones(3)))


# -- prunes ------------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.integers(0, 10_000),
    st.integers(3, 9),
    st.integers(0, 30),
    st.sampled_from([0.03, 0.1, 0.3]),
    st.sampled_from(["each round", "within tau"]),
    st.sampled_from(["global", "row", "link"]),
)
def test_no_prune_ever_breaks_the_union_of_tau_rounds(
    seed: int, nodes: int, extra: int, below: float, connect: Any, steps: Any
) -> None:
    world = random_world(seed, random_topology(seed, nodes, extra))
    controller = Dcent(steps=steps, step_cap=0.5, prune_below=below, connect=connect, tau=3, smoothing=1.0)
    used = [control.in_use for control in controls(controller, world, 25)]
    assert periodically_connected(world.topology, used, 3 if connect == "within tau" else 1)


def test_links_that_may_sleep_are_woken_within_tau_rounds() -> None:
    # A ring: no link can go for good.
    world = random_world(31, random_topology(31, nodes=6, extra=0))
    options: dict[str, Any] = {"steps": "row", "step_cap": 0.5, "prune_below": 0.9}
    awake = [control.in_use for control in controls(Dcent(**options), world, 30)]
    asleep = [control.in_use for control in controls(Dcent(**options, connect="within tau", tau=5), world, 30)]
    assert np.all(awake)
    assert 0.1 < np.mean(asleep) < 0.6
    assert periodically_connected(world.topology, asleep, 5)


def test_a_refused_link_keeps_half_of_what_it_had() -> None:
    # Node 0 hears node 2 over the only link from there, and that is its straggler.
    topology = Topology(3, receiver=[0, 0, 1, 2], sender=[1, 2, 0, 0])
    slow = ArrayWorld(topology, np.full(3, 1e7), np.array([0.1, 0.1, 2.0]), np.full(4, 3.0))
    controller = Dcent(steps="row", step_cap=1.0, eta=1.0, self_entry="fixed")
    first, second = controls(controller, slow, 2)
    link = int(topology.find(0, 2))
    assert second.weights[link] == pytest.approx(first.weights[link] / 2, rel=1e-12)
    assert second.bandwidth_hz[link] > first.bandwidth_hz[link]
    second.check(topology, slow.budget_hz, tolerance=1e-12)


def test_a_dropped_links_weight_and_band_go_to_the_rest_of_its_row() -> None:
    world = random_world(32)
    topology = world.topology
    before = equal_control(topology, world.budget_hz)
    after = drop_links(topology, before, world.budget_hz, np.array([0, 7]))
    assert after.weights[0] == after.bandwidth_hz[0] == 0.0
    np.testing.assert_allclose(after.weights[1:5], 1 / 5, rtol=1e-14)
    np.testing.assert_allclose(after.bandwidth_hz[1:5], world.budget_hz[0] / 4, rtol=1e-14)
    after.check(topology, world.budget_hz, tolerance=1e-12)
    np.testing.assert_array_equal(after.weights[10:], before.weights[10:])


def test_min_max_hand_over_ends_a_rows_wait_no_later() -> None:
    world = random_world(33)
    options: dict[str, Any] = {"steps": "row", "step_cap": 0.3, "prune_below": 0.1, "smoothing": 1.0}
    ends = {}
    for how in ("proportional", "min-max"):
        for round, control in enumerate(controls(Dcent(**options, hand_over=how), world, 40), 1):
            if not control.in_use.all():
                seen = observation(world, round - 1)
                late = seen.ready_s(world.topology) + seen.transfer_s(world.topology, control.bandwidth_hz)
                ends[how] = round, max(late[control.in_use & (world.topology.receiver == _row(world, control))])
                break
    assert ends["min-max"][0] == ends["proportional"][0]
    assert ends["min-max"][1] <= ends["proportional"][1] * (1 + 1e-9)


def _row(world: ArrayWorld, control: Control) -> int:
    return int(world.topology.receiver[np.flatnonzero(~control.in_use)[0]])


def test_a_floor_for_the_gap_keeps_links_that_would_go() -> None:
    world = random_world(34, nodes=8)
    topology = world.topology
    options: dict[str, Any] = {"steps": "row", "step_cap": 0.02, "prune_below": 0.1}

    def last_gap(gap_min: float | None) -> tuple[float, int]:
        *_, last = controls(Dcent(**options, gap_min=gap_min), world, 12)
        return spectral_gap(topology, last.weights, last.self_weights), int(last.in_use.sum())

    (free, few), (held, more) = last_gap(None), last_gap(0.8)
    assert free < 0.65 < held
    assert few < more < topology.links


def test_links_that_carry_nothing_go_and_come_back_when_they_do() -> None:
    world = random_world(35)
    topology = world.topology
    link = int(topology.find(1, 4))

    def seen(round: int) -> Observation:
        shown = observation(world, round)
        gone = (np.arange(topology.links) == link) & (3 <= round < 8)
        return replace(shown, spectral_efficiency=np.where(gone, 0.0, shown.spectral_efficiency))

    used = [bool(control.in_use[link]) for control in controls(Dcent(), world, 15, seen=seen)]
    assert used == [True] * 3 + [False] * 5 + [True] * 7


def test_links_from_a_node_that_stays_silent_go_but_for_those_that_connect_it() -> None:
    world = random_world(36)
    topology = world.topology

    def seen(round: int) -> Observation:
        shown = observation(world, round)
        silent = (np.arange(6) == 2) & (round < 20)
        return replace(shown, processing_s=np.where(silent, np.nan, shown.processing_s))

    used = [
        control.in_use[topology.sender == 2].sum() for control in controls(Dcent(silent_after=4), world, 30, seen=seen)
    ]
    assert used[:4] == [5] * 4
    assert used[5:19] == [1] * 14
    assert used[-1] == 5


# -- probes ------------------------------------------------------------------------------------------------------------


def test_a_probe_gives_a_pruned_link_weight_and_band_and_it_may_earn_its_place() -> None:
    world = random_world(41, rounds=1)
    topology = world.topology
    link = int(topology.find(0, 3))
    without = drop_links(topology, equal_control(topology, world.budget_hz), world.budget_hz, np.array([link]))
    fast = ArrayWorld(
        topology,
        world.budget_hz,
        np.where(np.arange(6) == 3, 0.05, 1.0),
        np.where(np.arange(topology.links) == link, 30.0, 1.0),
    )
    begin = start(fast, control=without)
    never = list(controls(Dcent(step_cap=0.1), fast, 30, begin=begin))
    probed = list(controls(Dcent(step_cap=0.1, probe_every=5), fast, 30, begin=begin))
    assert all(control.weights[link] == 0.0 for control in never)
    assert [control.in_use[link] for control in probed] == [False] * 5 + [True] * 25
    assert probed[5].bandwidth_hz[link] == pytest.approx(0.1 * world.budget_hz[0])
    assert probed[-1].weights[link] > 1.5 * probed[5].weights[link]


def test_probes_go_to_the_best_link_first_and_then_round_all_of_them() -> None:
    world = random_world(42, nodes=5, rounds=1)
    topology = world.topology
    controller = Dcent(probe_every=1, prune_below=0.0)
    alone = Control(np.zeros(topology.links), np.ones(5), np.zeros(topology.links))
    memory, order = controller.memory(topology), []
    for round in range(1, 9):
        report, memory = controller.require(memory, topology, alone, world.budget_hz, observation(world, round))
        order.append(report.signals.probes[topology.receiver[report.signals.probes] == 0].tolist())
    best_first = np.argsort(-world.spectral_efficiency(1)[topology.row(0)]).tolist()
    assert [link for links in order for link in links] == best_first * 2


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0.01, 1.0))
def test_probes_keep_rows_and_budgets(seed: int, share: float) -> None:
    world = random_world(seed)
    rng = np.random.default_rng(seed)
    topology = world.topology
    before = equal_control(topology, world.budget_hz)
    fewer = drop_links(topology, before, world.budget_hz, np.flatnonzero(rng.random(30) < 0.8))
    after = give_probes(topology, fewer, world.budget_hz, np.flatnonzero(rng.random(30) < 0.4), share)
    after.check(topology, world.budget_hz, tolerance=1e-12)
    used_hz = sum_rows(after.bandwidth_hz, topology.indptr)
    assert (np.isclose(used_hz, world.budget_hz, rtol=1e-12) | (used_hz == 0)).all()


# -- steps -------------------------------------------------------------------------------------------------------------


def bridge() -> tuple[ArrayWorld, int]:
    """Two triangles; node 0 hears the other one over one link, from a slow node: its straggler, and needed."""
    ends = [
        (0, 1),
        (1, 0),
        (1, 2),
        (2, 1),
        (0, 2),
        (2, 0),
        (3, 4),
        (4, 3),
        (4, 5),
        (5, 4),
        (3, 5),
        (5, 3),
        (0, 3),
        (3, 0),
    ]
    topology = Topology(6, [i for i, _ in ends], [j for _, j in ends])
    slow = np.array([0.2, 0.2, 0.2, 1.9, 0.2, 0.2])
    return ArrayWorld(topology, np.full(6, 1e7), slow, np.full(14, 3.0)), int(topology.find(0, 3))


def test_a_step_forced_to_disconnect_is_re_determined_by_line_search() -> None:
    world, link = bridge()
    topology = world.topology
    searching = Dcent.literal(step_cap=1.0, side="receiver", self_entry="fixed")
    begin, state = searching.init(start(world))
    report, _ = searching.require(state["memory"], topology, begin, world.budget_hz, observation(world, 1))
    fatal = float(report.requirements.alpha_max[0])
    assert report.requirements.straggler[0] == link
    # The whole of node 0's straggler would go, and with it the only way from one triangle to the other.
    without = begin.in_use.copy()
    without[link] = False
    assert not strongly_connected(topology, without)

    decision, server = searching.decide(state["server"], report, candidate=1.0)
    after = searching.control_of(server)
    assert isinstance(decision.alpha, float)
    assert 0.0 < decision.alpha < fatal
    assert strongly_connected(topology, after.in_use)
    assert after.weights[link] > 0.0
    after.check(topology, world.budget_hz, tolerance=1e-12)
    # A step just below the one found to be fatal is valid; the search is exact in where links vanish.
    limit = float(report.requirements.alpha_max.min())
    assert decision.alpha == pytest.approx(0.9 * limit) if limit == fatal else decision.alpha < fatal

    refusing = replace(searching, failing="refuse")
    other, server = refusing.decide(refusing.init(start(world))[1]["server"], report, candidate=1.0)
    kept = refusing.control_of(server)
    assert isinstance(other.alpha, float)
    assert other.alpha >= decision.alpha
    assert strongly_connected(topology, kept.in_use)


def test_line_search_takes_the_candidate_where_nothing_fails() -> None:
    step, gone = largest_valid_step(0.3, np.array([0.1, 0.5]), lambda links: True)
    assert (step, gone.tolist()) == (0.3, [0])


@settings(max_examples=60)
@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8), st.integers(0, 8), st.floats(0.0, 1.2))
def test_line_search_ends_between_the_last_valid_place_and_the_first_invalid_one(
    places: list[float], most: int, candidate: float
) -> None:
    vanish_at = np.array(places)

    def valid(gone: np.ndarray) -> bool:
        return len(gone) <= most

    step, gone = largest_valid_step(candidate, vanish_at, valid)
    assert step <= candidate
    assert len(gone) <= most or not len(gone)
    assert set(gone.tolist()) == set(np.flatnonzero(vanish_at <= step).tolist()) or step == 0.0
    if (vanish_at <= candidate).sum() <= most:
        assert step == candidate


def test_one_step_for_all_is_that_of_the_worst_row_and_rows_do_not_wait_for_it() -> None:
    world = random_world(51, nodes=8)
    throttled = Dcent(step_cap=1.0)
    free = Dcent(step_cap=1.0, steps="row")
    _, state = throttled.init(start(world))
    report, _ = throttled.require(
        state["memory"], world.topology, throttled.control_of(state["server"]), world.budget_hz, observation(world, 1)
    )
    together, _ = throttled.decide(state["server"], report)
    apart, _ = free.decide(free.init(start(world))[1]["server"], report)
    assert together.alpha == one_step(report.signals.alpha_max, 0.9, 1.0)
    assert isinstance(apart.alpha, np.ndarray)
    assert (apart.alpha >= together.alpha).all()
    assert (apart.alpha > together.alpha).any()


def test_steps_per_link_never_take_more_than_the_straggler_can_give() -> None:
    world = random_world(52, nodes=8)
    controller = Dcent(steps="link", step_cap=1.0, eta=1.0, self_entry="full")
    for control in controls(controller, world, 50):
        control.check(world.topology, world.budget_hz, tolerance=1e-12)
    begin = equal_control(world.topology, world.budget_hz)
    report, _ = controller.require(
        controller.memory(world.topology), world.topology, begin, world.budget_hz, observation(world, 1)
    )
    alpha, own = link_steps(world.topology, begin, report.requirements, 0.5, 1.0)
    assert ((alpha >= 0) & (alpha <= 1)).all()
    lost = sum_rows(alpha * (report.requirements.weights_hat - begin.weights), world.topology.indptr)
    lost += own * (report.requirements.self_weights_hat - begin.self_weights)
    assert (lost <= 0.5 / 8 * (1 + 1e-12)).all()
    assert len(np.unique(alpha[world.topology.row(0)])) > 2


def test_dolbies_step_never_grows_and_is_never_too_long() -> None:
    world = random_world(53, nodes=8)
    controller = Dcent.dolbie(step_cap=1.0)
    control, state = controller.init(start(world))
    steps = []
    for round in range(1, 60):
        control, state = controller.step(state, observation(world, round))
        control.check(world.topology, world.budget_hz, tolerance=1e-12)
        steps.append(state["server"]["alpha"])
    assert (np.diff(steps) <= 0).all()
    assert 0 < steps[-1] < steps[0] < 1
