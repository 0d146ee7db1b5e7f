"""When rounds of gossip begin and end: a barrier, and what an event-by-event account says of rounds without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gossip import NODES, make_app, model

from flower_edge.clients import gossip_mod
from flower_edge.control import Control, Equal, Observation, OnePeerExponential
from flower_edge.control.baselines import equal_control
from flower_edge.control.costs import round_time_s
from flower_edge.runtime import LocalGrid, NodeState, VirtualClock
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.strategies import Gossip
from flower_edge.strategies.gossip.timing import Timing
from flower_edge.topology import Topology
from flower_edge.topology.set_ups import set_up
from flower_edge.wire import arrays_of, record_of


def drawn(rng: np.random.Generator, nodes: int) -> tuple[Topology, Control]:
    ends = [(i, j) for i in range(nodes) for j in range(nodes) if i != j and rng.random() < 0.6]
    topology = Topology(nodes, [i for i, _ in ends], [j for _, j in ends])
    return topology, equal_control(topology, np.full(nodes, 1e6))


def observed(rng: np.random.Generator, topology: Topology) -> Observation:
    processing_s = rng.uniform(0.5, 2.0, topology.nodes)
    processing_s[rng.random(topology.nodes) < 0.15] = np.nan
    return Observation(processing_s, rng.uniform(0.5, 4.0, topology.links), np.full(topology.nodes, 1e6))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_without_a_barrier_every_worker_goes_on_as_soon_as_it_may_and_no_sooner(seed: int, staleness: int) -> None:
    rng = np.random.default_rng(seed)
    topology, control = drawn(rng, 4)
    timing = Timing.begin(staleness, topology, 0.0)
    begins = dict.fromkeys(range(4), 0.0)
    arrived: dict[tuple[int, int], dict[int, float]] = {}  # (receiver, sender) -> round -> when
    for t in range(1, 7):
        seen = observed(rng, topology)
        transfer = seen.transfer_s(topology, control.bandwidth_hz)
        known = [begins[i] + seen.processing_s[i] for i in range(4) if not np.isnan(seen.processing_s[i])]
        last = max([*known, max(begins.values())])
        ready = {i: last if np.isnan(seen.processing_s[i]) else begins[i] + seen.processing_s[i] for i in range(4)}
        for k in range(topology.links):
            i, j = int(topology.receiver[k]), int(topology.sender[k])
            if not np.isnan(seen.processing_s[j]):
                arrived.setdefault((i, j), {})[t] = ready[j] + transfer[k]
        for i in range(4):
            begins[i] = ready[i]
            for (to, _), times in arrived.items():
                # Of the last `staleness` + 1 rounds, one packet must be there.
                young = [when for sent, when in times.items() if sent >= t - staleness]
                if to == i and t > staleness and young:
                    begins[i] = max(begins[i], min(young))
        timing = timing.after(topology, control, seen, t)
        np.testing.assert_allclose(timing.begins_s, [begins[i] for i in range(4)])
        newest = timing.newest(topology)
        for k in range(topology.links):
            i, j = int(topology.receiver[k]), int(topology.sender[k])
            there = [
                sent for sent, when in arrived.get((i, j), {}).items() if when <= begins[i] and sent >= t - staleness
            ]
            assert newest[k] == max(there, default=0)


def test_with_a_barrier_everybody_waits_for_the_slowest_link() -> None:
    rng = np.random.default_rng(3)
    topology, control = drawn(rng, 5)
    seen = observed(rng, topology)
    timing = Timing.begin(0, topology, 2.0).after(topology, control, seen, 1)
    assert timing.now_s == pytest.approx(2.0 + round_time_s(topology, control, seen))
    assert len(set(timing.begins_s.tolist())) == 1


def test_a_state_of_timing_goes_through_a_checkpoint() -> None:
    rng = np.random.default_rng(4)
    topology, control = drawn(rng, 4)
    timing = Timing.begin(2, topology, 0.0)
    for t in range(1, 5):
        timing = timing.after(topology, control, observed(rng, topology), t)
    again = Timing.from_state(2, timing.state_dict())
    np.testing.assert_array_equal(again.newest(topology), timing.newest(topology))
    np.testing.assert_array_equal(again.begins_s, timing.begins_s)


def test_tolerating_stale_packets_makes_rounds_shorter_and_still_brings_the_models_together() -> None:
    world = set_up("nlos-per-device", 0, nodes=NODES)
    times, ends = {}, {}
    for staleness in (0, 1, 3):
        with LocalGrid(make_app(), NODES) as grid:
            clock = RoundClock(grid)
            result = Gossip(Equal(), world=world, staleness=staleness).start(clock, model(), 12)
            times[staleness] = clock.now_s
            ends[staleness] = result.train_metrics_clientapp[12]["distance"]
    assert times[3] <= times[1] < times[0]
    assert all(np.isfinite(list(ends.values())))


def test_on_a_virtual_clock_a_worker_takes_as_long_as_its_device_and_links_come_on_top() -> None:
    with LocalGrid(make_app(), NODES) as grid:
        devices = [Device(fixed_s=1.0 + k) for k in range(NODES)]
        clock = VirtualClock(grid, devices, [Link()] * NODES)
        strategy = Gossip(Equal(), world=_Links(NODES), fraction_evaluate=0.0)
        strategy.start(clock, model(), 2)
        # the slowest device, then a transfer of 1 s over the quarter of a band
        assert clock.now_s == pytest.approx(2 * (5.0 + 1.0))


class _Links:
    """Links that take one second each; how long nodes take is for the clock to say."""

    def __init__(self, nodes: int) -> None:
        self.topology = Topology.complete(nodes)
        self.budget_hz = np.full(nodes, float(nodes - 1))

    def positions_m(self, round: int) -> None:
        return None

    def processing_s(self, round: int) -> np.ndarray:
        return np.full(self.topology.nodes, np.nan)

    def spectral_efficiency(self, round: int) -> np.ndarray:
        return np.full(self.topology.links, 800.0)

    def latency_s(self, round: int) -> np.ndarray:
        return np.zeros(self.topology.links)


# -- packets that are old --------------------------------------------------------------------------------------------


def drifting_app(drift: float, spread: float) -> ClientApp:
    """Everybody learns the same in each round; at first they are apart by their numbers."""
    app = ClientApp(mods=[gossip_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        config, arrays = message.content.config_records["config"], message.content.array_records["arrays"]
        moved = arrays_of(arrays)
        first = config["server-round"] == 1
        apart = spread * int(context.node_config["partition-id"]) if first else 0.0
        moved["weight"] = moved["weight"] + drift + apart
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": record_of(moved), "metrics": metrics}), reply_to=message)

    return app


def drifted(strategy: Gossip, rounds: int, drift: float, spread: float) -> tuple[np.ndarray, float]:
    """The mean weight in the end, and how far neighbours were apart."""
    with LocalGrid(drifting_app(drift, spread), NODES) as grid:
        result = strategy.start(RoundClock(grid), model(), rounds)
    return arrays_of(result.arrays)["weight"], float(result.train_metrics_clientapp[rounds]["distance"])  # type: ignore[arg-type]


@pytest.mark.parametrize("staleness", [1, 2, 4])
def test_what_everybody_learns_is_not_held_back_by_old_packets(staleness: int) -> None:
    world = set_up("nlos-per-device", 3, nodes=NODES)
    strategy = Gossip(Equal(), world=world, staleness=staleness, fraction_evaluate=0.0)
    moved, _ = drifted(strategy, 10, drift=1.0, spread=0.0)
    np.testing.assert_allclose(moved, arrays_of(model())["weight"] + 10.0, rtol=1e-12)


@pytest.mark.parametrize("controller", [Equal(), OnePeerExponential()])
@pytest.mark.parametrize("staleness", [1, 2, 4])
def test_models_come_together_however_old_packets_are(controller: Any, staleness: int) -> None:
    world = set_up("nlos-per-device", 3, nodes=NODES)
    strategy = Gossip(controller, world=world, staleness=staleness, fraction_evaluate=0.0)
    _, distance = drifted(strategy, 60, drift=0.0, spread=10.0)
    assert distance < 1e-2


@pytest.mark.parametrize(("staleness", "old"), [(0, []), (1, ["5"]), (3, ["3", "4", "5"])])
def test_a_worker_remembers_as_many_old_models_as_packets_may_be_old(staleness: int, old: list[str]) -> None:
    world = set_up("nlos-per-device", 3, nodes=NODES)
    with LocalGrid(make_app(), NODES) as grid:
        strategy = Gossip(Equal(), world=world, staleness=staleness, fraction_evaluate=0.0)
        strategy.start(RoundClock(grid), model(), 6)
        kept = NodeState(grid.context_of(1000), "gossip").load()
    assert isinstance(kept, dict)
    assert sorted(kept["past"]) == old
