"""The two ways of joining that need the terminal's word: asked, and asking by itself."""

from __future__ import annotations

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients.availability import (
    answer_availability,
    request_to_join,
    requests_to_join,
    withdraw_request,
)
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.queries import ask_nodes


def wishing() -> ClientApp:
    """A terminal whose training asks to join again, and whose evaluation takes that back."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        request_to_join(context)
        return Message(RecordDict(), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        withdraw_request(context)
        withdraw_request(context)
        return Message(RecordDict(), reply_to=message)

    return app


def test_a_terminal_that_is_asked_says_whether_it_is_available_now() -> None:
    ready = {0: False, 1: True}
    app = answer_availability(ClientApp(), lambda context: ready[int(context.node_config["partition-id"])])
    with LocalGrid(app, nodes=2, serialise=True) as grid:
        told = ask_nodes(grid, [1000, 1001], "available")
        assert told == {1000: {"available": False, "requests": False}, 1001: {"available": True, "requests": False}}
        ready[0] = True
        assert ask_nodes(grid, [1000], "available")[1000]["available"] is True


def test_a_request_waits_on_the_node_until_the_edge_looks_and_stands_until_it_is_taken_back() -> None:
    app = answer_availability(wishing(), lambda context: False)
    with LocalGrid(app, nodes=2, serialise=True) as grid:

        def requests() -> list[bool]:
            return [told["requests"] is True for told in ask_nodes(grid, [1000, 1001], "available").values()]

        assert requests() == [False, False]
        list(grid.send_and_receive([Message(RecordDict(), 1001, "train")]))
        assert requests() == requests() == [False, True]
        assert ask_nodes(grid, [1001], "available")[1001]["available"] is True
        list(grid.send_and_receive([Message(RecordDict(), 1001, "evaluate")]))
        assert requests() == [False, False]


def test_a_wish_can_come_from_the_node_itself_instead_of_its_memory() -> None:
    app = answer_availability(ClientApp(), requested=lambda context: context.node_config["partition-id"] == 1)
    with LocalGrid(app, nodes=2) as grid:
        told = ask_nodes(grid, [1000, 1001], "available")
    assert [answer["requests"] for answer in told.values()] == [False, True]


def test_a_terminal_that_does_not_know_the_question_is_not_available() -> None:
    with LocalGrid(wishing(), nodes=1) as grid:
        assert ask_nodes(grid, [1000], "available") == {}


def test_requests_of_one_run_are_not_those_of_another_node() -> None:
    first = Context(1, 1, {"partition-id": 0, "state-dir": ":memory:"}, RecordDict(), {})
    second = Context(1, 2, {"partition-id": 1, "state-dir": ":memory:"}, RecordDict(), {})
    request_to_join(first)
    assert requests_to_join(first)
    assert not requests_to_join(second)
