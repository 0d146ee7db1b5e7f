"""Gossip through real ClientApps: its laws, an oracle of thirty lines, and what happens when somebody is not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from toy import DIMENSION, initial_model

from flower_edge.clients import gossip_mod
from flower_edge.control import Control, Equal, Observation, Start
from flower_edge.control.controller import State
from flower_edge.errors import ConfigError, NestingError, ProtocolError, RoundFailed
from flower_edge.runtime import Fault, LocalGrid, SteppedGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.runtime.joined_grid import JoinedGrid
from flower_edge.store import RunFolder
from flower_edge.strategies import Gossip, Hierarchical, Layered, Metered, blocks
from flower_edge.topology import Topology
from flower_edge.topology.rows import sum_rows
from flower_edge.topology.set_ups import set_up
from flower_edge.wire import arrays_of

NODES = 5
Models = list[dict[str, np.ndarray]]


def pull(weight: np.ndarray, partition: int, server_round: int) -> np.ndarray:
    """Half of the way to where this node wants to be, and a little that differs from round to round."""
    goal = np.arange(DIMENSION) + 10.0 * partition
    return weight + 0.5 * (goal - weight) + 0.01 * server_round


def make_app(mods: Sequence[Any] = (gossip_mod,), examples: int | None = 10) -> ClientApp:
    """Nodes of one pull each; float64, so that an oracle can be held against them exactly."""
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        arrays = message.content["arrays"]
        server_round = int(message.content["config"]["server-round"])  # type: ignore[index, arg-type, call-overload]
        weight = arrays["weight"].numpy()  # type: ignore[union-attr, call-overload]
        out = {"weight": pull(weight, partition, server_round), "bias": arrays["bias"].numpy()}  # type: ignore[union-attr, call-overload]
        count = examples if examples is not None else 10 + partition
        metrics = MetricRecord({"num-examples": count, "loss": float(partition)})
        record = ArrayRecord({name: Array(array) for name, array in out.items()})
        return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        weight = message.content["arrays"]["weight"].numpy()  # type: ignore[union-attr, call-overload, index]
        metrics = MetricRecord({"num-examples": 1, "accuracy": float(weight.mean())})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def model() -> ArrayRecord:
    return initial_model(np.float64)


class Drawn:
    """Another random row-stochastic matrix each round, some links at rest: the hardest controller for an oracle."""

    clairvoyant = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def init(self, start: Start) -> tuple[Control, State]:
        state: State = {"round": 0, "nodes": start.topology.nodes}
        self._topology, self._budget_hz = start.topology, start.budget_hz
        return self._draw(0), state

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        return self._draw(state["round"] + 1), {**state, "round": state["round"] + 1}

    def _draw(self, round: int) -> Control:
        rng, topology = np.random.default_rng([self.seed, round]), self._topology
        weights = rng.random(topology.links) * (rng.random(topology.links) < 0.6)
        own = rng.random(topology.nodes) + 0.1
        total = sum_rows(weights, topology.indptr) + own
        count = np.maximum(sum_rows((weights > 0).astype(float), topology.indptr), 1.0)
        band = np.where(weights > 0, (self._budget_hz / count)[topology.receiver], 0.0)
        return Control(weights / total[topology.receiver], own / total, band)


def oracle(controller: Any, rounds: int, nodes: int = NODES) -> list[np.ndarray]:
    """Mean weight after each round, in one process: mix with the last round's W, train, repeat."""
    topology = Topology.complete(nodes)
    band = np.full(nodes, 20e6)
    start = Start(
        topology,
        Control(np.zeros(topology.links), np.ones(nodes), np.zeros(topology.links)),
        band,
        np.ones(nodes),
        np.ones(topology.links),
    )
    control, state = controller.init(start)
    models = [arrays_of(model())["weight"] for _ in range(nodes)]
    means = []
    for t in range(1, rounds + 1):
        if t > 1:
            W = topology.dense(control.weights, control.self_weights)
            models = [sum((W[i, j] * models[j] for j in range(nodes)), np.zeros(DIMENSION)) for i in range(nodes)]
            control, state = controller.step(state, None)
        models = [pull(x, i, t) for i, x in enumerate(models)]
        means.append(np.mean(models, axis=0))
    return means


def run(strategy: Any, rounds: int = 4, nodes: int = NODES, **kwargs: Any) -> tuple[Any, list[np.ndarray]]:
    """The result, and the mean weight after each round."""
    means: list[np.ndarray] = []

    def look(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        if number:
            means.append(arrays_of(arrays)["weight"])
        return None

    with LocalGrid(kwargs.pop("app", make_app()), nodes, **kwargs) as grid:
        result = strategy.start(RoundClock(grid), model(), rounds, evaluate_fn=look)
    return result, means


def test_a_complete_graph_with_equal_weights_is_federated_averaging() -> None:
    with LocalGrid(make_app(mods=()), NODES) as grid:
        flat = FedAvg(fraction_evaluate=0.0).start(grid, model(), 4)
    result, _ = run(Gossip(Equal()))
    for name, array in arrays_of(flat.arrays).items():
        np.testing.assert_allclose(arrays_of(result.arrays)[name], array, rtol=1e-6)


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
def test_any_sequence_of_weights_is_what_one_process_would_do(mailbox: Any) -> None:
    _, means = run(Gossip(Drawn(3), mailbox=mailbox), rounds=6)
    np.testing.assert_allclose(means, oracle(Drawn(3), 6), rtol=1e-12)


def test_a_worker_that_is_told_to_is_measured_in_virtual_time() -> None:
    world = set_up("nlos", 1, nodes=NODES)
    with LocalGrid(make_app(), NODES) as grid:
        clock = RoundClock(grid)
        result = Gossip(Equal(), world=world).start(clock, model(), 3)
        told = result.train_metrics_clientapp
        assert clock.now_s == pytest.approx(sum(told[n]["round_time_s"] for n in told))
    for number in told:
        assert told[number]["floor_s"] == pytest.approx(world.processing_s(number).max())
        assert told[number]["round_time_s"] >= told[number]["floor_s"]


# -- around a run ----------------------------------------------------------------------------------------------------


def test_a_cell_of_a_hierarchy_may_gossip() -> None:
    alone, _ = run(Gossip(Equal()))
    edges, _ = run(Hierarchical(edge=lambda cell: Gossip(Equal())))
    for name, array in arrays_of(alone.arrays).items():
        np.testing.assert_array_equal(arrays_of(edges.arrays)[name], array)


def test_two_gossiping_cells_are_merged_by_their_examples_and_begin_from_the_merge() -> None:
    app = make_app(examples=None)
    result, means = run(
        Hierarchical(edge=lambda cell: Gossip(Equal()), cells=blocks(2), edge_rounds=2), rounds=2, app=app
    )
    del result
    examples = [10 + k for k in range(NODES)]
    members = [[0, 1, 2], [3, 4]]
    centre, expected = arrays_of(model())["weight"], []
    for cloud in range(2):
        sums = np.zeros(DIMENSION)
        for cell in members:
            first = [pull(centre, k, 2 * cloud + 1) for k in cell]
            mixed = np.mean(first, axis=0)
            second = np.mean([pull(mixed, k, 2 * cloud + 2) for k in cell], axis=0)
            sums += second * sum(examples[k] for k in cell)
        centre = sums / sum(examples)
        expected.append(centre)
    np.testing.assert_allclose(means, expected, rtol=1e-12)


def test_layers_act_on_gossip_as_on_any_strategy_and_what_happened_is_recorded(tmp_path: Path) -> None:
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder, LocalGrid(make_app(), NODES) as grid:
        Layered(Gossip(Drawn()), Metered()).start(RoundClock(grid), model(), 3, run=folder)
    rows = RunFolder.open("latest", root=tmp_path).rows()
    assert [row.values["up_bits"] > 0 for row in rows if row.kind == "traffic"] == [True] * 3
    assert {"pruned", "revived"} <= {row.values["what"] for row in rows if row.kind == "event"}
    assert [row.values["links"] > 0 for row in rows if row.kind == "train"] == [True] * 3


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, mailbox: Any) -> None:
    world = set_up("nlos", 2, nodes=NODES)
    whole, means = run(Gossip(Drawn(5), world=world, mailbox=mailbox), rounds=6)
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        with LocalGrid(make_app(), NODES) as grid:
            Gossip(Drawn(5), world=world, mailbox=mailbox).start(RoundClock(grid), model(), 3, run=folder)
        with LocalGrid(make_app(), NODES) as other:
            clock = RoundClock(other)
            again = Gossip(Drawn(5), world=world, mailbox=mailbox).start(clock, model(), 6, run=folder, resume=True)
    np.testing.assert_array_equal(arrays_of(again.arrays)["weight"], means[-1])
    for number, found in whole.train_metrics_clientapp.items():
        assert dict(again.train_metrics_clientapp[number]) == dict(found)


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
def test_averaging_among_workers_ends_at_the_mean_of_their_models(mailbox: Any) -> None:
    plain, means = run(Gossip(Drawn(2)), rounds=3)
    del plain
    result, _ = run(Gossip(Drawn(2), final="averaging", averaged_to=1e-9, mailbox=mailbox), rounds=3)
    np.testing.assert_allclose(arrays_of(result.arrays)["weight"], means[-1], rtol=1e-8)


def test_a_run_ends_when_neighbours_models_are_close_enough() -> None:
    strategy = Gossip(Equal(), converged_below=900.0)
    result, _ = run(strategy, rounds=9)
    distances = [found.get("distance", np.inf) for found in result.train_metrics_clientapp.values()]
    assert len(distances) < 9
    assert distances[-1] < 900.0 <= min(distances[:-1])


def test_the_edge_server_may_be_a_worker_itself() -> None:
    everybody, means = run(Gossip(Drawn(4)), rounds=4)
    del everybody
    configs = [{"partition-id": k, "num-partitions": NODES} for k in range(NODES)]
    seen: list[np.ndarray] = []

    def look(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        seen.append(arrays_of(arrays)["weight"])
        return None

    with LocalGrid(make_app(), configs[:-1]) as others, LocalGrid(make_app(), configs[-1:], first_node_id=7) as own:
        grid = RoundClock(JoinedGrid(others, own))
        Gossip(Drawn(4)).start(grid, model(), 4, evaluate_fn=look)
    np.testing.assert_array_equal(seen[1:], means)


# -- who is not there ------------------------------------------------------------------------------------------------


def silent_oracle(rounds: int, nobody: dict[int, int], gone: bool) -> list[np.ndarray]:
    """As `oracle` with equal weights, where in round t worker nobody[t] does not take part."""
    models = [arrays_of(model())["weight"] for _ in range(NODES)]
    posted: dict[int, np.ndarray] = {}
    means = []
    for t in range(1, rounds + 1):
        mixed = list(models)
        for i in range(NODES):
            there = [j for j in posted if j != i]
            mixed[i] = models[i] * (1 - len(there) / NODES) + sum(
                (posted[j] / NODES for j in there), np.zeros(DIMENSION)
            )
        for i in range(NODES):
            if nobody.get(t) != i:
                models[i] = pull(models[i] if t == 1 else mixed[i], i, t)
        posted = {i: models[i] for i in range(NODES) if nobody.get(t) != i}
        means.append(np.mean(list(posted.values()), axis=0))
    return means


@pytest.mark.parametrize("kind", ["raise", "silent"])
def test_the_weight_of_a_neighbour_that_was_not_heard_stays_with_the_own_model(kind: Any) -> None:
    fault = Fault(node=1, kind=kind, at=2)
    _, means = run(Gossip(Equal(), fraction_evaluate=0.0), rounds=4, script=[fault])
    np.testing.assert_allclose(means, silent_oracle(4, {2: 1}, gone=False), rtol=1e-12)


def test_a_worker_that_lost_its_model_gets_the_mean() -> None:
    strategy, lost = Gossip(Equal(), fraction_evaluate=0.0), []

    def look(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        if number == 2:
            del grid.context_of(1003).state["flower-edge.state.gossip"]
        return None

    with LocalGrid(make_app(), NODES) as grid:
        result = strategy.start(RoundClock(grid), model(), 4, evaluate_fn=look)
    lost = [found for found in result.train_metrics_clientapp.values() if found["links"] > 0]
    assert len(lost) == 4
    assert np.isfinite(arrays_of(result.arrays)["weight"]).all()
    assert strategy.group is not None
    assert not strategy.group.fresh


def test_who_comes_later_begins_from_the_mean_and_who_stays_goes_on() -> None:
    configs = [{"partition-id": k, "num-partitions": NODES} for k in range(NODES)]
    strategy = Gossip(Equal(), fraction_evaluate=0.0)

    with LocalGrid(make_app(), configs[:-1]) as early, LocalGrid(make_app(), configs[-1:], first_node_id=7) as late:
        both = JoinedGrid(early, late)

        class Growing(RoundClock):
            everybody = False

            def get_node_ids(self) -> list[int]:
                return [node for node in super().get_node_ids() if self.everybody or node != 7]

        grid = Growing(both)
        seen: list[np.ndarray] = []

        def look(number: int, arrays: ArrayRecord) -> MetricRecord | None:
            seen.append(arrays_of(arrays)["weight"])
            grid.everybody = number >= 2
            return None

        strategy.start(grid, model(), 3, evaluate_fn=look)
    models = [pull(seen[0], k, 1) for k in range(4)]
    models = [pull(np.mean(models, axis=0), k, 2) for k in range(4)]
    np.testing.assert_allclose(seen[2], np.mean(models, axis=0), rtol=1e-12)
    after = [pull(x, k, 3) for k, x in enumerate([*models, np.mean(models, axis=0)])]
    np.testing.assert_allclose(seen[3], np.mean(after, axis=0), rtol=1e-12)


def test_a_worker_trains_on_the_data_set_it_was_handed() -> None:
    app = ClientApp(mods=[gossip_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        goal = message.content["data"]["goal"].numpy()  # type: ignore[union-attr, call-overload, index]
        arrays = message.content["arrays"]
        weight = arrays["weight"].numpy()  # type: ignore[union-attr, call-overload]
        record = ArrayRecord({"weight": Array(weight + 0.5 * (goal - weight)), "bias": arrays["bias"]})  # type: ignore[dict-item, call-overload]
        return Message(RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    def dataset(number: int) -> dict[str, np.ndarray]:
        return {"goal": np.full(DIMENSION, 10.0 * number)}

    result, _ = run(Gossip(Equal(), dataset=dataset, fraction_evaluate=0.0), rounds=12, app=app)
    np.testing.assert_allclose(arrays_of(result.arrays)["weight"], 20.0, atol=0.01)


def test_a_train_function_without_the_mod_is_refused_with_what_to_add() -> None:
    with pytest.raises((ProtocolError, RoundFailed), match="gossip_mod"):
        run(Gossip(Equal()), app=make_app(mods=()))


def test_slices_of_a_round_are_refused() -> None:
    with LocalGrid(make_app(), NODES) as grid, pytest.raises(NestingError, match="leave SteppedGrid out"):
        Gossip(Equal()).start(SteppedGrid(grid, 2), model(), 1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"signalling": "smoke"}, "signalling = 'smoke'"),
        ({"staleness": -1}, "staleness = -1"),
        ({"averaged_to": 2.0}, "averaged_to = 2.0"),
        ({"payload_bits": 0}, "payload_bits = 0"),
        ({"signalling": "requirements"}, "Equal"),
    ],
)
def test_an_argument_that_cannot_be_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Gossip(Equal(), **arguments)
