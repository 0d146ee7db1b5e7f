"""What a gossiping group is defined as before its first round: who the workers are, and which rows they begin with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.clientapp import ClientApp
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_gossip import NODES, make_app, model, run

from flower_edge.clients import answer_availability
from flower_edge.control import Control, Observation, Start
from flower_edge.control.baselines import equal_control
from flower_edge.control.controller import State
from flower_edge.control.optimum import weighted_optimum
from flower_edge.errors import ConfigError, NotEnoughNodes, TopologyError
from flower_edge.runtime import Fault, LocalGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.strategies import Gossip, MostStable
from flower_edge.strategies.gossip.initial import initial_control
from flower_edge.topology import Topology
from flower_edge.topology.connectivity import connected
from flower_edge.topology.set_ups import set_up

# -- who ---------------------------------------------------------------------------------------------------------------


def failing(misses: list[int], probes: int = 4) -> LocalGrid:
    """Nodes 1000, 1001, ...: of the probes, each misses so many, the last ones."""
    script = [
        Fault(node, "raise", at=probe)
        for node, missed in enumerate(misses)
        for probe in range(probes - missed + 1, probes + 1)
    ]
    return LocalGrid(answer_availability(ClientApp()), len(misses), script=script)


def test_those_that_answered_most_reliably_are_the_workers_in_the_order_of_the_nodes() -> None:
    misses = [0, 3, 1, 0]
    for count, expected in [(1, [1000]), (2, [1000, 1003]), (3, [1000, 1002, 1003])]:
        with failing(misses) as grid:
            assert MostStable(count, probes=4)(grid, [1000, 1001, 1002, 1003]) == expected
    with failing(misses) as grid:
        assert MostStable(1, probes=4)(grid, [1003, 1002, 1001, 1000]) == [1003], "of equals, who comes first"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(1, 6), st.sampled_from([0.0, 0.5, 1.0]))
def test_nobody_who_was_left_out_answered_more_often_and_no_worker_less_than_was_asked_for(
    misses: list[int], count: int, least: float
) -> None:
    nodes = [1000 + k for k in range(len(misses))]
    answered = {node: 4 - missed for node, missed in zip(nodes, misses, strict=True)}
    good = [node for node in nodes if answered[node] >= max(1, 4 * least)]
    with failing(misses) as grid:
        if len(good) < count:
            with pytest.raises(NotEnoughNodes, match=rf"{len(good)} of {len(nodes)} nodes answered.*{count} workers"):
                MostStable(count, probes=4, least=least)(grid, nodes)
            return
        workers = MostStable(count, probes=4, least=least)(grid, nodes)
    assert len(workers) == count
    assert set(workers) <= set(good)
    rest = [answered[node] for node in nodes if node not in workers]
    assert min(answered[node] for node in workers) >= max((n for n in rest if n >= max(1, 4 * least)), default=0)


def test_probes_are_spread_over_time_and_none_is_waited_for_before_the_first() -> None:
    pauses: list[float] = []
    with failing([0, 0]) as grid:
        MostStable(2, probes=4, every_s=1.5, sleep=pauses.append)(grid, [1000, 1001])
    assert pauses == [1.5, 1.5, 1.5]


def test_a_group_is_made_of_the_stable_ones_only() -> None:
    strategy = Gossip(workers=MostStable(3, probes=2), fraction_evaluate=0.0)
    script = [Fault(1, "raise", at=2), Fault(4, "raise", at=1)]
    with LocalGrid(answer_availability(make_app()), NODES, script=script) as grid:
        result = strategy.start(RoundClock(grid), model(), 3)
    assert strategy.group is not None
    assert list(strategy.group.env.numbers) == [0, 2, 3]
    assert result.train_metrics_clientapp[3]["links"] == 6


@pytest.mark.parametrize(
    "options", [{"count": 0}, {"probes": 0}, {"least": 1.5}, {"timeout_s": 0.0}, {"every_s": -1.0}], ids=repr
)
def test_what_cannot_be_asked_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))}="):
        MostStable(**{"count": 2, **options})


# -- the rows to begin with ------------------------------------------------------------------------------------------


def start(topology: Topology, efficiency: np.ndarray, processing_s: np.ndarray | None = None) -> Start:
    nodes, band = topology.nodes, np.full(topology.nodes, 20e6)
    return Start(
        topology, equal_control(topology, band), band, np.full(nodes, 2e6), np.asarray(efficiency, float), processing_s
    )


def test_equal_rows_are_one_over_n_and_leave_out_links_that_carry_nothing() -> None:
    topology = Topology.complete(4)
    control = initial_control("equal", start(topology, np.ones(12))).control
    np.testing.assert_allclose(control.weights, 0.25)
    np.testing.assert_allclose(control.bandwidth_hz, 20e6 / 3)
    dead = np.ones(12)
    dead[[0, 5]] = 0.0
    narrowed = initial_control("equal", start(topology, dead)).control
    assert narrowed.in_use.tolist() == (dead > 0).tolist()


def test_static_rows_are_the_optimum_of_what_is_known() -> None:
    rng = np.random.default_rng(3)
    topology = Topology.complete(4)
    efficiency, expected_s = rng.uniform(1, 5, 12), rng.uniform(0.5, 2.0, 4)
    for known_s in (expected_s, None):
        begin = start(topology, efficiency, known_s)
        seen = Observation(np.ones(4) if known_s is None else known_s, efficiency, begin.payload_bits)
        best = weighted_optimum(topology, begin.budget_hz, seen)
        control = initial_control("static", begin).control
        np.testing.assert_array_equal(control.weights, best.weights)
        np.testing.assert_array_equal(control.bandwidth_hz, best.bandwidth_hz)


def drawn(begin: Start, seed: int) -> Control | None:
    """None where 200 draws of half the links connect no network: one that hangs by a few seldom stays in one part."""
    try:
        return initial_control("drawn", begin, seed=seed).control
    except TopologyError:
        return None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 7), st.floats(0.0, 0.3))
def test_drawn_rows_keep_table_one_and_use_no_link_that_carries_nothing(seed: int, nodes: int, dead: float) -> None:
    topology, rng = Topology.complete(nodes), np.random.default_rng(seed)
    efficiency = np.where(rng.random(topology.links) < dead, 0.0, 2.0)
    assume(connected(topology, efficiency > 0))
    begin = start(topology, efficiency)
    control = drawn(begin, seed)
    assume(control is not None)
    assert control is not None
    control.check(topology, begin.budget_hz)
    assert connected(topology, control.in_use)
    assert not (control.in_use & (efficiency <= 0.0)).any()
    again = drawn(begin, seed)
    assert again is not None
    np.testing.assert_array_equal(control.weights, again.weights)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: Control(0.9 * c.weights, c.self_weights, c.bandwidth_hz), "sum"),
        (lambda c: Control(c.weights, c.self_weights, 2.0 * c.bandwidth_hz), "its budget is"),
        (lambda c: Control(0.0 * c.weights, np.ones(4), 0.0 * c.bandwidth_hz), "do not connect"),
    ],
    ids=["weights", "band", "apart"],
)
def test_rows_of_ones_own_that_break_table_one_are_refused(change: Any, why: str) -> None:
    with pytest.raises(TopologyError, match=why):
        initial_control(lambda begin: change(begin.control), start(Topology.complete(4), np.ones(12)))


class Kept:
    """Leaves the rows as they were chosen to begin with."""

    clairvoyant = False

    def init(self, start: Start) -> tuple[Control, State]:
        self.control = start.control
        return start.control, {}

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        return self.control, state


@pytest.mark.parametrize("how", ["equal", "static", "drawn"])
def test_a_group_begins_with_the_rows_that_were_asked_for(how: Any) -> None:
    world = set_up("nlos", 4, nodes=NODES)
    strategy = Gossip(Kept(), world=world, initial=how, fraction_evaluate=0.0, seed=5)
    run(strategy, rounds=2)
    group = strategy.group
    assert group is not None
    expected = initial_control(how, group.start, seed=5).control
    np.testing.assert_array_equal(group.control.weights, expected.weights)
    np.testing.assert_array_equal(group.control.bandwidth_hz, expected.bandwidth_hz)
    assert np.array_equal(group.control.weights, equal_control(world.topology, world.budget_hz).weights) == (
        how == "equal"
    )
