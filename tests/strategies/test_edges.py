"""What an edge keeps, tells and refuses, and when waiting ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result
from toy import initial_model, same_model, toy_app

from flower_edge.clients import edge_app
from flower_edge.errors import ModelMismatch, NestingError, NotEnoughNodes, ResumeError, RoundFailed
from flower_edge.rounds import Round
from flower_edge.runtime.edge_messages import EDGE_RECORD, edge_order
from flower_edge.runtime.edge_rounds import EdgeRounds
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.narrowed_grid import Patience
from flower_edge.runtime.wrapped_grid import WrappedGrid
from flower_edge.store import RunFolder
from flower_edge.strategies import (
    CellTier,
    Hierarchical,
    Identity,
    Layer,
    Layered,
    LocalTier,
    Metered,
    blocks,
)

ONE: dict[str, Any] = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}


class First(Layer[None]):
    """Only the first `count` nodes, from a round on; remembers which rounds it was asked for."""

    def __init__(self, count: int, since: int = 1) -> None:
        self.count, self.since = count, since
        self.asked: list[str] = []

    def narrow(self, state: None, round: Round, grid: Grid, nodes: list[int]) -> tuple[list[int], None]:
        self.asked.append(str(round))
        return (nodes[: self.count] if round.cloud >= self.since else nodes), None


# -- waiting ends ----------------------------------------------------------------------------------------------------


def test_a_layer_inside_an_edge_narrows_with_the_round_it_is_about() -> None:
    layer = First(2)
    with LocalGrid(toy_app(), 4) as grid:
        Hierarchical(edge=lambda cell: Layered(FedAvg(), layer)).start(grid, initial_model(), num_rounds=2)
    cell = ", cell edge-0, "
    assert layer.asked == [f"round {n}.1{cell}{kind}" for n in (1, 2) for kind in ("train", "evaluate")]


def test_an_edge_whose_layers_narrow_it_below_its_minimum_is_skipped_and_nobody_waits() -> None:
    begun_s = time.monotonic()
    with LocalGrid(toy_app(), 4) as grid, pytest.raises(RoundFailed, match="1 of the 2 terminals its FedAvg needs"):
        Hierarchical(edge=lambda cell: Layered(FedAvg(), First(1, since=2))).start(
            grid, initial_model(), num_rounds=2, timeout=60
        )
    assert time.monotonic() - begun_s < 30


def test_evaluation_narrowed_below_its_minimum_ends_after_the_deadline_with_its_own_minimum() -> None:
    strategy = Layered(FedAvg(min_train_nodes=2, min_evaluate_nodes=4), First(2))
    with LocalGrid(toy_app(), 6) as grid, pytest.raises(NotEnoughNodes, match=r"has 2 nodes, .* needs 4 or more"):
        strategy.start(grid, initial_model(), num_rounds=1, timeout=0.5)


class Hidden(FedAvg):
    """Waits for five nodes, and shows it nowhere."""

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Grid) -> Any:
        while len(list(grid.get_node_ids())) < 5:
            time.sleep(0.05)
        return super().configure_train(server_round, arrays, config, grid)


@pytest.mark.parametrize("way", ["CellTier", "LocalTier"])
def test_a_minimum_that_nobody_could_know_is_ended_by_the_deadline_at_either_tier(way: str) -> None:
    if way == "CellTier":
        app, strategy, nodes = toy_app(), Hierarchical(edge=lambda cell: Hidden(**ONE)), 3
    else:
        config = [{"partition-id": i, "num-partitions": 3} for i in range(3)]
        app = edge_app(toy_app(), lambda cell: Describing(**ONE), lambda cell, context: config)
        strategy, nodes = Hierarchical(tier=LocalTier()), 1
    with LocalGrid(app, nodes) as grid, pytest.raises(RoundFailed, match=r"cell edge-0 has 3 nodes"):
        strategy.start(grid, initial_model(), num_rounds=1, timeout=0.4)


class Describing(Hidden):
    """`Hidden`, with a word about its state."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


def test_patience_ends_only_when_somebody_asks_again_and_again_and_sends_nothing() -> None:
    now_s = [0.0]
    patience = Patience(10.0, minimum=3, label="cell a", clock=lambda: now_s[0])
    patience.asked(2)
    now_s[0] = 11.0
    patience.asked(2)  # the second question; a strategy asks twice to sample once
    patience.reset()
    patience.asked(2)
    now_s[0] = 22.0
    patience.asked(2)
    with pytest.raises(NotEnoughNodes, match="cell a has 2 nodes"):
        patience.asked(2)


def test_without_a_narrowing_layer_layered_waits_as_flower_does() -> None:
    """The second node joins after the timeout; Flower alone would train, so the identity layer must."""

    class Late(WrappedGrid):
        begun_s = time.monotonic()

        def get_node_ids(self) -> Any:
            nodes = list(self.inner.get_node_ids())
            return nodes if time.monotonic() - self.begun_s > 1.5 else nodes[:1]

    with LocalGrid(toy_app(), 2) as grid:
        result = Layered(FedAvg(), Identity()).start(Late(grid), initial_model(), num_rounds=1, timeout=0.5)
    assert result.arrays


# -- what an edge keeps ----------------------------------------------------------------------------------------------


class Decay(FedAvg):
    """Flower's own idiom: the learning rate in the train config falls every round."""

    def __init__(self, seen: list[float], **options: Any) -> None:
        super().__init__(**options)
        self.seen = seen

    def configure_train(self, server_round: int, arrays: Any, config: ConfigRecord, grid: Grid) -> Any:
        config["lr"] = float(config["lr"]) * 0.5  # type: ignore[arg-type]
        self.seen.append(config["lr"])
        return super().configure_train(server_round, arrays, config, grid)


def test_what_an_inner_strategy_writes_into_its_config_stays_as_in_flowers_loop() -> None:
    flat: list[float] = []
    tiered: list[float] = []
    for strategy in (Decay(flat), Hierarchical(edge=lambda cell: Decay(tiered))):
        with LocalGrid(toy_app(), 3) as grid:
            strategy.start(grid, initial_model(), num_rounds=3, train_config=ConfigRecord({"lr": 1.0}))
    assert flat == tiered == [0.5, 0.25, 0.125]


def test_a_node_stays_in_its_block_when_another_goes() -> None:
    with LocalGrid(toy_app(), 6) as grid:
        before = blocks(3)(grid, Round(1))
        grid.disconnect(1000)
        after = blocks(3)(grid, Round(2))
    assert before == {"edge-0": [1000, 1001], "edge-1": [1002, 1003], "edge-2": [1004, 1005]}
    assert after == {**before, "edge-0": [1001]}


def test_an_edge_keeps_its_name_when_another_goes() -> None:
    tier = LocalTier()
    with LocalGrid(toy_app(), 3) as grid:
        before = dict(tier.cells(grid, Round(1)))
        grid.disconnect(1000)
        after = dict(tier.cells(grid, Round(2)))
    assert before == {"edge-0": 1000, "edge-1": 1001, "edge-2": 1002}
    assert after == {"edge-1": 1001, "edge-2": 1002}


def test_a_second_start_begins_anew_on_its_own_grid() -> None:
    hierarchy = Hierarchical(edge=lambda cell: FedAvg(), cells=blocks(2))
    models = []
    for _ in range(2):
        with LocalGrid(toy_app(), 4) as grid:
            models.append(hierarchy.start(grid, initial_model(), num_rounds=2).arrays)
            assert all(len(grid.context_of(node).state) for node in grid.get_node_ids())
    assert np.allclose(models[0]["weight"].numpy(), models[1]["weight"].numpy())


def breaking_app(server_round: int, partitions: set[int]) -> ClientApp:
    """The toy client; some partitions answer with another model in one round."""
    inner, app = toy_app(), ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = inner(message, context)
        now = message.content.config_records["config"]["server-round"]
        if now == server_round and context.node_config["partition-id"] in partitions:
            other = {"weight": Array(np.zeros(1, np.float32)), "bias": Array(np.zeros(1, np.float32))}
            reply.content["arrays"] = ArrayRecord(other)
        return reply

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return inner(message, context)

    return app


def test_a_failed_edge_round_keeps_the_rounds_before_it_and_counts_truly(tmp_path: Path) -> None:
    with (
        RunFolder.create("run", config={}, seed=1, root=tmp_path) as run,
        LocalGrid(breaking_app(2, {0}), 8) as grid,
    ):
        strategy = Hierarchical(edge=lambda cell: FedAvg(), cells=blocks(2), edge_rounds=2)
        strategy.start(grid, initial_model(), num_rounds=1, run=run)
    row = next(iter(run.rows("nodes"))).values
    assert (row["nodes_sampled"], row["messages"], row["messages_failed"]) == (8, 16, 4)
    cells = {row.cell: row.values for row in run.rows("train") if row.cell}
    assert (cells["edge-0"]["edge_rounds_done"], cells["edge-1"]["edge_rounds_done"]) == (1, 2)
    assert any("edge-0" in str(row.values["text"]) and "weight" in str(row.values["text"]) for row in run.rows("event"))


@pytest.mark.parametrize("seed", range(4))
def test_a_node_whose_array_would_broadcast_is_named_whatever_the_order(seed: int) -> None:
    import random

    random.seed(seed)
    with LocalGrid(breaking_app(1, {2}), 4) as grid, pytest.raises(ModelMismatch, match="node 1002"):
        Layered(FedAvg(fraction_evaluate=0.0)).start(grid, initial_model(), num_rounds=1)


def test_after_an_edge_failed_both_tiers_remember_the_same() -> None:
    def edge(cell: str) -> FedAvg:
        return FedAvg(**ONE)

    def members(cell: str, context: Context) -> list[dict[str, int]]:
        return [{"partition-id": i, "num-partitions": 4} for i in range(4) if i // 2 == int(cell[-1])]

    terminals = breaking_app(1, {0})
    with LocalGrid(terminals, 4) as grid:
        inside = Hierarchical(tier=CellTier(edge, blocks(2)), seed=1).start(grid, initial_model(), num_rounds=2)
    with LocalGrid(edge_app(terminals, edge, members), 2) as grid:
        apart = Hierarchical(tier=LocalTier(), seed=1).start(grid, initial_model(), num_rounds=2)
    assert same_model(inside.arrays, apart.arrays)


# -- what is refused, and when ---------------------------------------------------------------------------------------


class Mine(FedAvg):
    """Has a state that nobody knows."""


def test_an_inner_strategy_that_cannot_be_checkpointed_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with RunFolder.create("run", config={}, seed=1, root=tmp_path) as run, LocalGrid(toy_app(), 4) as grid:
        with pytest.raises(ResumeError, match="Mine does not say what its state is"):
            Hierarchical(edge=lambda cell: Mine()).start(grid, initial_model(), run=run)
        assert grid.state_dict()["pushed"] == 0
        assert Hierarchical(edge=lambda cell: Mine()).start(grid, initial_model(), num_rounds=1).arrays


def test_an_edge_app_says_why_it_cannot_keep_a_strategy_between_messages() -> None:
    app = edge_app(toy_app(), lambda cell: Mine(), lambda cell, context: [{"partition-id": 0, "num-partitions": 1}])
    with LocalGrid(app, 1) as grid, pytest.raises(RoundFailed, match="made anew for every message: Mine does not say"):
        Hierarchical(tier=LocalTier()).start(grid, initial_model(), num_rounds=1)


class OwnStart(FedAvg):
    def start(self, *args: Any, **options: Any) -> Result:
        raise AssertionError("an edge must not call this")


def test_an_inner_strategy_with_its_own_start_is_refused_instead_of_losing_it() -> None:
    with LocalGrid(toy_app(), 2) as grid, pytest.raises(NestingError, match="OwnStart brings its own start"):
        Hierarchical(edge=lambda cell: OwnStart()).start(grid, initial_model())


def test_a_narrowing_layer_around_a_hierarchy_of_cells_is_told_where_it_belongs() -> None:
    with LocalGrid(toy_app(), 4) as grid, pytest.raises(NestingError, match=r"lambda cell: Layered\(FedAvg\(\), First"):
        Layered(Hierarchical(edge=lambda cell: FedAvg()), First(2)).start(grid, initial_model())


def test_a_narrowing_layer_around_edges_that_are_nodes_narrows_them() -> None:
    def members(cell: str, context: Context) -> list[dict[str, int]]:
        return [{"partition-id": i, "num-partitions": 6} for i in range(6) if i // 2 == int(cell[-1])]

    app = edge_app(toy_app(), lambda cell: FedAvg(), members)
    with LocalGrid(app, 3) as grid:
        Layered(Hierarchical(tier=LocalTier()), First(2)).start(grid, initial_model(), num_rounds=1)
        asked = [len(grid.context_of(node).state) > 0 for node in grid.get_node_ids()]
    assert asked == [True, True, False]


# -- neutrality where strategies are unusual -------------------------------------------------------------------------


class Yielding(FedAvg):
    """Changes the one content its messages share while it hands them out."""

    def configure_train(self, server_round: int, arrays: Any, config: ConfigRecord, grid: Grid) -> Iterator[Message]:
        for number, message in enumerate(super().configure_train(server_round, arrays, config, grid)):
            config["number"] = number
            yield message


def test_messages_of_a_generator_arrive_as_they_were_when_they_were_made() -> None:
    seen: list[int] = []
    inner, app = toy_app(), ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        seen.append(int(message.content.config_records["config"]["number"]))  # type: ignore[arg-type]
        return inner(message, context)

    with LocalGrid(app, 4) as grid:
        Layered(Yielding(fraction_evaluate=0.0)).start(grid, initial_model(), num_rounds=1)
    assert sorted(seen) == [0, 1, 2, 3]


def test_a_run_that_a_layer_stopped_stays_stopped_when_it_is_resumed(tmp_path: Path) -> None:
    class Enough(Layer[None]):
        def stop(self, state: None, round: Round) -> str | None:
            return "enough" if round.cloud == 2 else None

    with RunFolder.create("run", config={}, seed=1, root=tmp_path) as run, LocalGrid(toy_app(), 3) as grid:
        first = Layered(FedAvg(), Enough()).start(grid, initial_model(), num_rounds=6, run=run)
        again = Layered(FedAvg(), Enough()).start(grid, initial_model(), num_rounds=6, run=run, resume=True)
    assert list(first.train_metrics_clientapp) == list(again.train_metrics_clientapp) == [1, 2]
    assert same_model(first.arrays, again.arrays)


def test_a_model_of_another_shape_cannot_be_resumed(tmp_path: Path) -> None:
    wider = ArrayRecord({"weight": Array(np.zeros(9, np.float32)), "bias": Array(np.zeros(1, np.float32))})
    with RunFolder.create("run", config={}, seed=1, root=tmp_path) as run, LocalGrid(toy_app(), 3) as grid:
        Layered(FedAvg()).start(grid, initial_model(), num_rounds=1, run=run)
        with pytest.raises(ResumeError, match=r"'weight' has shape \(6,\), expected \(9,\)"):
            Layered(FedAvg()).start(grid, wider, num_rounds=2, run=run, resume=True)


def test_silence_is_counted_as_failed() -> None:
    from flower_edge.runtime.faults import Fault
    from flower_edge.strategies.layered import LayeredGrid

    with LocalGrid(toy_app(), 4, script=[Fault(node=1, kind="silent")]) as grid:
        layered = LayeredGrid(grid, [Metered()])
        FedAvg(fraction_evaluate=0.0).start(layered, initial_model(), num_rounds=1, timeout=1)
    assert layered.metrics()["failed_messages"] == 1


def test_traffic_of_cells_is_counted_once_and_not_for_a_skipped_cell(tmp_path: Path) -> None:
    from flower_edge.monitoring.rounds import cells_of, rounds_of

    def cells(grid: Grid, round: Round) -> dict[str, list[int]]:
        return {"a": [1000, 1001, 1002], "b": [1003, 1004] if round.cloud == 1 else [1003]}

    strategy = Hierarchical(edge=lambda cell: Layered(FedAvg(), Metered()), cells=cells, edge_rounds=2)
    with RunFolder.create("run", config={}, seed=1, root=tmp_path) as run, LocalGrid(toy_app(), 5) as grid:
        strategy.start(grid, initial_model(), num_rounds=2, run=run)
        totals = {name: edge.layered.metrics() for name, (edge, _) in strategy.tier._edges.items()}  # type: ignore[attr-defined]
    shown = {line.cell: (line.up_bits, line.down_bits) for line in cells_of(run)}
    assert shown == {name: (t["total_up_bits"], t["total_down_bits"]) for name, t in totals.items()}
    up = [line.up_bits for line in rounds_of(run) if line.round]
    assert sum(value or 0 for value in up) == sum(t["total_up_bits"] for t in totals.values())


def test_an_evaluation_that_nobody_answered_is_told() -> None:
    inner, app = toy_app(), ClientApp()
    app.train()(inner)

    with LocalGrid(app, 2) as grid:
        edge = EdgeRounds("edge-0", FedAvg(), grid)
        order = edge_order("edge-0", 1, 1, 1, 10.0, None)
        content = RecordDict({"arrays": initial_model(), "config": ConfigRecord(), EDGE_RECORD: order})
        reply = edge.handle(Message(content, 1, "evaluate"))
    assert reply.content.config_records[EDGE_RECORD]["trouble"] == "none of its 2 terminals could evaluate"


def test_a_list_that_a_strategy_changes_in_place_stays_changed() -> None:
    class Appending(FedAvg):
        def configure_train(self, server_round: int, arrays: Any, config: ConfigRecord, grid: Grid) -> Any:
            config["hist"].append(server_round)  # type: ignore[union-attr, arg-type]
            seen.append(list(config["hist"]))  # type: ignore[arg-type]
            return super().configure_train(server_round, arrays, config, grid)

    seen: list[list[int]] = []
    with LocalGrid(toy_app(), 2) as grid:
        Hierarchical(edge=lambda cell: Appending()).start(
            grid, initial_model(), num_rounds=3, train_config=ConfigRecord({"hist": [0]})
        )
    assert seen == [[0, 1], [0, 1, 2], [0, 1, 2, 3]]


def test_a_grid_closed_with_work_waiting_can_be_used_again() -> None:
    inner, app = toy_app(), ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        time.sleep(0.15)
        return inner(message, context)

    def ask(grid: LocalGrid, timeout: float) -> int:
        content = RecordDict({"arrays": initial_model(), "config": ConfigRecord({"server-round": 1})})
        messages = [Message(content, node, "train") for node in grid.get_node_ids()]
        return len(list(grid.send_and_receive(messages, timeout=timeout)))

    grid = LocalGrid(app, 4, pool="threads", workers=1)
    with grid:
        assert ask(grid, 0.05) < 4
    with grid:
        assert ask(grid, 20.0) == 4


def test_somebody_who_pulls_waits_for_replies_and_not_for_nodes() -> None:
    from flower_edge.strategies.layered import LayeredGrid

    with LocalGrid(toy_app(), 3) as local:
        grid = LayeredGrid(local, [First(2)], timeout_s=0.05)
        for _ in range(5):
            list(grid.get_node_ids())
            grid.pull_messages(["nothing"])
            time.sleep(0.03)


def test_a_cell_is_called_by_a_text() -> None:
    from flower_edge.errors import ConfigError

    with LocalGrid(toy_app(), 2) as grid, pytest.raises(ConfigError, match="cell 0 is a int"):
        Hierarchical(edge=lambda cell: FedAvg(), cells=lambda g, r: {0: [1000, 1001]}).start(  # type: ignore[dict-item]
            grid, initial_model()
        )
