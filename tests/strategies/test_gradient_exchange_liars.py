"""Gradient exchange with nodes that lie in every message: whoever is honest goes on, and nobody is believed alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import Result, Strategy
from gradient_toy import Seen, flat, make_app, single_machine, start

from flower_edge.codecs.error_feedback import stc
from flower_edge.runtime import Fault, LocalGrid
from flower_edge.runtime.gradient_messages import (
    GRADIENT_RECORD,
    PACKET_RECORD,
    REPLICA_RECORD,
    SCHEMA,
    Report,
    bytes_in,
    record_with,
)
from flower_edge.store.tree import tree_from_bytes, tree_to_bytes
from flower_edge.strategies.gradients.exchange import GradientExchange

NODES = 4
STEPS = 6
ROUNDS = 2
LIAR = 0

Mod = Callable[[Message, Context, ClientAppCallable], Message]


def rate(version: int) -> float:
    return 0.05


def lie(act: Callable[[RecordDict], None]) -> Mod:
    """What one node does to each of its replies."""

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        if int(context.node_config["partition-id"]) == LIAR and not reply.has_error():
            act(reply.content)
        return reply

    return mod


def told(**changes: Any) -> Callable[[RecordDict], None]:
    """Tells something else of itself, where it tells anything."""

    def act(content: RecordDict) -> None:
        if GRADIENT_RECORD in content:
            report = Report.read(content[GRADIENT_RECORD], sender="a test")  # type: ignore[arg-type]
            content[GRADIENT_RECORD] = replace(report, **changes).write()

    return act


def beside(change: Callable[[Any], Any]) -> Callable[[RecordDict], None]:
    """Sends something else beside its model, where it is to send that."""

    def act(content: RecordDict) -> None:
        data = bytes_in(content, REPLICA_RECORD, sender="a test")
        if data is not None:
            content[REPLICA_RECORD] = record_with(tree_to_bytes(change(tree_from_bytes(data))))

    return act


def run(act: Callable[[RecordDict], None], codec: Any = None, script: Any = (), **options: Any):
    seen = Seen()
    strategy = GradientExchange(
        codec, learning_rate=rate, momentum=0.5, steps_per_round=STEPS, fraction_evaluate=0.0, **options
    )
    with LocalGrid(make_app([lie(act)], seen), NODES, script=script) as grid:
        result = Strategy.start(strategy, grid, start(np.float64 if codec is None else np.float32), num_rounds=ROUNDS)
    return result, seen, {event.what for event in strategy.events()}


def metrics(result: Result, name: str) -> list[float]:
    return [float(found.get(name, 0.0)) for found in result.train_metrics_clientapp.values()]  # type: ignore[arg-type]


# -- in a ring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (told(lost="so it says"), "lost"),
        (told(version=1 << 62), "other-model"),
        (told(digest=7), "other-model"),
        (lambda content: content.clear(), "refused"),
    ],
    ids=["lost", "version", "digest", "silent"],
)
def test_who_never_has_the_model_costs_one_step_a_round(act: Callable[[RecordDict], None], what: str) -> None:
    result, seen, happened = run(act, form="ring")
    assert metrics(result, "dropped_steps") == [1, 1]
    assert metrics(result, "ring_nodes") == [NODES - 1, NODES - 1]
    assert happened == {what, "dropped-step"}
    assert seen.apart() == []
    without = {t: {LIAR} for t in range(ROUNDS * (STEPS - 1))}
    expected = single_machine(ROUNDS * (STEPS - 1), NODES, rate, momentum=0.5, without=without)
    # Gradients are drawn by the update's number, and a dropped step has made no update.
    np.testing.assert_allclose(flat(result.arrays), expected, rtol=1e-12, atol=1e-13)


def test_who_blames_everybody_is_believed_once_a_round() -> None:
    result, seen, happened = run(told(missing=True), form="ring")
    assert metrics(result, "dropped_steps") == [2, 2]
    assert metrics(result, "ring_nodes") == [NODES - 2, NODES - 2]
    assert happened == {"missing", "dropped-step"}
    assert seen.apart() == []
    assert metrics(result, "loss")[1] < metrics(result, "loss")[0]


@pytest.mark.parametrize(
    "act",
    [
        beside(lambda tree: {**tree, "aggregates": [1]}),
        beside(lambda tree: {**tree, "velocity": 2 * tree["velocity"]}),
        beside(lambda tree: {**tree, "extra": {"decoders": {"0": 3}}}),
        beside(lambda tree: [tree]),
        lambda content: (
            content.update({"arrays": ArrayRecord({"weight": Array(np.zeros(3))})}) if "arrays" in content else None
        ),
    ],
    ids=["aggregates", "velocity", "extra", "tree", "model"],
)
def test_a_copy_that_is_not_what_most_have_is_fetched_from_another(act: Callable[[RecordDict], None]) -> None:
    """A node that was away in between begins from that copy: with a wrong velocity its model would be another."""
    away = Fault(3, "raise", at=STEPS * NODES + 3)
    result, seen, happened = run(act, stc(0.3), form="ring", script=[away])
    assert happened == {"dropped-step"}
    assert seen.apart() == []
    assert metrics(result, "loss")[1] < metrics(result, "loss")[0] / 3


# -- through the server ----------------------------------------------------------------------------------------------


def replaced_by(record: Any, name: str = PACKET_RECORD) -> Callable[[RecordDict], None]:
    def act(content: RecordDict) -> None:
        content[name] = record

    return act


@pytest.mark.parametrize(
    "act",
    [
        replaced_by(record_with(b"")),
        replaced_by(record_with(bytes(range(200)))),
        replaced_by(ArrayRecord({"w": Array(np.zeros(3))})),
        replaced_by(MetricRecord({"x": 1.0}), GRADIENT_RECORD),
        replaced_by(ConfigRecord({SCHEMA: '{"step": 99999999999999999999, "index": 0}'}), GRADIENT_RECORD),
        lambda content: content.clear(),
    ],
    ids=["empty", "noise", "arrays", "metrics", "step", "silent"],
)
@pytest.mark.parametrize("codec", [None, stc(0.3)], ids=["identity", "stc"])
def test_a_node_that_sends_nonsense_is_left_out_of_every_step(act: Callable[[RecordDict], None], codec: Any) -> None:
    result, seen, happened = run(act, codec)
    assert metrics(result, "refused") == [STEPS, STEPS]
    assert happened == {"refused"}
    assert seen.apart() == []
    if codec is None:
        expected = single_machine(ROUNDS * STEPS, NODES, rate, momentum=0.5, without={t: {LIAR} for t in range(100)})
        np.testing.assert_allclose(flat(result.arrays), expected, rtol=1e-12, atol=1e-13)


def test_numbers_beyond_float32_are_refused_and_the_others_go_on() -> None:
    """In float64 they are finite; times a weight they are not, and the mean of all would be lost."""
    from flower_edge.peers import Packet

    def act(content: RecordDict) -> None:
        data = bytes_in(content, PACKET_RECORD, sender="a test")
        assert data is not None
        packet = Packet.from_bytes(data)
        payload = packet.payload[:12] + np.full((len(packet.payload) - 12) // 8, 1e300).tobytes()
        content[PACKET_RECORD] = record_with(Packet(packet.round, packet.sender, 0, "", payload).to_bytes())

    result, _, happened = run(act)
    assert happened == {"refused"}
    expected = single_machine(ROUNDS * STEPS, NODES, rate, momentum=0.5, without={t: {LIAR} for t in range(100)})
    np.testing.assert_allclose(flat(result.arrays), expected, rtol=1e-12, atol=1e-13)
