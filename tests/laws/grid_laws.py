"""`GridLaws`: what every Grid and every proxy around one owes its caller. Subclass, give `make`, get every law.

class TestMyGrid(GridLaws):
    def make(self, app, nodes):
        return MyGrid(LocalGrid(app, nodes))
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from toy import initial_model, same_model, toy_app

from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.wrapped_grid import find
from flower_edge.wire import arrays_of, record_of

NODES = 4


def law_app() -> ClientApp:
    """Answers a query with its place and what it was asked; the toy federation's training beside it."""
    app = toy_app()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        config = message.content.config_records["config"]
        if config["fail"]:
            raise OSError("disk full")
        asked = config["number"]
        assert isinstance(asked, int)
        metrics = MetricRecord({"place": int(context.node_config["partition-id"]), "asked": asked})
        config["number"] = -1
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def question(node: int, number: int = 0, fail: bool = False) -> Message:
    content = RecordDict({"config": ConfigRecord({"number": number, "fail": fail}), "a": record_of({"w": np.ones(3)})})
    return Message(content, node, "query")


class GridLaws(ABC):
    """Laws of a Grid with `NODES` nodes that answer."""

    @abstractmethod
    def make(self, app: ClientApp, nodes: int) -> Grid:
        """The Grid under test."""

    def wait(self, grid: Grid) -> None:  # noqa: B027
        """Let time pass until the next reply may be there; nothing by default."""

    @pytest.fixture
    def grid(self) -> Iterator[Grid]:
        grid = self.make(law_app(), NODES)
        yield grid
        close(grid)

    def test_it_is_a_grid_of_flowers(self, grid: Grid) -> None:
        assert isinstance(grid, Grid)
        assert isinstance(grid.run.run_id, int)

    def test_nodes_are_listed_once_and_the_same_way_again(self, grid: Grid) -> None:
        nodes = list(grid.get_node_ids())
        assert len(set(nodes)) == len(nodes) == NODES
        assert list(grid.get_node_ids()) == nodes
        assert {node.node_id for node in grid.get_nodes()} == set(nodes)

    def test_every_message_gets_its_own_reply_from_its_own_node(self, grid: Grid) -> None:
        nodes = list(grid.get_node_ids())
        messages = [question(node, number) for number in range(2) for node in nodes]
        replies = {r.metadata.reply_to_message_id: r for r in grid.send_and_receive(messages)}
        assert len(replies) == len(messages)
        for message in messages:
            reply = replies[message.metadata.message_id]
            assert reply.metadata.src_node_id == message.metadata.dst_node_id
            assert reply.content.metric_records["metrics"]["asked"] == messages.index(message) // NODES

    def test_messages_may_be_given_by_a_generator(self, grid: Grid) -> None:
        replies = grid.send_and_receive(question(node) for node in list(grid.get_node_ids()))
        assert len(list(replies)) == NODES

    def test_no_message_at_all_brings_no_reply_and_ends(self, grid: Grid) -> None:
        assert list(grid.send_and_receive([])) == []
        assert list(grid.push_messages([])) == []
        assert list(grid.pull_messages([])) == []

    def test_what_was_pushed_can_be_pulled_once(self, grid: Grid) -> None:
        ids = list(grid.push_messages([question(node) for node in grid.get_node_ids()]))
        assert len(set(ids)) == NODES
        pulled: list[Message] = []
        for _ in range(2 * NODES):
            self.wait(grid)
            pulled += grid.pull_messages(ids)
        assert sorted(reply.metadata.reply_to_message_id for reply in pulled) == sorted(ids)

    def test_a_client_that_raises_is_an_error_reply_and_the_others_answer(self, grid: Grid) -> None:
        nodes = list(grid.get_node_ids())
        replies = list(grid.send_and_receive([question(node, fail=node == nodes[1]) for node in nodes]))
        failed = {reply.metadata.src_node_id: reply.error.reason for reply in replies if reply.has_error()}
        assert list(failed) == [nodes[1]]
        assert "disk full" in str(failed[nodes[1]])

    def test_what_the_client_changes_in_place_does_not_reach_the_sender(self, grid: Grid) -> None:
        message = question(next(iter(grid.get_node_ids())), number=7)
        content = message.content
        list(grid.send_and_receive([message]))
        assert content.config_records["config"]["number"] == 7
        np.testing.assert_array_equal(arrays_of(content.array_records["a"])["w"], np.ones(3))

    def test_the_group_of_a_message_comes_back_with_its_reply(self, grid: Grid) -> None:
        node = next(iter(grid.get_node_ids()))
        message = grid.create_message(question(node).content, "query", node, "group-9")
        (reply,) = grid.send_and_receive([message])
        assert reply.metadata.group_id == "group-9"

    def test_fedavg_on_it_ends_with_the_model_of_fedavg_on_a_plain_local_grid(self, grid: Grid) -> None:
        def train(on: Grid) -> ArrayRecord:
            random.seed(3)
            strategy = FedAvg(fraction_train=0.75, fraction_evaluate=0.0)
            return strategy.start(on, initial_model(), num_rounds=2).arrays

        with LocalGrid(law_app(), NODES) as plain:
            expected = train(plain)
        assert same_model(train(grid), expected)


def close(grid: Grid) -> None:
    """Close the LocalGrid at the bottom of a chain."""
    local = find(grid, LocalGrid)
    assert local is not None
    local.close()
