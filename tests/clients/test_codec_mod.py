"""`codec_mod` at a node: what it lets pass, what it remembers, and what it says when it cannot go on."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.clients.codec import STATE, codec_mod, node_number
from flower_edge.codecs.block import Block
from flower_edge.codecs.codec import Codec
from flower_edge.codecs.delta import Delta
from flower_edge.codecs.envelope import Envelope, Kind, codec_hash
from flower_edge.codecs.error_feedback import ErrorFeedback, stc
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.top_k import TopK
from flower_edge.errors import CodecError, EdgeError, ModelMismatch, WireError
from flower_edge.runtime.codec_messages import BESIDE_RECORD, BLOB_KEY, Order, blob_in, blob_record
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.node_state import NodeState
from flower_edge.wire import arrays_of, record_of, round_trip

SIZE = 40


def context(**config: Any) -> Context:
    return Context(run_id=1, node_id=77, node_config={"partition-id": 3, **config}, state=RecordDict(), run_config={})


def model() -> ArrayRecord:
    return record_of({"w": np.linspace(-1, 1, SIZE, dtype=np.float32), "n": np.array(5)})


def train(message: Message, context: Context) -> Message:
    """One more, everywhere."""
    arrays = {name: array + 1 for name, array in arrays_of(message.content.array_records["arrays"]).items()}
    content = RecordDict({"arrays": record_of(arrays), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)


def answer(content: RecordDict, at: Context, function: Any = train, kind: str = "train") -> Message:
    """What a node with the mod answers."""
    with LocalGrid(lambda: None, 1):  # type: ignore[arg-type, return-value]
        message = round_trip(Message(content, 77, kind))
        return codec_mod(message, at, function)


def beside(codec: Codec, /, **changes: Any) -> RecordDict:
    """A message with a plain model."""
    config = '{"up":' + json.dumps(codec.config()) + "}"
    order = replace(Order(Kind.BESIDE, round=1, version=1, digest=9, codec=codec_hash(codec), config=config), **changes)
    blob = ConfigRecord({BLOB_KEY: order.to_bytes()})
    return RecordDict({"arrays": model(), "config": ConfigRecord({"server-round": 1}), BESIDE_RECORD: blob})


def envelope_of(reply: Message) -> Envelope:
    found = blob_in(reply.content, sender="it")
    assert found is not None
    return Envelope.from_bytes(found[1], sender="it")


def test_messages_without_a_code_pass_untouched() -> None:
    seen: list[Message] = []

    def looking(message: Message, at: Context) -> Message:
        seen.append(message)
        return train(message, at)

    at = context()
    reply = answer(RecordDict({"arrays": model()}), at, looking)
    assert list(seen[0].content) == ["arrays"]
    assert "arrays" in reply.content.array_records
    assert not at.state


@pytest.mark.parametrize("codec", [Identity(), Block(8), TopK(0.5, support="rice")], ids=repr)
def test_a_codec_without_memory_and_plain_models_store_nothing(codec: Codec) -> None:
    at = context()
    reply = answer(beside(codec), at)
    assert envelope_of(reply).node == 3
    assert not at.state


def test_error_feedback_is_remembered_and_the_function_sees_an_ordinary_message() -> None:
    def looking(message: Message, at: Context) -> Message:
        assert list(message.content) == ["arrays", "config"]
        return train(message, at)

    at = context()
    answer(beside(stc(0.1)), at, looking)
    held: Any = NodeState(at, STATE).load()
    assert np.count_nonzero(held["up"]["vector"]["memory"]) > 0.8 * SIZE
    assert held["sent"]["round"] == 1


def test_another_codec_begins_with_an_empty_memory() -> None:
    at = context()
    answer(beside(stc(0.1)), at)
    answer(beside(stc(0.2), round=2), at)
    held: Any = NodeState(at, STATE).load()
    assert held["up_codec"] == codec_hash(stc(0.2))
    assert float(np.abs(held["up"]["vector"]["memory"]).max()) <= 1.0


def test_what_the_server_did_not_get_is_given_back_once() -> None:
    codec = ErrorFeedback(TopK(0.5, values=Identity()))
    at = context()
    answer(beside(codec), at)
    half: Any = NodeState(at, STATE).load()
    assert np.count_nonzero(half["up"]["vector"]["memory"]) == SIZE // 2

    def still(message: Message, at: Context) -> Message:
        content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=message)

    def memory_after(at: Context, **changes: Any) -> float:
        answer(beside(codec, round=3, **changes), at, still)
        held: Any = NodeState(at, STATE).load()
        return float(held["up"]["vector"]["memory"].sum())

    # Nothing was lost: of 40 ones 20 had arrived, 20 go now.
    assert memory_after(at) == 0.0
    other = context()
    answer(beside(codec), other)
    # All was lost: 40 are to be sent, 20 go now, 20 wait.
    assert memory_after(other, heard=0) == 20.0


def test_a_lost_memory_is_told_and_not_guessed() -> None:
    at = context()
    reply = answer(beside(Block(8), config=""), at)
    envelope = envelope_of(reply)
    assert envelope.kind is Kind.LOST
    assert envelope.payload == b"this node knows no codec yet"
    held = Order(Kind.HELD, round=1, version=4, digest=5, codec=codec_hash(Block(8)))
    at = context()
    reply = answer(RecordDict({"arrays": blob_record(held.to_bytes())}), at, kind="evaluate")
    assert envelope_of(reply).kind is Kind.LOST


def test_a_config_that_is_not_the_codec_in_force_is_told() -> None:
    reply = answer(beside(Block(8), codec=7), context())
    assert b"another codec" in envelope_of(reply).payload


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ('{"up": {"kind": "os.system"}}', "expected one of"),
        ('{"up": null}', "expected one of"),
        ('{"up": ' + json.dumps(Delta(Block(8)).config()) + "}", "expected a codec of updates"),
    ],
)
def test_configs_that_are_none_are_refused(config: str, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        answer(beside(Block(8), config=config), context())


def test_a_train_function_that_returns_another_model_is_told_so() -> None:
    def other(message: Message, at: Context) -> Message:
        return Message(RecordDict({"arrays": record_of({"v": np.zeros(3)})}), reply_to=message)

    with pytest.raises(ModelMismatch, match=r"the train function sent.*'w' is missing"):
        answer(beside(Block(8)), context(), other)


def test_a_reply_without_arrays_and_an_evaluation_go_on_as_they_are() -> None:
    def nothing(message: Message, at: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord({"loss": 1.0})}), reply_to=message)

    for kind in ("train", "evaluate"):
        assert list(answer(beside(Block(8)), context(), nothing, kind).content) == ["metrics"]


def test_a_model_under_another_name_is_coded_under_that_name() -> None:
    def renamed(message: Message, at: Context) -> Message:
        reply = train(message, at)
        return Message(RecordDict({"mine": reply.content["arrays"]}), reply_to=message)

    assert list(answer(beside(Block(8)), context(), renamed).content) == ["mine"]


def test_a_message_that_forgot_its_model_is_refused() -> None:
    content = beside(Block(8))
    del content["arrays"]
    with pytest.raises(WireError, match="none came"):
        answer(content, context())


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(8, 300), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_altered_orders_are_answered_or_refused(places: list[tuple[int, int]], coded: bool) -> None:
    delta = Delta(Block(8))
    start = arrays_of(model())
    payload, state = delta.encode(start, delta.init(start))
    config = '{"up":' + json.dumps(Block(8).config())
    config += ',"down":' + json.dumps(delta.config()) + "}"
    form = {"names": ["w", "n"], "shapes": [[SIZE], []], "dtypes": ["float32", "int64"]}
    order = Order(Kind.FIRST, 1, 1, state["digest"], codec_hash(Block(8)), config=config, form=form, model=payload)
    raw = bytearray(order.to_bytes() if coded else beside(Block(8))[BESIDE_RECORD][BLOB_KEY])  # type: ignore[index, call-overload]
    for place, value in places:
        raw[8 + place % (len(raw) - 8)] = value
    raw[4:8] = struct.pack("<I", zlib.crc32(raw[8:]))
    blob = blob_record(bytes(raw))
    try:
        answer(RecordDict({"arrays": model(), BESIDE_RECORD: blob} if not coded else {"arrays": blob}), context())
    except EdgeError:
        return


def test_a_node_has_its_partitions_number_or_one_of_its_own() -> None:
    assert node_number(context()) == 3
    own = {node_number(context(**{"partition-id": wrong})) for wrong in (-1, "three", True, 2**40)}
    assert len(own) == 1
    assert own != {3}
