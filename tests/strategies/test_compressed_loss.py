"""What gets lost or altered: nodes that forgot, replies that did not arrive, and nodes that lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from coded import Bench, bench, coded_app
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import initial_model

from flower_edge.codecs.block import Block
from flower_edge.codecs.codec import Codec
from flower_edge.codecs.envelope import Envelope, Kind
from flower_edge.codecs.error_feedback import ErrorFeedback, stc
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.top_k import TopK
from flower_edge.errors import RoundFailed
from flower_edge.runtime.codec_messages import BLOB_KEY, FOLDED_RECORD, blob_in, replaced
from flower_edge.strategies import LayeredGrid
from flower_edge.strategies.compression import Compressed
from flower_edge.wire import record_of

SIZE = 200


def constant_app(size: int = SIZE, step: float = 1.0) -> Callable[[], ClientApp]:
    """Moves number i by i + 1 in every round, so that what was sent can be told from the sum."""

    def make() -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            w = message.content.array_records["arrays"]["w"].numpy()
            after = w + step * np.arange(1, size + 1, dtype=np.float32)
            metrics = MetricRecord({"num-examples": 1})
            return Message(RecordDict({"arrays": record_of({"w": after}), "metrics": metrics}), reply_to=message)

        @app.evaluate()
        def evaluate(message: Message, context: Context) -> Message:
            return Message(RecordDict({"m": MetricRecord({"num-examples": 1})}), reply_to=message)

        return app

    return make


def zeros() -> ArrayRecord:
    return record_of({"w": np.zeros(SIZE, np.float32)})


def altered(reply: Message, change: Callable[[bytes], bytes]) -> Message:
    """The reply with another blob."""
    found = blob_in(reply.content, sender="it")
    assert found is not None
    reply.content = replaced(reply.content, found[0], ConfigRecord({BLOB_KEY: change(found[1])}))
    return reply


def from_node(session: Bench, node: int, change: Callable[[Message], Message]) -> None:
    """Change what one node sends."""
    session.tap.up = lambda replies: [change(r) if r.metadata.src_node_id == node else r for r in replies]


# -- nodes that forgot -----------------------------------------------------------------------------------------------


def test_a_node_that_was_restarted_misses_one_exchange_and_gets_a_whole_model_with_the_next() -> None:
    with bench(Compressed(stc(0.5), down=TopK(0.5))) as session:
        session.train()
        session.forget(1002)
        done = session.train()
        assert (sorted(done.weights), done.failed) == ([1000, 1001, 1003, 1004], 1)
        assert [(event.what, event.node) for event in session.events] == [("node-lost", "1002")]
        assert session.grid.metrics()["refused_replies"] == 1
        done = session.train()
        assert (len(done.weights), done.failed) == (5, 0)
        assert session.grid.metrics()["plain_sent"] == 1
        session.train()
        assert session.grid.metrics()["plain_sent"] == 0


def test_a_node_that_holds_another_servers_model_finds_it_out() -> None:
    layer = Compressed(Block(8), down=Block(8))
    with bench(layer) as session:
        session.train()
        one, session.grid = session.grid, LayeredGrid(session.tap, [layer])
        start, session.model = session.model, record_of({name: a.numpy() + 9 for name, a in initial_model().items()})
        session.train()  # with another server, which counts its versions in the same way
        session.grid, session.model = one, start
        session.number = 1
        with pytest.raises(RoundFailed, match="could not go on"):
            session.train()
        assert {event.what for event in session.grid.events()} == {"node-lost"}
        assert len(session.train().weights) == 5


def test_a_node_that_fails_in_between_goes_on_from_what_it_held() -> None:
    with bench(Compressed(stc(0.5), down=TopK(0.5))) as session:
        session.train()
        fails = session.local.context_of(1001).node_config
        keep = fails.pop("partition-id")
        session.train()
        fails["partition-id"] = keep
        done = session.train()
        assert len(done.weights) == 5
        assert session.grid.metrics()["total_refused_replies"] == 0


# -- replies that did not arrive -------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", [None, Block(8)], ids=["plain down", "coded down"])
@pytest.mark.parametrize("evaluates", [False, True])
def test_what_a_lost_reply_carried_is_sent_again(down: Codec | None, evaluates: bool) -> None:
    """All that error feedback was given, but for what is still in its memory, arrives, whatever is lost."""

    def arrived(lost: set[int], rounds: int) -> tuple[np.ndarray, np.ndarray]:
        total = np.zeros(SIZE)
        with bench(
            Compressed(ErrorFeedback(TopK(0.25, values=Identity())), down=down),
            app=lambda: coded_app(constant_app()),
            model=zeros,
            nodes=1,
        ) as session:
            for number in range(1, rounds + 1):
                session.tap.up = lambda replies, n=number: [] if n in lost else replies  # type: ignore[misc]
                base = session.model["w"].numpy()
                try:
                    session.train()
                    total += session.model["w"].numpy() - base
                except RoundFailed:
                    assert number in lost
                session.tap.up = lambda replies: replies
                if evaluates:
                    session.evaluate()
            memory = session.memory(1000)["up"]["vector"]["memory"]
        return total, memory

    wanted = 6 * np.arange(1, SIZE + 1)
    for lost in (set(), {2}, {2, 3}, {1, 4}, {6}):
        total, memory = arrived(lost, 6)
        if 6 in lost:  # the node has not been told yet
            continue
        np.testing.assert_allclose(total + memory, wanted, rtol=0.05, atol=1.0)


def test_a_reply_that_comes_after_it_was_given_up_is_not_taken_twice() -> None:
    late: list[Message] = []
    with bench(Compressed(stc(0.5)), nodes=2) as session:
        session.train()
        session.tap.up = lambda replies: [r for r in replies if r.metadata.src_node_id == 1000 or late.append(r)]  # type: ignore[func-returns-value]
        session.train()
        session.tap.up = lambda replies: replies + late
        done = session.train()
        assert done.weights.keys() == {1000, 1001}
        assert [event.what for event in session.events] == ["reply-refused"]
        assert "after it was given up" in session.events[0].text


def test_a_late_reply_of_a_codec_without_memory_is_added_to_the_model_it_was_trained_from() -> None:
    held: list[Message] = []
    with bench(Compressed(Block(8), keep=2), app=lambda: coded_app(constant_app()), model=zeros, nodes=2) as session:
        session.tap.up = lambda replies: [r for r in replies if r.metadata.src_node_id == 1000 or held.append(r)]  # type: ignore[func-returns-value]
        session.train()
        session.tap.up = lambda replies: replies
        session.train()
        (reply,) = session.grid.incoming(held)
        after = reply.content.array_records["arrays"]["w"].numpy()
        np.testing.assert_allclose(after, np.arange(1, SIZE + 1), atol=2.0)


def test_a_reply_against_a_version_that_is_not_kept_any_more_is_refused() -> None:
    held: list[Message] = []
    with bench(Compressed(Block(8), keep=1), nodes=2) as session:
        session.tap.up = lambda replies: [r for r in replies if r.metadata.src_node_id == 1000 or held.append(r)]  # type: ignore[func-returns-value]
        session.train()
        session.tap.up = lambda replies: replies
        session.train()
        session.train()
        (reply,) = session.grid.incoming(held)
        assert reply.has_error()
        assert "against version 1; kept are 2, 3" in str(reply.error.reason)


# -- nodes that lie --------------------------------------------------------------------------------------------------

LIES: dict[str, tuple[Callable[[Envelope], Envelope], str]] = {
    "codec": (lambda e: replace(e, codec=e.codec ^ 1), "another codec"),
    "round": (lambda e: replace(e, round=99), "of round 99"),
    "round 0": (lambda e: replace(e, round=0), "of round 0"),
    "version": (lambda e: replace(e, version=77), "against version 77"),
    "digest": (lambda e: replace(e, digest=e.digest ^ 1), "against version 1"),
    "epoch": (lambda e: replace(e, epoch=5), "another codebook"),
    "aggregates": (lambda e: replace(e, aggregates=3), "public aggregates"),
    "kind": (lambda e: replace(e, kind=Kind.STREAMS), "no node sends"),
    "whole": (lambda e: replace(e, kind=Kind.WHOLE), "whole model where an update"),
    "beside": (lambda e: replace(e, kind=Kind.BESIDE), "beside it"),
    "payload": (lambda e: replace(e, payload=e.payload[:-1]), ""),
    "more": (lambda e: replace(e, payload=e.payload + b"x"), ""),
}


@pytest.mark.parametrize("lie", sorted(LIES))
def test_what_a_node_says_of_itself_is_checked_and_it_gets_a_plain_model_next(lie: str) -> None:
    change, words = LIES[lie]
    with bench(Compressed(Block(8), down=Block(8))) as session:
        from_node(
            session,
            1003,
            lambda reply: altered(reply, lambda raw: change(Envelope.from_bytes(raw, sender="it")).to_bytes()),
        )
        done = session.train()
        assert (len(done.weights), done.failed) == (4, 1)
        (event,) = session.events
        assert (event.what, event.node) == ("reply-refused", "1003")
        assert words in event.text
        session.tap.up = lambda replies: replies
        assert len(session.train().weights) == 5
        assert session.grid.metrics()["plain_sent"] == 1


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=5), st.booleans())
def test_altered_replies_are_decoded_or_refused_and_never_stop_the_round(
    places: list[tuple[int, int]], signed: bool
) -> None:
    def change(raw: bytes) -> bytes:
        data = bytearray(raw)
        for place, value in places:
            data[place % len(data)] = value
        if not signed:
            return bytes(data)
        try:
            return Envelope(
                Kind.UPDATE,
                bytes(data[36:]),
                *np.frombuffer(bytes(data[12:24]), "<u4").tolist(),
                1,
                Envelope.from_bytes(raw, sender="it").digest,
            ).to_bytes()
        except ValueError:
            return bytes(data)

    with bench(Compressed(stc(0.5))) as session:
        from_node(session, 1001, lambda reply: altered(reply, change))
        assert len(session.train().weights) >= 4


def test_a_node_cannot_say_that_its_reply_stands_for_others() -> None:
    def lying(reply: Message) -> Message:
        record = ConfigRecord({"nodes": [1, 2, 3], "weights": [1e9, 1e9, 1e9]})
        reply.content = RecordDict({**reply.content, FOLDED_RECORD: record})
        return reply

    with bench(Compressed(Block(8))) as session:
        from_node(session, 1001, lying)
        assert sorted(session.train().weights) == [1000, 1001, 1002, 1003, 1004]


def test_a_blob_of_another_type_is_refused() -> None:
    def wrong(reply: Message) -> Message:
        reply.content = replaced(reply.content, "arrays", ConfigRecord({BLOB_KEY: "text"}))
        return reply

    with bench(Compressed(Block(8))) as session:
        from_node(session, 1001, wrong)
        session.train()
        assert "sent str" in session.events[0].text
        from_node(session, 1001, lambda reply: altered(reply, lambda raw: b""))
        session.train()
        assert "no envelope" in session.events[1].text
