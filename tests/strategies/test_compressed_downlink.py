"""The way down: one stream per version, and every node's replica is the server's, bit for bit, whatever it missed."""

from __future__ import annotations

import struct
import zlib
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
from coded import Bench, bench, blobs, coded_app
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import initial_model

from flower_edge.codecs.block import Block
from flower_edge.codecs.envelope import Kind
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.top_k import TopK
from flower_edge.errors import CodecError
from flower_edge.rounds import Round
from flower_edge.runtime.codec_messages import ASIDE, Order, read_places, write_places
from flower_edge.strategies.compression import Compressed
from flower_edge.wire import record_of

SIZE = 300


def model() -> ArrayRecord:
    rng = np.random.default_rng(1)
    return record_of({"w": rng.normal(size=(SIZE,)).astype(np.float32), "n": np.array(0)})


def app() -> ClientApp:
    """Moves the model a little, and tells the sum of what it was given."""
    made = ClientApp()

    @made.train()
    def train(message: Message, context: Context) -> Message:
        given = {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}
        number = int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
        rng = np.random.default_rng([number, int(context.node_config["partition-id"])])
        after = {"w": given["w"] + 0.1 * rng.normal(size=SIZE).astype(given["w"].dtype), "n": given["n"] + 1}
        metrics = MetricRecord({"num-examples": 3, "sum": float(given["w"].sum())})
        return Message(RecordDict({"arrays": record_of(after), "metrics": metrics}), reply_to=message)

    @made.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict({"m": MetricRecord({"num-examples": 1, "loss": 0.0})}), reply_to=message)

    return made


def lossy(keep: int = 4, first: Half | None = None) -> Compressed:
    return Compressed(Block(8), down=TopK(0.1), first=first, keep=keep)


def here(layer: Compressed, nodes: int = 4) -> AbstractContextManager[Bench]:
    return bench(layer, app=lambda: coded_app(app), model=model, nodes=nodes)


def orders(session: Bench) -> dict[int, Order]:
    """What each node was sent last."""
    nodes = [message.metadata.dst_node_id for message in session.tap.sent]
    read = [Order.from_bytes(blob, sender="the server") for blob in session.tap.blobs()]
    return dict(zip(nodes, read, strict=True))


def only(session: Bench, *nodes: int) -> None:
    """Only these nodes take part in the next exchanges."""
    session.grid.get_node_ids = lambda: list(nodes)  # type: ignore[method-assign]


def assert_same_replica(session: Bench, node: int) -> None:
    held = session.memory(node)
    assert held["version"] == session.state.newest[0]
    assert held["delta"]["replica"].tobytes() == session.state.delta["replica"].tobytes()


def test_all_nodes_with_one_base_get_the_same_bytes_and_hold_the_servers_replica() -> None:
    with here(lossy()) as session:
        for number in range(4):
            session.train()
            assert len(set(session.tap.blobs())) == 1
            assert {order.kind for order in orders(session).values()} == {Kind.STREAMS if number else Kind.FIRST}
            for node in range(1000, 1004):
                assert_same_replica(session, node)


def test_the_codecs_configs_travel_until_a_node_has_answered_and_then_only_their_hash() -> None:
    with here(lossy()) as session:
        session.train()
        assert all(order.config for order in orders(session).values())
        session.train()
        assert not any(order.config for order in orders(session).values())


def test_a_node_that_missed_versions_gets_their_streams_and_one_that_missed_too_many_a_whole_model() -> None:
    with here(lossy(keep=3)) as session:
        session.train()
        only(session, 1000, 1001)
        session.train()
        session.train()
        only(session, 1000, 1002)
        session.train()
        assert {node: len(order.streams) for node, order in orders(session).items()} == {1000: 1, 1002: 3}
        assert_same_replica(session, 1002)
        only(session, 1000, 1003)
        session.train()
        kinds = {node: order.kind for node, order in orders(session).items()}
        assert kinds == {1000: Kind.STREAMS, 1003: Kind.FIRST}
        assert_same_replica(session, 1003)
        assert session.grid.metrics()["plain_sent"] == 1


@pytest.mark.parametrize("down", [TopK(0.1), Block(8), Identity()], ids=repr)
def test_a_model_in_half_precision_is_told_to_who_missed_versions_too(down: Any) -> None:
    """What nodes hold must be something that float16 can say: a whole model tells it to those who come late."""

    def halves() -> ArrayRecord:
        return record_of({**{n: a.numpy() for n, a in model().items()}, "w": model()["w"].numpy().astype(np.float16)})

    layer = Compressed(Block(8), down=down, keep=2)
    with bench(layer, app=lambda: coded_app(app), model=halves, nodes=4) as session:
        session.train()
        only(session, 1000, 1001)
        for _ in range(3):
            session.train()
        only(session, 1000, 1003)
        session.train()
        if not isinstance(down, Identity):
            kinds = {node: order.kind for node, order in orders(session).items()}
            assert kinds == {1000: Kind.STREAMS, 1003: Kind.FIRST}
            assert_same_replica(session, 1003)
        moved = np.abs(session.model["w"].numpy().astype(float) - halves()["w"].numpy().astype(float))
        assert 0.0 < moved.max() < 1.0


def test_what_one_version_leaves_out_is_in_the_next_ones() -> None:
    class Still(FedAvg):
        """Moves once, far, and then next to nothing."""

        def aggregate_train(self, server_round: int, replies: list[Message]) -> tuple[ArrayRecord, MetricRecord]:
            far = {"w": np.linspace(1, 9, SIZE, dtype=np.float32), "n": np.array(server_round)}
            return record_of(far), MetricRecord({})

    with bench(lossy(), app=lambda: coded_app(app), model=model, nodes=2, strategy=Still()) as at:
        errors = []
        for _ in range(90):
            at.train()
            errors.append(float(np.abs(at.state.delta["replica"] - at.model["w"].numpy()).mean()))
    assert errors[40] < 0.3 * errors[1]
    assert errors[-1] < 0.1 * errors[1]


def test_a_first_model_by_another_codec_halves_the_first_message_and_nothing_else() -> None:
    with here(lossy(first=Half())) as session:
        session.train()
        half = session.tap.blobs()[0]
        assert len(half) < 2 * SIZE + 500
        start = model()["w"].numpy()
        assert session.state.delta["replica"].tobytes() == start.astype(np.float16).astype(np.float32).tobytes()
        session.train()
        session.forget(1002)
        session.train()  # it says that it has lost everything
        session.train()
        assert orders(session)[1002].kind is Kind.WHOLE, "half precision would be another model by now"
        assert_same_replica(session, 1002)


def test_the_same_model_again_is_no_new_version() -> None:
    with here(lossy()) as session:
        session.train()
        merged = session.model
        session.evaluate()
        assert session.state.newest[0] == 2
        session.model = record_of({name: array.numpy() for name, array in merged.items()})
        session.evaluate()
        assert session.state.newest[0] == 2
        assert {order.kind for order in orders(session).values()} == {Kind.HELD}


def test_models_unlike_the_others_of_an_exchange_go_down_whole_and_come_back_right() -> None:
    other = record_of({"w": np.full(SIZE, 7, np.float32), "n": np.array(70)})
    with here(lossy()) as session:
        for number in range(1, 4):
            session.grid.announced(Round(number))
            config = ConfigRecord({"server-round": number})
            messages = [
                Message(RecordDict({"arrays": other if node == 1003 else model(), "config": config}), node, "train")
                for node in range(1000, 1004)
            ]
            replies = {r.metadata.src_node_id: r for r in session.grid.send_and_receive(messages)}
            assert not any(reply.has_error() for reply in replies.values())
            after = replies[1003].content.array_records["arrays"]
            assert float(np.abs(after["w"].numpy() - 7).max()) < 1
            assert after["n"].numpy() == 71
            assert replies[1000].content.array_records["arrays"]["n"].numpy() == 1
            assert orders(session)[1003].version >= ASIDE
        assert orders(session)[1003].kind is Kind.HELD
        assert session.grid.metrics()["total_plain_sent"] == 4


def test_the_update_is_added_to_the_exact_model_and_not_to_what_nodes_hold() -> None:
    class Once(FedAvg):
        def aggregate_train(self, server_round: int, replies: list[Message]) -> tuple[ArrayRecord, MetricRecord]:
            self.seen = [reply.content.array_records["arrays"]["w"].numpy() for reply in replies]
            return super().aggregate_train(server_round, replies)  # type: ignore[return-value]

    strategy = Once(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
    with bench(lossy(), app=lambda: coded_app(app), model=model, nodes=1, strategy=strategy) as session:
        session.train()
        sent = session.model["w"].numpy()
        session.train()
        rng = np.random.default_rng([2, 0])
        wanted = sent + 0.1 * rng.normal(size=SIZE).astype(np.float32)
        assert float(np.abs(session.state.delta["replica"] - sent).max()) > 0.05, "the replica is another model"
    np.testing.assert_allclose(strategy.seen[0], wanted, atol=0.01)


def test_float64_models_and_exact_blobs_work_like_float32() -> None:
    for layer in (lossy(), Compressed(Block(8), down=Identity()), Compressed(Block(8))):
        with bench(layer, model=lambda: initial_model(np.float64)) as session:
            session.train()
            session.train()
            assert {array.dtype for array in session.model.values()} == {"float64"}
            assert session.grid.metrics()["total_refused_replies"] == 0
            assert len(blobs(session.tap.came)) == 5


# -- orders ----------------------------------------------------------------------------------------------------------

ORDERS = st.builds(
    Order,
    st.sampled_from([Kind.WHOLE, Kind.FIRST, Kind.BESIDE, Kind.HELD]),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 2**32 - 1),
    config=st.sampled_from(["", '{"up":{"kind":"identity"}}']),
    heard=st.none() | st.integers(0, 99),
    before=st.none() | st.integers(0, 99),
    leader=st.none() | st.binary(max_size=9),
    codebook=st.none() | st.binary(max_size=9),
    form=st.none() | st.just({"names": ["w"], "shapes": [[2, 3]], "dtypes": ["float32"]}),
    model=st.binary(max_size=20),
)


@settings(max_examples=60)
@given(ORDERS, st.lists(st.binary(max_size=9), max_size=4))
def test_an_order_is_itself_after_travelling(order: Order, streams: list[bytes]) -> None:
    assert Order.from_bytes(order.to_bytes(), sender="it") == order
    several = Order(Kind.STREAMS, 3, 4, 5, heard=order.heard, streams=tuple(streams))
    assert Order.from_bytes(several.to_bytes(), sender="it") == several


@settings(max_examples=100)
@given(ORDERS, st.data())
def test_an_order_that_was_altered_and_signed_again_is_read_or_refused(order: Order, data: st.DataObject) -> None:
    raw = bytearray(order.to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(8, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw[4:8] = struct.pack("<I", zlib.crc32(raw[8:]))
    try:
        Order.from_bytes(bytes(raw), sender="it")
    except CodecError:
        return


@given(st.sets(st.integers(0, 2**33)), st.integers(0, 3))
def test_places_of_a_leader_are_themselves_after_travelling(places: set[int], more: int) -> None:
    given_ = np.array(sorted(places), np.int64)
    size = int(given_[-1]) + 1 + more if len(given_) else more
    assert read_places(write_places(given_), size).tolist() == given_.tolist()
    if len(given_):
        with pytest.raises(CodecError, match="leader"):
            read_places(write_places(given_), size - 1 - more)


@given(st.binary(max_size=30), st.integers(0, 50))
def test_any_bytes_are_places_or_refused(data: bytes, size: int) -> None:
    try:
        places = read_places(data, size)
    except CodecError:
        return
    assert len(places) <= size
    assert (np.diff(places) > 0).all()
    assert not len(places) or 0 <= places[0] <= places[-1] < size
