"""`gradient_mod` on its own: what the user's function sees, what is sent, and when a codec goes back."""

from __future__ import annotations

import random
import zlib
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from gradient_toy import Seen, flat, make_app, start
from toy import initial_model, same_model, toy_app

from flower_edge.clients.gradients import gradient_mod
from flower_edge.codecs.codec import Codec
from flower_edge.codecs.error_feedback import stc
from flower_edge.codecs.identity import Identity
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.gradient_messages import (
    GRADIENT_RECORD,
    PACKET_RECORD,
    SCHEMA,
    SERVER,
    Order,
    Report,
    Sealed,
    bytes_in,
    record_with,
)
from flower_edge.runtime.gradient_setup import Setup
from flower_edge.wire import arrays_of, record_of


def ask(grid: LocalGrid, order: Order, *, dtype: Any = np.float32, **records: Any) -> Message:
    """The first node's answer."""
    content = RecordDict({"config": ConfigRecord({"note": "mine", **order.write()})})
    if order.whole:
        content["arrays"] = start(dtype)
    content.update(records)
    (reply,) = grid.send_and_receive([Message(content, LocalGrid.FIRST_NODE_ID, "train")])
    return reply


def whole(step: int, codec: Codec, **options: Any) -> Order:
    return Order(step, 0, 0, whole=True, setup=Setup(codec.config(), Identity().config()).text(), **options)


def payload(reply: Message, step: int) -> bytes:
    data = bytes_in(reply.content, PACKET_RECORD, sender="it")
    assert data is not None
    return Sealed.from_bytes(data, step=step, sender=0).payload


def report(reply: Message) -> Report:
    return Report.read(reply.content.config_records[GRADIENT_RECORD], sender="it")


def test_messages_of_other_strategies_pass_through() -> None:
    results = []
    for mods in ([], [gradient_mod]):
        random.seed(1)  # FedAvg draws the order in which it asks
        with LocalGrid(toy_app(mods), 3) as grid:
            results.append(FedAvg(fraction_evaluate=0.0).start(grid, initial_model(), num_rounds=2).arrays)
    assert same_model(results[0], results[1])


def test_the_function_sees_the_model_its_config_and_the_step() -> None:
    seen: list[RecordDict] = []
    app = ClientApp(mods=[gradient_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        seen.append(message.content)
        arrays = arrays_of(message.content["arrays"])  # type: ignore[arg-type]
        content = RecordDict({"arrays": record_of(arrays), "metrics": MetricRecord({"num-examples": 5, "loss": 0.5})})
        return Message(content, reply_to=message)

    with LocalGrid(app, 1) as grid:
        reply = ask(grid, whole(7, Identity()))
    assert list(seen[0]) == ["arrays", "config"]
    assert dict(seen[0]["config"].items()) == {"note": "mine", "step": 0}
    assert same_model(seen[0]["arrays"], start(np.float32))  # type: ignore[arg-type]
    assert set(reply.content) == {"metrics", PACKET_RECORD}
    np.testing.assert_array_equal(np.frombuffer(payload(reply, 7), "<f4"), flat(start(np.float32)))


def test_an_aggregate_moves_the_own_model() -> None:
    aggregate = np.arange(41, dtype=np.float32)
    with LocalGrid(make_app(), 1) as grid:
        first = ask(grid, whole(0, Identity()))
        packet = record_with(Sealed(1, SERVER, aggregate.tobytes()).to_bytes())
        second = ask(grid, Order(1, 1, 0, heard=1, rate=0.5), **{PACKET_RECORD: packet})
    digests = [
        Sealed.from_bytes(bytes_in(reply.content, PACKET_RECORD, sender="it") or b"", step=step, sender=0)
        for step, reply in enumerate((first, second))
    ]
    expected = flat(start(np.float32)) - 0.5 * aggregate
    assert (digests[1].version, digests[1].digest) == (1, zlib.crc32(expected.astype("<f4").tobytes()))
    assert digests[0].version == 0


def test_a_codec_goes_back_where_its_last_gradient_was_not_used() -> None:
    codec = stc(0.1)
    with LocalGrid(make_app(), 1) as grid:
        alone = payload(ask(grid, whole(1, codec)), 1)
    followed = {}
    for heard in (0, 1):
        with LocalGrid(make_app(), 1) as grid:
            ask(grid, whole(0, codec))
            followed[heard] = payload(ask(grid, whole(1, codec, heard=heard)), 1)
            # Another step that is not used changes nothing, however often.
            again = [payload(ask(grid, whole(step, codec, heard=heard)), step) for step in (2, 3)]
        if heard == 0:
            assert again[0] == again[1] == alone
    assert followed[0] == alone  # as if the first had never been
    assert followed[1] != alone  # what it left out is sent now


def test_a_node_that_was_told_to_forget_does() -> None:
    codec = stc(0.1)
    with LocalGrid(make_app(), 1) as grid:
        first = payload(ask(grid, whole(0, codec)), 0)
        again = payload(ask(grid, whole(1, codec, heard=1, fresh=True)), 1)
    assert again == first


@pytest.mark.parametrize("known", [False, True], ids=["nothing", "another-version"])
def test_a_node_without_the_model_says_so_and_computes_nothing(known: bool) -> None:
    seen = Seen()
    with LocalGrid(make_app(seen=seen), 1) as grid:
        if known:
            ask(grid, whole(0, Identity()))
        reply = ask(grid, Order(1, 5, 0, heard=1))
    assert sum(map(len, seen.models.values())) == known
    assert report(reply).lost
    assert report(reply).fresh is not known
    assert PACKET_RECORD not in reply.content


def answers(**content: Any) -> ClientApp:
    app = ClientApp(mods=[gradient_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict(content), reply_to=message)

    return app


GRADIENT = record_of({"weight": np.ones((4, 10), np.float32), "bias": np.full(1, np.nan, np.float32)})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"metrics": MetricRecord({"num-examples": 1})}, "returns the gradient under the names of the model"),
        ({"arrays": GRADIENT}, "'num-examples': len"),
        ({"arrays": GRADIENT, "metrics": MetricRecord({"num-examples": -1})}, "num-examples = -1"),
        ({"arrays": GRADIENT, "metrics": MetricRecord({"num-examples": 1})}, "'bias' holds nan"),
        ({"arrays": record_of({"weight": np.ones((10, 4))}), "metrics": MetricRecord({"num-examples": 1})}, "frozen="),
    ],
    ids=["no-arrays", "no-weight", "bad-weight", "not-finite", "other-shape"],
)
def test_what_the_function_may_not_return_is_answered_with_what_it_should(content: dict[str, Any], words: str) -> None:
    with LocalGrid(answers(**content), 1) as grid:
        reply = ask(grid, whole(0, stc(0.1)))
    assert words in (reply.error.reason or "")


def test_an_order_of_another_version_is_refused() -> None:
    content = RecordDict({"config": ConfigRecord({SCHEMA: '{"step": 1, "index": 0, "version": 0, "shape": 3}'})})
    with LocalGrid(make_app(), 1) as grid:
        (reply,) = grid.send_and_receive([Message(content, LocalGrid.FIRST_NODE_ID, "train")])
    assert "expected some of step, version, index" in (reply.error.reason or "")
