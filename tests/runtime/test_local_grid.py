"""LocalGrid is a Grid: order, memory, isolation, equal results in every pool."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from local_grid_apps import (
    ask,
    counting_app,
    drawing_app,
    numbers,
    overlap_app,
    raising_app,
    uneven_app,
    vandal_app,
)
from toy import initial_model, same_model, toy_app

from flower_edge.errors import ConfigError
from flower_edge.runtime.local_grid import LocalGrid

POOLS = ("sequential", "threads", "processes")


# -- it is a Grid ----------------------------------------------------------------------------------------------------


def test_every_public_method_of_flowers_grid_is_there_and_answers() -> None:
    public = {name for name in vars(Grid) if not name.startswith("_")}
    used = {
        "set_run",
        "run",
        "create_message",
        "get_node_ids",
        "get_nodes",
        "push_messages",
        "pull_messages",
        "send_and_receive",
    }
    assert public == used
    with LocalGrid(counting_app, 3, run_id=77) as grid:
        assert isinstance(grid, Grid)
        assert grid.run.run_id == 77
        nodes = list(grid.get_node_ids())
        assert [node.node_id for node in grid.get_nodes()] == nodes
        message = grid.create_message(RecordDict(), "query", nodes[1], "group-5", ttl=60.0)
        assert (message.metadata.dst_node_id, message.metadata.group_id) == (nodes[1], "group-5")
        assert message.metadata.ttl == pytest.approx(60.0)
        ids = list(grid.push_messages([message]))
        (reply,) = grid.pull_messages(ids)
        assert reply.metadata.reply_to_message_id == ids[0]
        assert reply.metadata.src_node_id == nodes[1]
        assert reply.metadata.group_id == "group-5"
        assert list(grid.pull_messages(ids)) == []
        assert len(list(grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes]))) == 3
        marker = grid.run
        grid.set_run(marker)
        assert grid.run is marker


def test_nodes_are_numbered_as_in_flowers_simulation_or_as_their_owner_says() -> None:
    with LocalGrid(counting_app, 2) as grid:
        contexts = [grid.context_of(node) for node in grid.get_node_ids()]
    assert [context.node_config for context in contexts] == [
        {"partition-id": 0, "num-partitions": 2},
        {"partition-id": 1, "num-partitions": 2},
    ]
    with LocalGrid(counting_app, [{"partition-id": 7}, {"partition-id": 3}], run_config={"lr": 0.5}) as grid:
        ids = list(grid.get_node_ids())
        assert numbers(ask(grid), "place") == [7, 3]
        assert [grid.partition_of(node) for node in ids] == [0, 1]
        assert all(grid.context_of(node).run_config == {"lr": 0.5} for node in ids)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"nodes": -1}, "nodes = -1"),
        ({"nodes": 1, "pool": "fork"}, "pool = 'fork'.*'processes'"),
        ({"nodes": 1, "workers": 0}, "workers = 0"),
        ({"nodes": 1, "pool": "threads", "raise_errors": True}, "raise_errors needs pool='sequential'"),
    ],
)
def test_arguments_that_cannot_work_are_refused_by_name(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LocalGrid(counting_app, **arguments)


def test_an_app_that_does_not_pickle_is_refused_for_processes_and_fine_for_threads() -> None:
    app = counting_app()  # its function is local to counting_app
    with pytest.raises(ConfigError, match="pass a function at the top of a module"):
        LocalGrid(app, 2, pool="processes")
    with LocalGrid(app, 2, pool="threads") as grid:
        assert numbers(ask(grid), "count") == [1, 1]


def test_a_node_that_is_not_there_is_named_with_those_that_are() -> None:
    with LocalGrid(counting_app, 2) as grid, pytest.raises(ConfigError, match=r"node id 5 .* 1000 to 1001"):
        grid.context_of(5)


# -- order and memory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
def test_replies_come_in_the_order_of_the_messages_and_every_node_keeps_its_memory(pool: Any) -> None:
    with LocalGrid(counting_app, 4, pool=pool) as grid:
        for round in (1, 2, 3):
            nodes = list(grid.get_node_ids())[::-1]
            replies = list(grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes]))
            assert [reply.metadata.src_node_id for reply in replies] == nodes
            assert numbers(replies, "place") == [3, 2, 1, 0]
            assert numbers(replies, "count") == [round] * 4


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_the_order_holds_when_the_first_message_takes_longest(pool: Any) -> None:
    with LocalGrid(uneven_app, 4, pool=pool, workers=4) as grid:
        assert numbers(ask(grid), "place") == [0, 1, 2, 3]


def test_a_node_handles_one_message_at_a_time_in_the_order_they_were_pushed() -> None:
    with LocalGrid(overlap_app(), 2, pool="threads", workers=4) as grid:
        nodes = list(grid.get_node_ids())
        replies = list(
            grid.send_and_receive(
                [
                    Message(RecordDict({"config": ConfigRecord({"step": step})}), node, "query")
                    for step in range(8)
                    for node in nodes
                ]
            )
        )
        assert max(numbers(replies, "same")) == 1
        assert max(numbers(replies, "nodes")) == 2  # and the nodes do run side by side
        for node in nodes:
            assert grid.context_of(node).state.config_records["steps"]["list"] == list(range(8))


# -- the same federation in every pool -------------------------------------------------------------------------------


def fedavg(**options: Any) -> ArrayRecord:
    random.seed(3)
    with LocalGrid(toy_app, 5, seed=9, **options) as grid:
        return FedAvg(fraction_train=0.6, fraction_evaluate=0.0).start(grid, initial_model(), num_rounds=3).arrays


@pytest.mark.parametrize(
    "options",
    [{"pool": "threads"}, {"pool": "processes"}, {"serialise": True}, {"pool": "threads", "serialise": True}],
    ids=["threads", "processes", "serialise", "threads-serialise"],
)
def test_fedavg_ends_with_the_same_bits_in_every_pool_and_through_flowers_serialisation(options: Any) -> None:
    alone = fedavg()
    assert not same_model(alone, initial_model())
    assert same_model(fedavg(**options), alone)


# -- isolation -------------------------------------------------------------------------------------------------------


def full_content() -> RecordDict:
    return RecordDict(
        {
            "arrays": ArrayRecord({"w": ArrayRecord([np.full(2, 7.0)])["0"]}),
            "config": ConfigRecord({"list": [1, 2], "text": "as it was"}),
            "metrics": MetricRecord({"n": 1}),
        }
    )


@pytest.mark.parametrize("serialise", [False, True])
def test_what_a_client_changes_in_place_reaches_neither_the_sender_nor_another_node(serialise: bool) -> None:
    content = full_content()
    with LocalGrid(vandal_app, 3, serialise=serialise, run_config={"lr": 0.5}) as grid:
        # As FedAvg does: one content object in all messages.
        assert numbers(ask(grid, content=content), "before") == [7.0, 7.0, 7.0]
    assert set(content) == {"arrays", "config", "metrics"}
    assert list(content.array_records["arrays"]) == ["w"]
    np.testing.assert_array_equal(content.array_records["arrays"]["w"].numpy(), [7.0, 7.0])
    assert dict(content.config_records["config"].items()) == {"list": [1, 2], "text": "as it was"}


def test_what_the_sender_changes_after_pushing_does_not_reach_the_node() -> None:
    gate, done = threading.Event(), threading.Event()
    heard: list[str] = []
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Any) -> Message:
        gate.wait(60)
        heard.append(str(message.content.config_records["config"]["text"]))
        done.set()
        return Message(RecordDict(), reply_to=message)

    content = full_content()
    with LocalGrid(app, 1, pool="threads") as grid:
        grid.push_messages([Message(content, LocalGrid.FIRST_NODE_ID, "query")])
        content.config_records["config"]["text"] = "changed too late"
        gate.set()
        assert done.wait(60)
    assert heard == ["as it was"]


def test_what_a_client_changes_in_its_reply_afterwards_does_not_reach_the_receiver() -> None:
    kept: list[RecordDict] = []
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Any) -> Message:
        kept.append(full_content())
        return Message(kept[-1], reply_to=message)

    with LocalGrid(app, 1) as grid:
        (reply,) = ask(grid)
    kept[0].config_records["config"]["text"] = "changed too late"
    assert reply.content.config_records["config"]["text"] == "as it was"


# -- generators ------------------------------------------------------------------------------------------------------


def global_draws() -> list[float]:
    draws = [random.random(), float(np.random.random())]
    if torch := sys.modules.get("torch"):
        draws.append(float(torch.rand(())))
    return draws


def seed_all() -> None:
    random.seed(1)
    np.random.seed(1)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(1)


@pytest.mark.parametrize("pool", POOLS)
def test_the_callers_global_generators_are_not_disturbed(pool: Any) -> None:
    seed_all()
    undisturbed = global_draws()
    with LocalGrid(drawing_app, 3, pool=pool) as grid:
        seed_all()
        ask(grid)
        assert global_draws() == undisturbed


@pytest.mark.parametrize("pool", ["sequential", "processes"])
def test_clients_draw_by_seed_node_and_message_and_by_nothing_else(pool: Any) -> None:
    def draws(seed: int, disturb: float) -> list[list[float]]:
        random.seed(disturb)
        np.random.seed(int(disturb))
        with LocalGrid(drawing_app, 3, seed=seed, pool=pool) as grid:
            return [numbers(ask(grid), name) for _ in range(2) for name in ("python", "numpy")]

    first = draws(0, 1)
    assert first == draws(0, 2)
    flat = [value for row in first for value in row]
    assert len(set(flat)) == len(flat)
    assert first != draws(1, 1)


def test_torch_draws_in_a_client_repeat_and_leave_the_callers_stream_alone() -> None:
    torch = pytest.importorskip("torch")
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Any) -> Message:
        drawn = float(torch.rand(()))
        return Message(RecordDict({"metrics": MetricRecord({"torch": drawn})}), reply_to=message)

    def once() -> list[float]:
        with LocalGrid(app, 2, seed=5) as grid:
            return numbers(ask(grid), "torch")

    torch.manual_seed(2)
    expected = float(torch.rand(()))
    torch.manual_seed(2)
    first = once()
    assert float(torch.rand(())) == expected
    assert first == once()


# -- checkpoints and serialisation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [counting_app, drawing_app], ids=["memory", "draws"])
def test_a_grid_with_a_loaded_state_goes_on_as_the_first_one_would_have(make: Callable[[], ClientApp]) -> None:
    with LocalGrid(make, 3, seed=2) as first:
        ask(first)
        first.disconnect(1001)
        saved = first.state_dict()
        expected = [dict(reply.content.metric_records["metrics"].items()) for reply in ask(first)]
    with LocalGrid(make, 3, seed=2) as second:
        second.load_state_dict(saved)
        assert list(second.get_node_ids()) == [1000, 1002]
        assert [dict(reply.content.metric_records["metrics"].items()) for reply in ask(second)] == expected


def test_the_state_of_a_grid_with_other_nodes_is_refused() -> None:
    with LocalGrid(counting_app, 3) as grid:
        saved = grid.state_dict()
    with LocalGrid(counting_app, 2) as grid, pytest.raises(ConfigError, match="3 nodes for a grid of 2"):
        grid.load_state_dict(saved)


def test_raise_errors_raises_what_the_client_raised() -> None:
    with LocalGrid(raising_app, 2, raise_errors=True) as grid, pytest.raises(OSError, match="disk full"):
        ask(grid)


def test_a_closed_grid_can_be_closed_again_and_a_pool_ends_with_it() -> None:
    grid = LocalGrid(counting_app, 2, pool="threads")
    ask(grid)
    grid.close()
    grid.close()
    with grid:
        assert numbers(ask(grid), "count") == [2, 2]
