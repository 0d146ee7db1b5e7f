"""`assignment_mod`: the stamp of the message goes back with the reply, and nothing else changes."""

from __future__ import annotations

from typing import Any

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from toy import initial_model, toy_app

from flower_edge.clients.assignment import assignment_mod
from flower_edge.runtime.assignment_record import ASSIGNMENT_RECORD
from flower_edge.runtime.local_grid import LocalGrid

STAMP = ConfigRecord({"run": "7", "round": "3.1", "nonce": "ab"})


def call(content: RecordDict, answer: Any) -> Message:
    with LocalGrid(toy_app(), 1):
        message = Message(content, 1000, "train")
        return assignment_mod(message, Context(1, 1000, {}, RecordDict(), {}), answer)


def test_the_stamp_goes_back_also_where_the_function_changes_its_message() -> None:
    own = RecordDict({"arrays": initial_model()})

    def answer(message: Message, context: Context) -> Message:
        message.content[ASSIGNMENT_RECORD]["nonce"] = "changed"  # type: ignore[index, call-overload]
        return Message(own, reply_to=message)

    reply = call(RecordDict({ASSIGNMENT_RECORD: ConfigRecord(dict(STAMP.items()))}), answer)
    assert dict(reply.content.config_records[ASSIGNMENT_RECORD].items()) == dict(STAMP.items())
    assert list(reply.content) == ["arrays", ASSIGNMENT_RECORD]
    assert list(own) == ["arrays"]  # the function's own records stay as they are


def test_without_a_stamp_the_reply_is_the_functions_own() -> None:
    def answer(message: Message, context: Context) -> Message:
        return Message(RecordDict({"arrays": initial_model()}), reply_to=message)

    assert list(call(RecordDict(), answer).content) == ["arrays"]


def test_an_error_stays_an_error() -> None:
    def answer(message: Message, context: Context) -> Message:
        return Message(Error(2, "no"), reply_to=message)

    reply = call(RecordDict({ASSIGNMENT_RECORD: STAMP}), answer)
    assert reply.error.reason == "no"
    assert not reply.has_content()
