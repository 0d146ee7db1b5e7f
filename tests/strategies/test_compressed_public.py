"""What both ends know without sending it: how the model moved, a lagged leader's places, a codebook."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from coded import Bench, bench, blobs, coded_app
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.codecs.block import Block
from flower_edge.codecs.codec import Codec
from flower_edge.codecs.envelope import Envelope
from flower_edge.codecs.error_feedback import ErrorFeedback
from flower_edge.codecs.lgc.lgc import Lgc
from flower_edge.codecs.predicted import Predicted
from flower_edge.codecs.shared_support import SharedSupport
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.top_k import TopK
from flower_edge.runtime.codec_messages import Order
from flower_edge.strategies.compression import Compressed
from flower_edge.wire import record_of

SIZE = 2000
DOWNS = pytest.mark.parametrize("down", [None, Block(8)], ids=["plain down", "coded down"])


def zeros() -> ArrayRecord:
    return record_of({"w": np.zeros(SIZE, np.float32)})


def app() -> ClientApp:
    """Goes towards one goal, most of it in few places."""
    made = ClientApp()
    goal = np.random.default_rng(3).standard_cauchy(SIZE).astype(np.float32)

    @made.train()
    def train(message: Message, context: Context) -> Message:
        w = message.content.array_records["arrays"]["w"].numpy()
        number = int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
        noise = np.random.default_rng([int(context.node_config["partition-id"]), number]).normal(size=SIZE)
        after = w + 0.2 * (goal - w) + 0.01 * noise.astype(np.float32)
        metrics = MetricRecord({"num-examples": 1, "distance": float(np.abs(goal - w).mean())})
        return Message(RecordDict({"arrays": record_of({"w": after}), "metrics": metrics}), reply_to=message)

    @made.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict({"m": MetricRecord({"num-examples": 1})}), reply_to=message)

    return made


def here(codec: Codec, down: Codec | None = None, **options: Any) -> Any:
    return bench(Compressed(codec, down=down, **options), app=lambda: coded_app(app), model=zeros, nodes=4)


def used(session: Bench) -> dict[int, int]:
    """How many aggregates each reply was made with."""
    nodes = [reply.metadata.src_node_id for reply in session.tap.came]
    read = [Envelope.from_bytes(blob, sender="it").aggregates for blob in blobs(session.tap.came)]
    return dict(zip(nodes, read, strict=True))


# -- how the model moved ---------------------------------------------------------------------------------------------


@DOWNS
def test_a_codec_that_looks_at_the_last_aggregates_is_given_those_that_both_ends_have(down: Codec | None) -> None:
    with here(Predicted(Block(8)), down) as session:
        counts = []
        for _ in range(4):
            session.train()
            counts.append(set(used(session).values()))
    assert counts == [{0}, {1}, {1}, {1}]
    assert session.grid.metrics()["total_refused_replies"] == 0


@DOWNS
def test_a_node_that_missed_a_round_begins_anew_where_models_are_plain_and_catches_up_where_they_are_coded(
    down: Codec | None,
) -> None:
    with here(Predicted(Block(8)), down) as session:
        session.train()
        session.train()
        session.grid.get_node_ids = lambda: [1000, 1001]  # type: ignore[method-assign]
        session.train()
        session.grid.get_node_ids = lambda: [1001, 1002]  # type: ignore[method-assign]
        session.train()
        assert used(session) == {1001: 1, 1002: 0 if down is None else 1}
        session.train()
        assert used(session) == {1001: 1, 1002: 1}
    assert session.grid.metrics()["total_refused_replies"] == 0


@DOWNS
def test_contexts_make_supports_smaller_and_lose_nothing(down: Codec | None) -> None:
    sizes = {}
    for support in ("auto", "rice"):
        with here(TopK(0.05, values=Sign(), support=support), down) as session:
            for _ in range(5):
                session.train()
            sizes[support] = np.mean([len(blob) for blob in blobs(session.tap.came)])
            assert session.grid.metrics()["total_refused_replies"] == 0
    assert sizes["auto"] < 0.9 * sizes["rice"]


def test_a_late_reply_is_read_with_what_was_known_when_it_was_made() -> None:
    held: list[Message] = []
    with here(Predicted(Block(8)), keep=2) as session:
        session.train()
        session.tap.up = lambda replies: [r for r in replies if r.metadata.src_node_id != 1003 or held.append(r)]  # type: ignore[func-returns-value]
        session.train()
        base = session.state.versions[-1].model["w"]
        session.tap.up = lambda replies: replies
        session.train()
        session.train()
        (reply,) = session.grid.incoming(held)
        goal = np.random.default_rng(3).standard_cauchy(SIZE).astype(np.float32)
        after = reply.content.array_records["arrays"]["w"].numpy()
    np.testing.assert_allclose(after - base, 0.2 * (goal - base), atol=0.02 * np.abs(goal).max())


def test_aggregates_can_be_left_out_where_nodes_have_little_memory() -> None:
    with here(Predicted(Block(8)), public=0) as session:
        for _ in range(3):
            session.train()
        assert set(used(session).values()) == {0}
        assert session.memory(1000) is None
        assert all(version.move is None for version in session.state.versions)


# -- teachers --------------------------------------------------------------------------------------------------------


@DOWNS
def test_a_lagged_leaders_places_reach_all_nodes_with_the_next_round(down: Codec | None) -> None:
    codec = ErrorFeedback(SharedSupport(fraction=0.05, innovation=0.0, turn=4))
    with here(codec, down) as session:
        for number in range(6):
            session.train()
            orders = [Order.from_bytes(blob, sender="it") for blob in session.tap.blobs()]
            assert {order.leader is not None for order in orders} == {number > 0}
            assert len({order.leader for order in orders}) == 1
        kinds = [Envelope.from_bytes(blob, sender="it").payload[0] for blob in blobs(session.tap.came)]
        assert sorted(kinds) == [1, 1, 1, 2], "all but the one whose turn it is send values at the leader's places"
        assert session.grid.metrics()["total_refused_replies"] == 0


def test_leaders_whose_replies_are_all_lost_cost_nothing_but_their_own_updates() -> None:
    codec = SharedSupport(fraction=0.05, turn=4)
    with here(codec) as session:
        for number in range(1, 7):
            leader = next(1000 + node for node in range(4) if (node + number - 1) % 4 == 0)
            session.tap.up = lambda replies, gone=leader: [r for r in replies if r.metadata.src_node_id != gone]  # type: ignore[misc]
            assert len(session.train().weights) == 3
    assert session.grid.metrics()["total_refused_replies"] == 0


def test_what_a_teacher_learned_survives_a_checkpoint() -> None:
    layer = Compressed(SharedSupport(fraction=0.05, turn=4))
    with bench(layer, app=lambda: coded_app(app), model=zeros, nodes=4) as session:
        for _ in range(3):
            session.train()
        loaded = layer.load(layer.dump(session.state))
        assert layer.metrics(loaded) == layer.metrics(session.state)
        session.grid.states[0] = loaded
        session.train()
        assert all(Order.from_bytes(blob, sender="it").leader for blob in session.tap.blobs())


@DOWNS
def test_a_codebook_travels_to_each_node_once_and_again_where_it_was_lost(down: Codec | None) -> None:
    pytest.importorskip("torch", reason="the server trains the autoencoder")
    codec = Lgc(fraction=0.05, channels=(4, 4, 4, 4, 2), taught=2, turn=4, gated=False)
    with here(codec, down) as session:
        brought = []
        for number in range(6):
            if number == 4:
                session.forget(1002)
            done = session.train()
            orders = {
                message.metadata.dst_node_id: Order.from_bytes(blob, sender="it")
                for message, blob in zip(session.tap.sent, session.tap.blobs(), strict=True)
            }
            brought.append(sorted(node for node, order in orders.items() if order.codebook is not None))
            assert done.failed == (1 if number == 4 else 0)
        assert brought == [[], [], [1000, 1001, 1002, 1003], [], [], [1002]]
        assert len({order.epoch for order in orders.values()} - {0}) == 1
        assert [(event.what, event.node) for event in session.events] == [("node-lost", "1002")]
        assert session.grid.metrics()["lgc_gate_open"] == 1.0
