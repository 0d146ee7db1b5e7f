"""Gossip through any mailbox, pool and way of signalling: the same models; a doubly stochastic W keeps the mean."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gossip import NODES, Drawn, make_app, model, run
from toy import initial_model, same_model, toy_app

from flower_edge.clients import gossip_mod
from flower_edge.control import Control, Dcent, Equal, Start
from flower_edge.control.controller import State
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.selection import Pipeline
from flower_edge.store import RunFolder
from flower_edge.strategies import Gossip, Layered, Selected
from flower_edge.topology.set_ups import set_up
from flower_edge.topology.sinkhorn import sinkhorn
from flower_edge.wire import arrays_of, record_of


def test_a_complete_graph_with_equal_weights_is_federated_averaging_in_single_precision() -> None:
    with LocalGrid(make_app(mods=()), NODES) as grid:
        flat = FedAvg(fraction_evaluate=0.0).start(grid, initial_model(np.float32), 5)
    with LocalGrid(make_app(), NODES) as grid:
        result = Gossip(Equal(), fraction_evaluate=0.0).start(RoundClock(grid), initial_model(np.float32), 5)
    for name, array in arrays_of(flat.arrays).items():
        np.testing.assert_allclose(arrays_of(result.arrays)[name], array, rtol=1e-6, atol=1e-6)


class Still:
    """Random weights, made doubly stochastic on the complete graph; they stay."""

    clairvoyant = False

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def init(self, start: Start) -> tuple[Control, State]:
        rng, topology = np.random.default_rng(self.seed), start.topology
        weights, own = sinkhorn(topology, rng.uniform(0.1, 1.0, topology.links), rng.uniform(0.1, 1.0, topology.nodes))
        self._control = Control(weights, own, start.control.bandwidth_hz)
        return self._control, {}

    def step(self, state: State, observation: Any) -> tuple[Control, State]:
        return self._control, state


def spread_out() -> ClientApp:
    """In the first round every node goes to a place of its own; afterwards training changes nothing."""
    app = ClientApp(mods=[gossip_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = arrays_of(message.content["arrays"])  # type: ignore[arg-type]
        if message.content["config"]["server-round"] == 1:  # type: ignore[index, call-overload]
            arrays["weight"] = arrays["weight"] + 10.0 * int(context.node_config["partition-id"])
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": record_of(arrays), "metrics": metrics}), reply_to=message)

    return app


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_any_doubly_stochastic_matrix_keeps_the_mean(seed: int, nodes: int) -> None:
    result, means = run(Gossip(Still(seed), fraction_evaluate=0.0), rounds=4, nodes=nodes, app=spread_out())
    for mean in means[1:]:
        np.testing.assert_allclose(mean, means[0], rtol=1e-11)
    assert result.train_metrics_clientapp[4]["distance"] < result.train_metrics_clientapp[2]["distance"]


@pytest.mark.parametrize("staleness", [0, 2])
def test_relay_and_shared_memory_give_the_same_bits(staleness: int) -> None:
    world = set_up("nlos-per-device", 3, nodes=NODES)
    found = {}
    for mailbox in ("relay", "shared-memory"):
        strategy = Gossip(Drawn(6), world=world, mailbox=mailbox, staleness=staleness)
        result, means = run(strategy, rounds=8)
        assert not any("missing_packets" in told for told in result.train_metrics_clientapp.values())
        found[mailbox] = means
    np.testing.assert_array_equal(found["relay"], found["shared-memory"])


@pytest.mark.parametrize(("pool", "mailbox"), [("threads", "relay"), ("processes", "shared-memory")])
def test_every_pool_gives_the_same_models(pool: Any, mailbox: Any) -> None:
    ends = []
    for kind, workers in (("sequential", 1), (pool, 2)):
        with LocalGrid(functools.partial(toy_app, [gossip_mod]), 3, pool=kind, workers=workers, seed=1) as grid:
            strategy = Gossip(Drawn(1), mailbox=mailbox, fraction_evaluate=0.0)
            ends.append(strategy.start(RoundClock(grid), initial_model(), 3).arrays)
    assert same_model(*ends)


def test_the_same_seed_twice_is_the_same_run_and_another_seed_is_not() -> None:
    world = set_up("nlos", 4, nodes=NODES)
    ends = [
        run(Gossip(Dcent(step_cap=0.1), world=world, initial="drawn", seed=seed), rounds=4)[1][-1] for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])


MODES = [
    (signalling, mailbox, staleness)
    for signalling in ("rows", "requirements", "scalars")
    for mailbox in ("relay", "shared-memory")
    for staleness in ((0, 2) if signalling == "rows" else (0,))
]


def stopped_and_resumed(tmp_path: Any, signalling: Any, mailbox: Any, staleness: int) -> None:
    """A run of 5 rounds that is stopped and resumed, early and late, ends as one that is not."""
    controller = Dcent(step_cap=0.3, prune_below=0.08, probe_every=2, smoothing=0.5)

    def strategy() -> Gossip:
        return Gossip(
            controller,
            world=set_up("nlos-per-device", 2, nodes=4),
            signalling=signalling,
            mailbox=mailbox,
            staleness=staleness,
            final="averaging",
            fraction_evaluate=0.0,
        )

    with LocalGrid(make_app(), 4) as grid:
        whole = strategy().start(RoundClock(grid), model(), 5)
    for stop in (1, 3):
        with RunFolder.create(f"stop-{stop}", config={}, seed=0, root=tmp_path) as folder:
            with LocalGrid(make_app(), 4) as grid:
                first = strategy()
                first.final = "server"
                first.start(RoundClock(grid), model(), stop, run=folder)
            with LocalGrid(make_app(), 4) as other:
                again = strategy().start(RoundClock(other), model(), 5, run=folder, resume=True)
        assert same_model(again.arrays, whole.arrays)
        assert again.train_metrics_clientapp.keys() == whole.train_metrics_clientapp.keys()
        for number, told in whole.train_metrics_clientapp.items():
            assert dict(again.train_metrics_clientapp[number]) == dict(told)


@pytest.mark.parametrize(("signalling", "mailbox", "staleness"), MODES[1::3])
def test_a_run_resumed_after_any_round_equals_the_uninterrupted_one(
    tmp_path: Any, signalling: Any, mailbox: Any, staleness: int
) -> None:
    stopped_and_resumed(tmp_path, signalling, mailbox, staleness)


@pytest.mark.full
@pytest.mark.parametrize(("signalling", "mailbox", "staleness"), MODES)
def test_so_it_does_in_every_mode(tmp_path: Any, signalling: Any, mailbox: Any, staleness: int) -> None:
    stopped_and_resumed(tmp_path, signalling, mailbox, staleness)


@pytest.mark.parametrize("workers", [3, 1], ids=["some", "none"])
def test_so_it_does_where_a_selection_takes_other_workers_in_every_round(tmp_path: Path, workers: int) -> None:
    """Of the checkpoint's workers some, or all, are not there in the round with which the run goes on."""

    def strategy() -> Layered:
        return Layered(Gossip(Equal(), fraction_evaluate=0.0), Selected(Pipeline(workers), seed=1))

    with LocalGrid(make_app(), NODES) as grid:
        whole = strategy().start(RoundClock(grid), model(), 4)
    for stop in (1, 2, 3):
        with RunFolder.create(f"stop-{stop}", config={}, seed=0, root=tmp_path) as folder:
            with LocalGrid(make_app(), NODES) as grid:
                strategy().start(RoundClock(grid), model(), stop, run=folder)
            with LocalGrid(make_app(), NODES) as other:
                again = strategy().start(RoundClock(other), model(), 4, run=folder, resume=True)
        assert same_model(again.arrays, whole.arrays)
