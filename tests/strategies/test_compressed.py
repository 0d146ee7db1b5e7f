"""`Compressed` around Flower's strategies: exact where it promises that, close where not, loud where it cannot work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from coded import Bench, bench, blobs, coded_app, distance, run
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from laws.layer_laws import LayerLaws
from toy import flower_strategies, initial_model, same_model, toy_app

from flower_edge.codecs.block import Block
from flower_edge.codecs.codec import Codec
from flower_edge.codecs.delta import Delta
from flower_edge.codecs.error_feedback import stc
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.top_k import TopK
from flower_edge.errors import CodecError, ConfigError, NestingError, RoundFailed
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.strategies import Gossip, Layer, Layered, LayeredGrid, Metered
from flower_edge.strategies.compression import Compressed
from flower_edge.wire import payload_bits, record_of, wire_bits

CASES = flower_strategies(6)
BIG = 20_000


class TestExactUp(LayerLaws):
    app: ClassVar[Callable[[], ClientApp]] = staticmethod(coded_app)

    def make(self) -> Layer[Any]:
        return Compressed(Identity())


class TestBothWays(LayerLaws):
    app: ClassVar[Callable[[], ClientApp]] = staticmethod(coded_app)

    def make(self) -> Layer[Any]:
        return Compressed(stc(0.5), down=TopK(0.5), first=Half())


def big_model() -> ArrayRecord:
    return record_of({"w": np.zeros(BIG, np.float32), "n": np.array(3, np.int64)})


def big_app() -> ClientApp:
    """Moves every number a little, another way in each round."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        record = message.content.array_records["arrays"]
        number = int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
        rng = np.random.default_rng([int(context.node_config["partition-id"]), number])
        moved = record["w"].numpy() + rng.normal(size=BIG).astype(np.float32)
        arrays = record_of({"w": moved, "n": record["n"].numpy() + 1})
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 5})}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        mean = float(message.content.array_records["arrays"]["w"].numpy().mean())
        return Message(RecordDict({"m": MetricRecord({"num-examples": 5, "mean": mean})}), reply_to=message)

    return app


# -- exact -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", [None, Identity()], ids=["plain down", "blobs both ways"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_identity_codec_leaves_every_flower_strategy_bit_for_bit_alone(name: str, down: Codec | None) -> None:
    strategy, app, model = CASES[name]
    alone = run(strategy=strategy, app=app, model=model, nodes=6)
    coded = run(Compressed(Identity(), down=down), strategy=strategy, app=lambda: coded_app(app), model=model, nodes=6)
    assert alone.arrays, "the strategy made no model, so the comparison would say nothing"
    assert same_model(alone.arrays, coded.arrays)
    assert alone.train_metrics_clientapp == coded.train_metrics_clientapp
    assert alone.evaluate_metrics_clientapp == coded.evaluate_metrics_clientapp


def test_with_the_identity_models_travel_as_one_blob_up_and_down() -> None:
    with bench(Compressed(Identity(), down=Identity())) as session:
        session.train()
        for messages in (session.tap.sent, session.tap.came):
            assert len(blobs(messages)) == len(messages) == 5
            assert not any(message.content.array_records for message in messages)


def test_an_exact_reply_in_another_dtype_or_order_reaches_the_strategy_as_it_is() -> None:
    def widened() -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            arrays = {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}
            wide = {name: Array(arrays[name].astype(np.float64)) for name in reversed(list(arrays))}
            metrics = MetricRecord({"num-examples": 1})
            return Message(RecordDict({"arrays": ArrayRecord(wide), "metrics": metrics}), reply_to=message)

        return app

    with bench(Compressed(Identity()), app=lambda: coded_app(widened)) as session:
        session.train()
    assert list(session.model) == ["bias", "weight"]
    assert {array.dtype for array in session.model.values()} == {"float64"}
    assert session.grid.metrics()["refused_replies"] == 0


# -- lossy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        Compressed(Block(8)),
        Compressed(Block(8), down=Block(8)),
        Compressed(stc(0.9), down=TopK(0.9), first=Half()),
        Compressed(Block(4), down=Delta(Block(4), step=0.9)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["FedAvg", "FedAdam", "FedAvgM", "Krum", "FedTrimmedAvg", "FedMedian"])
def test_every_kind_of_strategy_learns_with_a_lossy_codec(name: str, layer: Compressed) -> None:
    strategy, app, model = CASES[name]
    alone = run(strategy=strategy, app=app, model=model, nodes=6, rounds=8)
    coded = run(layer, strategy=strategy, app=lambda: coded_app(app), model=model, nodes=6, rounds=8)
    assert distance(coded.arrays, alone.arrays) < 0.5 * distance(alone.arrays, model())


def test_the_strategy_and_the_train_function_see_ordinary_models() -> None:
    seen: list[ArrayRecord] = []

    def looking() -> ClientApp:
        inner, app = big_app(), ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            seen.append(message.content.array_records["arrays"])
            assert list(message.content) == ["arrays", "config"]
            return inner(message, context)

        return app

    with bench(Compressed(Block(8), down=Block(8)), app=lambda: coded_app(looking), model=big_model) as session:
        session.train()
        session.train()
        replies = session.tap.came
    assert all(list(record) == ["w", "n"] for record in seen)
    assert {record["n"].dtype for record in seen} == {"int64"}
    assert len(seen) == 10
    # What is no float is as it was trained: 3 + 1 + 1.
    assert session.model["n"].numpy() == 5
    assert session.model["n"].dtype == "float64", "Flower's mean of a count; nodes get counts all the same"
    assert session.model["w"].dtype == "float32"
    assert len(replies) == 5


def test_messages_the_layer_knows_nothing_of_pass_both_halves() -> None:
    def answering() -> ClientApp:
        app = ClientApp(mods=coded_app()._mods)

        @app.query()
        def query(message: Message, context: Context) -> Message:
            return Message(RecordDict({"answer": ConfigRecord({"is": 42})}), reply_to=message)

        return app

    with bench(Compressed(Block(8), down=Block(8)), app=answering) as session:
        messages = [Message(RecordDict({"q": ConfigRecord({"what": 1})}), 1000, "query")]
        (reply,) = session.grid.send_and_receive(messages)
    assert reply.content.config_records["answer"]["is"] == 42


# -- what travels ----------------------------------------------------------------------------------------------------


def test_flowers_own_bytes_around_a_blob_are_at_most_700_both_ways() -> None:
    with bench(Compressed(stc(0.01), down=TopK(0.01)), app=lambda: coded_app(big_app), model=big_model) as session:
        for _ in range(3):
            session.train()
        for messages in (session.tap.sent, session.tap.came):
            (blob, *_), message = blobs(messages), messages[0]
            assert len(blob) < 1000
            assert wire_bits(message) / 8 - len(blob) <= 700


def test_a_large_blob_travels_as_a_packet_and_a_small_one_in_a_config() -> None:
    def model() -> ArrayRecord:
        return record_of({"w": np.zeros(200_000, np.float32)})

    def app() -> ClientApp:
        app = ClientApp()
        app.train()(
            lambda message, context: Message(
                RecordDict({"arrays": message.content["arrays"], "m": MetricRecord({"num-examples": 1})}),
                reply_to=message,
            )
        )
        return app

    with bench(Compressed(Identity(), down=Identity()), app=lambda: coded_app(app), model=model, nodes=1) as session:
        session.train()
        assert [list(message.content.array_records) for message in session.tap.sent] == [["arrays"]]
        session.train()  # the same model again: the node holds it
        assert [list(message.content.array_records) for message in session.tap.sent] == [[]]
        assert payload_bits(session.tap.sent[0].content) / 8 < 100


def test_bits_are_those_of_the_blobs_and_ratios_are_against_float32() -> None:
    layer = Compressed(Block(8), down=Block(8), first=Half())
    with bench(layer, app=lambda: coded_app(big_app), model=big_model) as session:
        up = down = 0
        for number in range(3):
            session.train()
            now_down, now_up = (sum(map(len, blobs(m))) for m in (session.tap.sent, session.tap.came))
            up, down = up + now_up, down + now_down
            metrics = session.grid.metrics()
            whole = 5 * (4 * BIG + 8)
            assert metrics["coded_up_bits"] == 8 * now_up
            assert metrics["coded_down_bits"] == 8 * now_down
            assert metrics["up_ratio"] == pytest.approx(whole / now_up)
            assert metrics["down_ratio"] == pytest.approx(whole / now_down)
            assert metrics["round_trip_ratio"] == pytest.approx(2 * whole / (now_up + now_down))
            assert metrics["total_round_trip_ratio"] == pytest.approx(2 * (number + 1) * whole / (up + down))
            assert metrics["plain_sent"] == (5 if number == 0 else 0)
        assert metrics["up_ratio"] > 3.5 < metrics["down_ratio"]


def test_a_plain_model_down_is_never_hidden() -> None:
    with bench(Compressed(stc(0.01)), app=lambda: coded_app(big_app), model=big_model) as session:
        session.train()
        session.train()
        metrics = session.grid.metrics()
    assert metrics["up_ratio"] > 200
    assert metrics["down_ratio"] == pytest.approx(1.0, abs=0.01)
    assert metrics["round_trip_ratio"] < 2
    assert metrics["plain_sent"] == 5


def test_an_evaluation_of_a_version_that_nodes_hold_sends_no_model_and_counts_none() -> None:
    with bench(Compressed(Block(8), down=Block(8)), app=lambda: coded_app(big_app), model=big_model) as session:
        session.train()
        session.evaluate()
        once = session.grid.metrics()
        session.evaluate()
        assert all(len(blob) == 36 for blob in session.tap.blobs())
        twice = session.grid.metrics()
        assert twice["coded_down_bits"] - once["coded_down_bits"] == 5 * 36 * 8
        assert twice["down_ratio"] < once["down_ratio"]
        session.train()
        assert all(len(blob) == 36 for blob in session.tap.blobs())


def test_metered_counts_what_the_layer_made_of_the_models() -> None:
    with LocalGrid(coded_app(big_app), 2) as local:
        grid = LayeredGrid(local, [Compressed(Block(8), down=Block(8), first=Half()), Metered()])
        session = Bench(Compressed(Block(8)), local, big_model())
        session.grid = grid
        session.train()
    assert grid.metrics()["up_bits"] < 2 * 8 * (1.1 * BIG + 200)
    assert grid.metrics()["down_bits"] < 2 * 8 * (2 * BIG + 1000)


# -- what is refused -------------------------------------------------------------------------------------------------


def test_a_plain_reply_is_refused_with_the_mod_to_add() -> None:
    with pytest.raises(RoundFailed, match=r"plain arrays \(weight, bias\).*ClientApp\(mods=\[codec_mod\]\)"):
        run(Compressed(Block(8)), app=toy_app)


def test_a_client_without_the_mod_is_told_of_where_it_cannot_read_the_model() -> None:
    with bench(Compressed(Block(8), down=Block(8)), app=toy_app) as session:
        with pytest.raises(RoundFailed):
            session.train()
        events = session.grid.events()
    assert {event.what for event in events} == {"codec-unread"}
    assert "mods=[codec_mod]" in events[0].text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Compressed(Delta(Block(8))), "expected a codec of updates"),
        (lambda: Compressed("stc-1"), "expected a codec of updates"),  # type: ignore[arg-type]
        (lambda: Compressed(Block(8), keep=0), "keep = 0"),
        (lambda: Compressed(Block(8), public=-1), "public = -1"),
        (lambda: Compressed(Identity(), fold=True), "leave fold out"),
        (lambda: Compressed(Block(8), down="fp16"), "down = 'fp16'"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_travel_is_refused_when_it_is_written(make: Callable[[], Compressed], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_strategies_that_code_by_themselves_and_grids_that_slice_are_refused() -> None:
    with pytest.raises(NestingError, match=r"Gossip\(codec=\.\.\.\)"):
        Layered(Gossip(), Compressed(Block(8)))
    with LocalGrid(coded_app(), 2) as grid, pytest.raises(NestingError, match="SteppedGrid"):
        Layered(FedAvg(), Compressed(Block(8))).start(SteppedGrid(grid, 2), initial_model())


def test_error_feedback_around_the_downlink_is_left_away_for_the_replica_does_it() -> None:
    one, other = Compressed(Block(8), down=stc(0.5)), Compressed(Block(8), down=stc(0.5).inner)
    assert same_model(run(one).arrays, run(other).arrays)


def test_a_model_that_diverged_is_refused_by_name_at_the_node() -> None:
    def diverged() -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            record = message.content.array_records["arrays"]
            arrays = {name: array.numpy() * np.float32(np.nan) for name, array in record.items()}
            metrics = MetricRecord({"num-examples": 1})
            return Message(RecordDict({"arrays": record_of(arrays), "metrics": metrics}), reply_to=message)

        return app

    with pytest.raises(RoundFailed, match="'weight' holds nan"):
        run(Compressed(Block(8)), app=lambda: coded_app(diverged))


def test_a_dtype_that_no_codec_carries_is_refused_by_name() -> None:
    def model() -> ArrayRecord:
        return ArrayRecord({"w": Array(np.array([1 + 2j, 3], np.complex256))})

    with pytest.raises((CodecError, RoundFailed), match="'w'"):
        run(Compressed(Block(8), down=Block(8)), model=model)
