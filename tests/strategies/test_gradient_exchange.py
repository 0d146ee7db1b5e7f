"""Gradient exchange through real ClientApps: it is SGD on one machine, all models stay equal, and bits are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import FedAvg, Strategy
from gradient_toy import DIMENSION, Seen, flat, make_app, single_machine, start
from toy import toy_app

from flower_edge.clients.gradients import gradient_mod
from flower_edge.codecs.block import Block
from flower_edge.codecs.error_feedback import ErrorFeedback, stc
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.random_k import RandomK
from flower_edge.codecs.shared_support import SharedSupport
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.top_k import TopK
from flower_edge.errors import ConfigError, NobodyContributed, ProtocolError, ResumeError
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.gradient_messages import PACKET_RECORD, bytes_in
from flower_edge.store import RunFolder
from flower_edge.store.tree import tree_from_bytes, tree_to_bytes
from flower_edge.strategies import Hierarchical, Layered, Metered, blocks
from flower_edge.strategies.gradients.exchange import GradientExchange
from flower_edge.wire import arrays_of, record_of, wire_bits

NODES = 4
FORMS: list[dict[str, Any]] = [
    {"form": "server"},
    {"form": "ring"},
    {"form": "ring", "mailbox": "shared-memory"},
]
TWO_FORMS = FORMS[:2]


def rate(version: int) -> float:
    return 0.05 / (1 + 0.1 * version)


def run(app: ClientApp | None = None, *, rounds: int = 3, nodes: int = NODES, dtype: Any = np.float64, **options: Any):
    strategy = GradientExchange(**{"learning_rate": rate, "steps_per_round": 4, **options})
    with LocalGrid(app or make_app(), nodes) as grid:
        return strategy.start(grid, start(dtype), num_rounds=rounds)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
@pytest.mark.parametrize(
    "update",
    [{}, {"momentum": 0.9, "weight_decay": 0.01}, {"momentum": 0.8, "nesterov": True}],
    ids=["plain", "momentum", "nesterov"],
)
def test_with_the_identity_codec_it_is_sgd_on_one_machine(form: dict[str, Any], update: dict[str, Any]) -> None:
    result = run(**form, **update)
    np.testing.assert_allclose(flat(result.arrays), single_machine(12, NODES, rate, **update), rtol=1e-12, atol=1e-13)


def test_with_float32_it_is_sgd_on_one_machine_to_rounding() -> None:
    result = run(momentum=0.9, dtype=np.float32)
    np.testing.assert_allclose(
        flat(result.arrays), single_machine(12, NODES, rate, momentum=0.9, dtype=np.float32), rtol=1e-4, atol=1e-6
    )


CODECS = [Identity(), Block(8, 16), ErrorFeedback(Sign()), stc(0.1), ErrorFeedback(SharedSupport(0.2, 0.1, turn=NODES))]


@pytest.mark.parametrize("form", TWO_FORMS, ids=["server", "ring"])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: f"{codec.kind}-{getattr(codec, 'inner', codec).kind}")
def test_all_models_are_equal_bit_for_bit_in_every_step(form: dict[str, Any], codec: Any) -> None:
    seen = Seen()
    down = {"down": ErrorFeedback(Block(4, 16))} if form["form"] == "server" else {}
    result = run(make_app(seen=seen), codec=codec, dtype=np.float32, momentum=0.5, **form, **down)
    assert {step: len(models) for step, models in seen.models.items()} == dict.fromkeys(range(12), NODES)
    assert seen.apart() == []
    assert np.isfinite(flat(result.arrays)).all()


@pytest.mark.parametrize("codec", [Identity(), stc(0.1)], ids=["identity", "stc"])
def test_the_ring_makes_the_same_model_as_the_server(codec: Any) -> None:
    ways = [flat(run(codec=codec, momentum=0.9, dtype=np.float32, **form).arrays) for form in FORMS]
    np.testing.assert_array_equal(ways[0], ways[1])
    np.testing.assert_array_equal(ways[0], ways[2])


@pytest.mark.parametrize("codec", [RandomK(0.5), ErrorFeedback(TopK(0.1), reset_after=1)], ids=lambda codec: codec.kind)
def test_codecs_count_gradients_alike_in_both_forms_over_the_end_of_a_round(codec: Any) -> None:
    small: dict[str, Any] = {"codec": codec, "dtype": np.float32, "rounds": 2, "nodes": 3, "steps_per_round": 2}
    server, ring = (flat(run(**small, **form).arrays) for form in TWO_FORMS)
    np.testing.assert_array_equal(server, ring)


def test_a_coded_exchange_learns_what_a_dense_one_learns() -> None:
    dense, coded = run(rounds=15), run(rounds=15, codec=stc(0.25), down=ErrorFeedback(Block(4, 16)), dtype=np.float32)
    first = dense.train_metrics_clientapp[1]["loss"]
    assert coded.train_metrics_clientapp[15]["loss"] < 0.2 * first
    assert dense.train_metrics_clientapp[15]["loss"] < 0.2 * first


def test_what_is_not_trained_stays_as_it_was() -> None:
    result = run(frozen=["bi*"], weight_decay=0.1)
    arrays = arrays_of(result.arrays)
    assert arrays["count"] == 3
    assert arrays["bias"] == 0.0
    assert (arrays["weight"] != arrays_of(start())["weight"]).all()


def test_one_node_alone_is_a_ring() -> None:
    np.testing.assert_array_equal(flat(run(nodes=1, form="ring").arrays), flat(run(nodes=1).arrays))


# -- what it costs ---------------------------------------------------------------------------------------------------


def test_bits_are_those_of_the_packets_that_travelled() -> None:
    sent: list[int] = []

    def weigh(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        packet = bytes_in(reply.content, PACKET_RECORD, sender="it")
        sent.extend([] if packet is None else [8 * len(packet)])
        return reply

    metrics = run(make_app([weigh]), codec=stc(0.1), dtype=np.float32, rounds=1).train_metrics_clientapp[1]
    dense_bits = 32 * (DIMENSION + 1)
    assert metrics["up_bits"] == sum(sent)
    assert metrics["up_ratio"] == pytest.approx(16 * dense_bits / sum(sent))
    assert metrics["down_bits"] > 16 * dense_bits  # float32 comes down, and is not hidden
    assert metrics["round_trip_ratio"] < 2


def test_a_ring_counts_every_hop() -> None:
    metrics = run(dtype=np.float32, form="ring", rounds=2).train_metrics_clientapp[2]
    payload_bits = 8 * 4 * (DIMENSION + 1)
    headers_bits = 8 * (36 + 36 + 12)
    assert metrics["peer_bits"] == 4 * NODES * (NODES - 1) * (payload_bits + headers_bits)
    assert metrics["peer_dense_bits"] == 4 * NODES * (NODES - 1) * payload_bits


def test_flower_adds_at_most_700_bytes_to_a_message() -> None:
    framing: list[float] = []

    def weigh(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if message.metadata.message_type != "train":
            return call_next(message, context)
        if "arrays" not in message.content:
            framing.append(wire_bits(message) / 8 - len(bytes_in(message.content, PACKET_RECORD, sender="it") or b""))
        reply = call_next(message, context)
        framing.append(wire_bits(reply) / 8 - len(bytes_in(reply.content, PACKET_RECORD, sender="it") or b""))
        return reply

    run(make_app([weigh]), codec=stc(0.1), dtype=np.float32, rounds=1)
    assert len(framing) == NODES * (4 + 3)
    assert max(framing) <= 700


# -- around it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form.values()))
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, form: dict[str, Any]) -> None:
    options: dict[str, Any] = {"codec": stc(0.1), "learning_rate": rate, "momentum": 0.9, "steps_per_round": 3, **form}
    with LocalGrid(make_app(), NODES) as grid:
        whole = GradientExchange(**options).start(grid, start(np.float32), num_rounds=4)
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        with LocalGrid(make_app(), NODES) as grid:
            GradientExchange(**options).start(grid, start(np.float32), num_rounds=2, run=folder)
        with LocalGrid(make_app(), NODES) as grid:
            again = GradientExchange(**options).start(grid, start(np.float32), 4, run=folder, resume=True)
        other = GradientExchange(**{**options, "codec": Identity()})
        with LocalGrid(make_app(), NODES) as grid, pytest.raises(ResumeError, match="codec"):
            other.start(grid, start(np.float32), 5, run=folder, resume=True)
    np.testing.assert_array_equal(flat(again.arrays), flat(whole.arrays))
    for number, found in whole.train_metrics_clientapp.items():
        assert dict(again.train_metrics_clientapp[number]) == dict(found)


@pytest.mark.parametrize("form", TWO_FORMS, ids=["server", "ring"])
def test_nodes_that_are_ahead_of_a_resumed_server_get_its_model_after_one_step(form: dict[str, Any]) -> None:
    options: dict[str, Any] = {"learning_rate": rate, "steps_per_round": 3, "momentum": 0.5, **form}
    strategy, resumed = GradientExchange(**options), GradientExchange(**options)
    with LocalGrid(make_app(), NODES) as grid:
        first = Strategy.start(strategy, grid, start(), num_rounds=1)
        saved = tree_from_bytes(tree_to_bytes(strategy.state_dict()), source="the checkpoint")
        assert first.arrays is not None
        Strategy.start(strategy, grid, first.arrays, num_rounds=1)
        resumed.load_state_dict(saved)
        result = Strategy.start(resumed, grid, first.arrays, num_rounds=2)
    expected = single_machine(3 + 6 - 1, NODES, rate, momentum=0.5)
    np.testing.assert_allclose(flat(result.arrays), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("form", TWO_FORMS, ids=["server", "ring"])
def test_layers_and_flowers_own_loop_run_the_same_steps(form: dict[str, Any]) -> None:
    alone = run(**form)
    with LocalGrid(make_app(), NODES) as grid:
        strategy = GradientExchange(learning_rate=rate, steps_per_round=4, **form)
        layered = Layered(strategy, Metered()).start(grid, start(), num_rounds=3)
        flowers = Strategy.start(GradientExchange(learning_rate=rate, steps_per_round=4, **form), grid, start(), 3)
    np.testing.assert_array_equal(flat(layered.arrays), flat(alone.arrays))
    np.testing.assert_array_equal(flat(flowers.arrays), flat(alone.arrays))


def test_cells_exchange_gradients_and_the_centre_averages_models() -> None:
    hierarchy = Hierarchical(
        edge=lambda cell: GradientExchange(learning_rate=rate, momentum=0.5, steps_per_round=2),
        cells=blocks(2),
        edge_rounds=2,
    )
    with LocalGrid(make_app(), 6) as grid:
        result = hierarchy.start(grid, start(), num_rounds=2)
    assert np.isfinite(flat(result.arrays)).all()
    assert (flat(result.arrays) != flat(start())).all()


def test_evaluation_sees_the_model_of_the_round() -> None:
    result = run(fraction_evaluate=0.5)
    assert result.evaluate_metrics_clientapp[3]["norm"] == pytest.approx(
        np.abs(arrays_of(result.arrays)["weight"]).sum()
    )
    assert run(fraction_evaluate=0.0).evaluate_metrics_clientapp == {}


def test_a_client_without_the_mod_is_told_to_add_it() -> None:
    with LocalGrid(toy_app(), 2) as grid, pytest.raises(NobodyContributed):
        GradientExchange(learning_rate=0.1).start(grid, start(), num_rounds=1)

    def reads_the_model(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        from toy import initial_model

        message.content["arrays"] = initial_model()
        message.content["config"]["server-round"] = 1  # type: ignore[index, call-overload]
        return call_next(message, context)

    with (
        LocalGrid(toy_app([reads_the_model]), 2) as grid,
        pytest.raises(ProtocolError, match="mods=\\[gradient_mod\\]"),
    ):
        GradientExchange(learning_rate=0.1, steps_per_round=2).start(grid, start(), num_rounds=1)


def test_a_gradient_that_lacks_an_array_names_it_and_the_way_out() -> None:
    app = ClientApp(mods=[gradient_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        message.content["arrays"] = record_of({"weight": np.zeros((4, 10))})
        return Message(message.content, reply_to=message)

    with LocalGrid(app, 2) as grid, pytest.raises(NobodyContributed, match=r"frozen=\['bias'\]"):
        GradientExchange(learning_rate=0.1).start(grid, start(), num_rounds=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "star"}, "form = 'star'"),
        ({"momentum": 1.0}, "momentum = 1.0"),
        ({"nesterov": True}, "momentum=0.9"),
        ({"steps_per_round": 0}, "steps_per_round = 0"),
        ({"form": "ring", "down": Identity()}, "down="),
        ({"frozen": "bias"}, r"\['bias'\]"),
        ({"fraction_evaluate": 2.0}, "fraction_evaluate"),
        ({"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GradientExchange(**{"learning_rate": 0.1, **options})


@pytest.mark.parametrize("learning_rate", [-1.0, float("nan"), "fast", lambda version: -1.0])
def test_a_learning_rate_that_cannot_be_is_refused(learning_rate: Any) -> None:
    with LocalGrid(make_app(), 2) as grid, pytest.raises(ConfigError, match="learning_rate"):
        GradientExchange(learning_rate=learning_rate, steps_per_round=2).start(grid, start(), num_rounds=1)


def test_a_model_of_mixed_floats_is_refused_with_what_to_do() -> None:
    mixed = record_of({"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float16)})
    with LocalGrid(make_app(), 2) as grid, pytest.raises(ConfigError, match=r"float16, float32.*frozen"):
        GradientExchange(learning_rate=0.1).start(grid, mixed, num_rounds=1)


def test_a_shared_support_costs_fewer_bytes_than_supports_of_their_own() -> None:
    own = ErrorFeedback(TopK(0.2))
    shared = ErrorFeedback(SharedSupport(0.2, 0.0, turn=NODES))
    costs = [run(codec=codec, dtype=np.float32).train_metrics_clientapp[3]["up_bits"] for codec in (own, shared)]
    assert costs[1] < costs[0]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"form": "ring"}, "form = 'server'"),
        ({"weight_decay": 0.1}, "weight_decay = 0.0"),
        ({"nesterov": True}, "nesterov = False"),
        ({"weighted_by_key": "size"}, "weighted_by = 'num-examples'"),
    ],
    ids=["form", "decay", "nesterov", "weights"],
)
def test_the_strategy_that_is_resumed_must_be_the_same(other: dict[str, Any], words: str) -> None:
    assert not hasattr(FedAvg, "state_dict")  # why GradientExchange brings its own
    told = {"learning_rate": 0.1, "momentum": 0.9}
    state = GradientExchange(**told).state_dict()
    with pytest.raises(ResumeError, match=words):
        GradientExchange(**told, **other).load_state_dict(state)
