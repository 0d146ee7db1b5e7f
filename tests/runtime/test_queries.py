"""Asking terminals: whatever they answer, the edge goes on with those that answered well."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.conditions import BOUNDS, MOST_ENTRIES, Conditions
from flower_edge.errors import ConfigError
from flower_edge.runtime import Device, GridProxy, Link, LocalGrid, VirtualClock
from flower_edge.runtime.queries import (
    CONDITIONS_RECORD,
    ask_nodes,
    conditions_of,
    time_asked_s,
    without_conditions,
)


def answering(*answers: Any) -> ClientApp:
    """Node i answers with the i-th of the contents, or raises it."""
    app = ClientApp()

    @app.query("mood")
    def mood(message: Message, context: Context) -> Message:
        answer = answers[int(context.node_config["partition-id"])]
        if isinstance(answer, Exception):
            raise answer
        return Message(RecordDict(answer), reply_to=message)

    return app


def test_only_those_that_answer_well_are_in_the_result_in_the_order_they_were_asked() -> None:
    answers = (
        {"mood": ConfigRecord({"good": True, "level": 0.5})},
        ValueError("no mood"),
        {"humour": ConfigRecord({"good": True})},
        {"mood": MetricRecord({"good": 1})},
        {"mood": ArrayRecord()},
        {
            "mood": ConfigRecord(
                {"level": float("nan"), "blob": b"x", "list": [1, 2], "word": "x" * 5000, "good": False}
            )
        },
        {"mood": ConfigRecord()},
        {},
    )
    with LocalGrid(answering(*answers), nodes=len(answers), serialise=True) as grid:
        told = ask_nodes(grid, [1006, *range(1005, 999, -1), 1007, 1000, 4242], "mood")
        assert told == {1006: {}, 1005: {"good": False}, 1000: {"good": True, "level": 0.5}}
        assert list(told) == [1006, 1005, 1000]
        assert ask_nodes(grid, [1000], "unheard_of") == {}
        assert ask_nodes(grid, [], "mood") == {}
        with pytest.raises(ConfigError, match="write an underscore"):
            ask_nodes(grid, [1000], "my-mood")


def test_of_a_flood_of_entries_the_first_are_read_and_all_conditions_there_can_be_are_among_them() -> None:
    full = Conditions(
        **{name: True if bound.kind is bool else bound.kind(bound.high) for name, bound in BOUNDS.items()},
        extra={f"extra {i}": i for i in range(MOST_ENTRIES)},
    )
    flood = {f"entry {i}": i for i in range(1000)}
    answers = ({"mood": ConfigRecord(dict(full.to_mapping()))}, {"mood": ConfigRecord(dict(flood))})
    with LocalGrid(answering(*answers), nodes=2, serialise=True) as grid:
        told = ask_nodes(grid, [1000, 1001], "mood")
    assert Conditions.read(told[1000]) == full
    assert len(told[1001]) == 128


def repeating() -> ClientApp:
    """Answers with what it was asked, and the time it was asked at; draws from the global generator."""
    app = ClientApp()

    @app.query("echo")
    def echo(message: Message, context: Context) -> Message:
        random.random()
        asked = message.content["request"]
        time_s = time_asked_s(message)
        told = {**asked, "time": -1.0 if time_s is None else time_s}
        return Message(RecordDict({"echo": ConfigRecord(told)}), reply_to=message)

    return app


def test_a_question_takes_its_request_along_and_no_time_where_there_is_none() -> None:
    with LocalGrid(repeating(), nodes=2) as grid:
        assert ask_nodes(grid, [1001], "echo", {"cell": "edge-0"}) == {1001: {"cell": "edge-0", "time": -1.0}}


def test_on_a_virtual_clock_a_question_tells_the_time_and_takes_some() -> None:
    with LocalGrid(repeating(), nodes=2) as local:
        clock = VirtualClock(local, [Device()] * 2, [Link(latency_s=0.5)] * 2)
        assert ask_nodes(clock, [1000, 1001], "echo")[1001]["now-s"] == 0.0
        assert clock.now_s >= 1.0
        before_s = clock.now_s
        assert ask_nodes(clock, [1000], "echo")[1000]["time"] == before_s
        assert ask_nodes(clock, [1000], "echo", {"now-s": 7.0})[1000]["time"] == 7.0


def test_a_node_that_is_there_twice_is_asked_once() -> None:
    asked: list[int] = []
    app = ClientApp()

    @app.query("count")
    def count(message: Message, context: Context) -> Message:
        asked.append(int(context.node_config["partition-id"]))
        return Message(RecordDict({"count": ConfigRecord({"ok": True})}), reply_to=message)

    with LocalGrid(app, nodes=2) as grid:
        assert list(ask_nodes(grid, iter([1001, 1000, 1001]), "count")) == [1001, 1000]
    assert sorted(asked) == [0, 1]


def test_a_question_leaves_the_samplers_random_numbers_alone() -> None:
    with LocalGrid(repeating(), nodes=3) as local, GridProxy(local, ask_properties=False) as grid:
        random.seed(5)
        expected = random.Random(5).random()
        assert len(ask_nodes(grid, [1000, 1001, 1002], "echo")) == 3
        assert random.random() == expected


def training_reply(content: dict[str, Any]) -> Message:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict(content), reply_to=message)

    with LocalGrid(app, nodes=1, serialise=True) as grid:
        (reply,) = grid.send_and_receive([Message(RecordDict(), 1000, "train")])
    return reply


def test_conditions_in_a_training_reply_are_read_and_taken_out() -> None:
    metrics = MetricRecord({"num-examples": 3})
    reply = training_reply({"metrics": metrics, CONDITIONS_RECORD: ConfigRecord({"load": 0.5, "battery": 7.0})})
    found = conditions_of(reply)
    assert found == Conditions(load=0.5)
    assert found is not None
    assert found.dropped == ("battery",)
    content = reply.content
    assert without_conditions(reply) is reply
    assert list(reply.content) == ["metrics"]
    assert list(content) == ["metrics", CONDITIONS_RECORD]
    assert conditions_of(reply) is None
    assert without_conditions(reply).content["metrics"] == metrics


def test_replies_without_conditions_or_with_something_else_tell_none() -> None:
    assert conditions_of(training_reply({CONDITIONS_RECORD: MetricRecord({"load": 0.5})})) is None
    with LocalGrid(answering(), nodes=1) as grid:
        (error,) = grid.send_and_receive([Message(RecordDict(), 1000, "train")])
    assert error.has_error()
    assert conditions_of(error) is None
    assert without_conditions(error) is error


def test_a_time_that_is_no_number_is_no_time() -> None:
    for value in ("soon", True):
        app = ClientApp()

        @app.query("time")
        def answer(message: Message, context: Context) -> Message:
            assert time_asked_s(message) is None
            return Message(RecordDict({"time": ConfigRecord({"ok": True})}), reply_to=message)

        with LocalGrid(app, nodes=1) as grid:
            assert ask_nodes(grid, [np.int64(1000).item()], "time", {"now-s": value}) == {1000: {"ok": True}}
