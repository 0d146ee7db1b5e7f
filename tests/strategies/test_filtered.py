"""`Filtered` on a small real federation: neutral where it accepts all, each refusal with its reason, rules, memory."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from laws.layer_laws import LayerLaws, NeutralLayerLaws
from toy import flower_strategies, initial_model, same_model, toy_app

from flower_edge.errors import ConfigError, NestingError
from flower_edge.events import Event
from flower_edge.filtering.copies import Copies
from flower_edge.filtering.cosine import Cosine
from flower_edge.filtering.defaults import default_judges
from flower_edge.filtering.held_out import AtLeastReference, WithAndWithout
from flower_edge.filtering.judging import Judgement
from flower_edge.filtering.norm import Norm
from flower_edge.models.results import EvalResult
from flower_edge.rounds import Round
from flower_edge.runtime.edge_messages import EDGE_RECORD
from flower_edge.runtime.error_codes import REFUSED
from flower_edge.runtime.flower_private import error_in_place
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.queries import CONDITIONS_RECORD
from flower_edge.strategies import Hierarchical, Layer, Layered, LayeredGrid, blocks
from flower_edge.strategies.filtering import filtered_state
from flower_edge.strategies.filtering.filtered import Filtered
from flower_edge.strategies.filtering.filtered_state import FilteredState, track_records
from flower_edge.strategies.filtering.robust import MultiKrumTest
from flower_edge.strategies.layers import Stage
from flower_edge.updates.manifest import part_manifest
from flower_edge.wire import arrays_of, packet_record, record_of

NODES = 8
#: Weights of the toy task, and its bias.
RIGHT = {"weight": np.arange(1.0, 7.0), "bias": np.array([0.5])}


def held_out(arrays: Mapping[str, npt.NDArray[Any]]) -> EvalResult:
    """The toy task on samples of nobody's; the accuracy is the share that is right within 2."""
    x = np.random.default_rng(1).normal(size=(60, 6)) + 0.7
    error = x @ (arrays["weight"] - RIGHT["weight"]) + arrays["bias"] - RIGHT["bias"]
    return EvalResult(float(np.mean(error**2)), float(np.mean(np.abs(error) < 2.0)), 60)


def fedavg() -> FedAvg:
    return FedAvg(fraction_evaluate=0.0)


ALL = (Norm(most=1e30, least=0.0), Cosine(least=-1.0), WithAndWithout(held_out, 1e30, 1.0, float("inf")))


class Telling(Filtered):
    """Keeps the events that were taken."""

    told: list[Event]

    def events(self, state: FilteredState) -> tuple[list[Event], FilteredState]:
        events, state = super().events(state)
        self.told = [*getattr(self, "told", []), *events]
        return events, state


class TestFilteredThatAcceptsAll(NeutralLayerLaws):
    def make(self) -> Layer[Any]:
        return Filtered(*ALL, accept="True", own_score="True", seed=1)


class TestFilteredLaws(LayerLaws):
    def make(self) -> Layer[Any]:
        return Filtered(evaluate=held_out, seed=1)


@pytest.mark.parametrize("name", list(flower_strategies()))
def test_a_filter_that_accepts_all_leaves_every_strategy_bit_for_bit_alone(name: str) -> None:
    make, app, model = flower_strategies()[name]
    judges = ALL[:2] if "Xgb" not in name else ALL

    def run(wrap: Callable[[Any], Any]) -> ArrayRecord:
        random.seed(3)
        np.random.seed(3)
        with LocalGrid(app(), 6) as grid:
            return wrap(make()).start(grid, model(), num_rounds=2).arrays

    assert same_model(run(lambda inner: inner), run(lambda inner: Layered(inner, Filtered(*judges, seed=1))))


# -- a federation with attackers -------------------------------------------------------------------------------------


def attacked(bad: Mapping[int, Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]]) -> ClientApp:
    """The toy federation, whose `bad` nodes send what a function makes of what they were given and have trained."""

    def mod(message: Message, context: Context, call_next: Any) -> Message:
        before = arrays_of(message.content["arrays"])  # type: ignore[arg-type]
        reply: Message = call_next(message, context)
        harm = bad.get(int(context.node_config["partition-id"]))
        if harm is not None:
            sent = harm(before, arrays_of(reply.content["arrays"]))  # type: ignore[arg-type]
            reply.content["arrays"] = record_of({name: np.asarray(a, np.float32) for name, a in sent.items()})
        return reply

    return toy_app([mod])


def times(factor: float) -> Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]:
    return lambda before, after: {name: before[name] + factor * (after[name] - before[name]) for name in after}


def constant(value: float) -> Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]:
    return lambda before, after: {name: np.full_like(after[name], value) for name in after}


def towards(place: float) -> Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]:
    """All of them send one vector."""
    return lambda before, after: {name: before[name] + place for name in after}


def start(app: ClientApp, *layers: Layer[Any], rounds: int = 2) -> tuple[float, Any, Layer[Any]]:
    """The loss in the end, the state of the first layer, and that layer."""
    kept: list[LayeredGrid] = []

    class Keeping(FedAvg):
        def configure_train(self, *arguments: Any) -> Any:
            kept.append(arguments[-1])
            return super().configure_train(*arguments)

    with LocalGrid(app, NODES) as grid:
        strategy = Layered(Keeping(fraction_evaluate=0.0), *layers)
        arrays = strategy.start(grid, initial_model(), num_rounds=rounds).arrays
    return held_out(arrays_of(arrays)).loss, kept[0].states[0], layers[0]


@pytest.mark.parametrize(
    ("attack", "code"),
    [(times(20.0), "norm"), (times(0.0), "norm"), (times(-1.0), "cosine"), (constant(np.nan), "not-finite")],
    ids=["scaled", "free-rider", "sign-flip", "nan"],
)
def test_an_attacker_is_refused_with_its_reason_and_the_round_goes_on(attack: Any, code: str) -> None:
    app = attacked({2: attack, 5: attack})
    _, state, layer = start(app, Filtered(evaluate=held_out, seed=1))
    records = track_records(state)
    assert {key for key, record in records.items() if record.refusals} == {"2", "5"}
    assert dict(records["2"].refused) == {code: 2}
    assert layer.metrics(state) == {
        "filter_judged": 8,
        "filter_refused": 2,
        "filter_evaluations": layer.metrics(state)["filter_evaluations"],
        "filter_refused_total": 4,
    }


def test_colluders_are_heard_once() -> None:
    app = attacked(dict.fromkeys((0, 3, 6), towards(-0.05)))
    _, state, _ = start(app, Filtered(seed=1), rounds=1)
    assert state.counts["copied"] + state.counts.get("cosine", 0) >= 2
    assert not any(track_records(state)[key].refusals for key in "12457")


def test_a_copy_harms_nobodys_record() -> None:
    # Which of them was copied cannot be told.
    _, state, _ = start(attacked(dict.fromkeys((0, 3, 6), towards(0.2))), Filtered(Copies(), seed=1), rounds=3)
    assert state.counts == {"copied": 6}
    assert not any(record.refusals for record in track_records(state).values())


def test_a_node_that_sends_the_models_last_step_once_more_is_refused() -> None:
    seen: list[dict[str, Any]] = []

    def echo(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
        seen.append(before)
        last = seen[-2] if len(seen) > 1 else {name: 2 * before[name] - after[name] for name in after}
        return {name: 2 * before[name] - last[name] for name in before}

    _, state, _ = start(attacked({3: echo}), Filtered(Copies(), seed=1), rounds=4)
    assert state.counts == {"replayed": 3}
    assert dict(track_records(state)["3"].refused) == {"replayed": 3}


def test_with_the_filter_the_model_learns_as_if_the_attackers_were_not_there() -> None:
    app = attacked({1: times(-8.0), 4: times(-8.0), 6: times(-8.0)})
    alone, _, _ = start(app, Filtered(None), rounds=4)
    filtered, _, _ = start(app, Filtered(evaluate=held_out, seed=1), rounds=4)
    clean, _, _ = start(toy_app(), Filtered(None), rounds=4)
    assert filtered < 1.15 * clean < 0.5 * alone


def test_the_operator_reads_who_was_refused_and_why() -> None:
    layer = Telling(seed=1)
    start(attacked({2: times(20.0)}), layer, rounds=1)
    (event,) = layer.told
    assert (event.what, event.node, event.values["code"]) == ("refused", "2", "norm")
    assert "times as far as the median of the others; at most 5" in event.text
    assert float(event.values["norm"]) > 5.0


def test_a_refused_reply_is_an_error_in_its_place_and_the_others_are_the_objects_that_came() -> None:
    with LocalGrid(attacked({2: times(20.0)}), NODES) as grid:
        layer = Filtered(seed=1)
        state = layer.opened(layer.init(), grid)
        content = RecordDict({"arrays": initial_model(), "config": ConfigRecord({"server-round": 1})})
        messages = [Message(content, node, "train") for node in grid.get_node_ids()]
        messages, state = layer.outbound(state, Round(1), messages)
        came = list(grid.send_and_receive(messages))
        went, state = layer.inbound(state, Round(1), came)
    assert [one is other for one, other in zip(came, went, strict=True)] == [i != 2 for i in range(NODES)]
    assert went[2].error.code == REFUSED
    assert (went[2].error.reason or "").startswith("refused (norm): moved ")
    assert went[2].metadata.reply_to_message_id == came[2].metadata.reply_to_message_id
    assert came[2].has_content()


def test_a_reply_that_moved_too_far_is_shortened_where_that_is_asked_for() -> None:
    plain, _, _ = start(toy_app(), Filtered(None), rounds=1)
    harmed, _, _ = start(attacked({2: times(-40.0)}), Filtered(None), rounds=1)
    clipped, state, _ = start(attacked({2: times(-40.0)}), Filtered(Norm(then="clip")), rounds=1)
    assert state.counts == {}
    assert plain < clipped < 0.5 * harmed


def test_what_the_gate_refused_is_held_against_the_node_too() -> None:
    class Gate(Layer[None]):
        stage = Stage.ADMIT

        def inbound(self, state: None, round: Round, replies: list[Message]) -> tuple[list[Message], None]:
            first, text = LocalGrid.FIRST_NODE_ID, "refused (shape): another shape"
            return [
                error_in_place(reply, REFUSED, text) if reply.metadata.src_node_id == first else reply
                for reply in replies
            ], None

    _, state, _ = start(toy_app(), Filtered(seed=1), Gate())
    assert dict(track_records(state)["0"].refused) == {"shape": 2}
    assert state.counts == {}


# -- rules -----------------------------------------------------------------------------------------------------------

KNOWN: dict[str, dict[str, Any]] = {
    str(i): {
        "location": "north" if i < 5 else "south",
        "terminal_type": "gateway" if i % 2 else "phone",
        "memory_total_bytes": 1e9 * (1 + i),
        "data_age_s": 600.0 * i,
        "app_type": "camera" if i != 3 else "game",
        "app_valid": i != 4,
    }
    for i in range(NODES)
}
CRITERIA = {
    "reliability >= 0.5": set(range(8)),
    "location == 'north'": {0, 1, 2, 3, 4},
    "terminal_type in ('phone',)": {0, 2, 4, 6},
    "memory_total_bytes >= 4e9": {3, 4, 5, 6, 7},
    "num_examples >= 30": {4, 5, 6, 7},
    "data_age_s < 1800": {0, 1, 2},
    "app_type == 'camera' and app_valid": {0, 1, 2, 5, 6, 7},
}


@pytest.mark.parametrize("rule", CRITERIA)
def test_every_criterion_of_the_seed_decides_after_the_reply(rule: str) -> None:
    layer = Telling(None, accept=rule, known=KNOWN.__getitem__)
    _, state, _ = start(toy_app(), layer, rounds=1)
    passed = {int(key) for key, record in track_records(state).items() if record.admitted}
    # 20 + 3 i examples, as the reply says.
    assert passed == CRITERIA[rule]
    assert state.counts.get("criteria", 0) == NODES - len(passed)
    assert all("; expected " in event.text for event in layer.told)


@pytest.mark.parametrize("rule", [rule for rule in CRITERIA if "num_examples" not in rule])
def test_every_criterion_of_the_seed_decides_who_is_asked(rule: str) -> None:
    layer = Filtered(None, collect=rule, known=KNOWN.__getitem__)
    assert layer.narrows
    _, state, _ = start(toy_app(), layer, rounds=1)
    assert {int(key) for key in track_records(state)} == CRITERIA[rule]
    assert state.counts == {}


def test_a_filter_without_collect_has_no_say_in_who_is_asked() -> None:
    assert not Filtered(accept="battery >= 0.3").narrows
    strategy = Layered(Hierarchical(edge=lambda cell: fedavg(), cells=blocks(2)), Filtered(accept="True"))
    with LocalGrid(toy_app(), NODES) as grid:
        strategy.start(grid, initial_model(), num_rounds=1)


def test_a_terminals_own_evaluation_is_a_rule_over_its_reply() -> None:
    _, state, _ = start(toy_app(), Filtered(None, own_score="reply_train_loss < 1000"), rounds=1)
    assert state.counts == {}
    layer = Telling(None, own_score="reply_train_loss < 100")
    _, state, _ = start(toy_app(), layer, rounds=1)
    assert 0 < state.counts["own-score"] < NODES
    assert all("reply_train_loss = " in event.text for event in layer.told)


def test_a_node_cannot_overrule_what_the_operator_knows() -> None:
    def liar(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        reply.content[CONDITIONS_RECORD] = ConfigRecord({"app_valid": True, "reliability": 1.0, "battery": 0.9})
        return reply

    rule = "app_valid and battery > 0.5"
    layer = Telling(None, accept=rule, known=KNOWN.__getitem__)
    start(toy_app([liar]), layer, rounds=1)
    assert [event.node for event in layer.told] == ["4"]


def test_who_was_refused_often_is_no_longer_reliable_and_is_let_in_again_later() -> None:
    app = attacked({2: times(20.0)})
    layer = Filtered(Norm(), collect="reliability >= 0.6", half_life=1.0)
    _, state, _ = start(app, layer, rounds=6)
    record = track_records(state)["2"]
    # Refused, left out for some rounds, tried once more.
    assert 2 <= record.refusals < 6
    assert track_records(state)["1"].admitted == 6


# -- the centre, other layers, memory --------------------------------------------------------------------------------


def test_a_wholly_faulty_edge_is_refused_at_the_centre() -> None:
    bad = dict.fromkeys((2, 3), times(-6.0))
    edges = Hierarchical(edge=lambda cell: fedavg(), cells=blocks(4), edge_rounds=2)
    kept: list[Any] = []

    class Watching(Filtered):
        def inbound(self, state: Any, round: Round, replies: list[Message]) -> Any:
            out, state = super().inbound(state, round, replies)
            kept.append(state)
            return out, state

    with LocalGrid(attacked(bad), NODES) as grid:
        model = Layered(edges, Watching(evaluate=held_out, seed=1)).start(grid, initial_model(), num_rounds=2).arrays
    records = track_records(kept[-1])
    assert {cell: record.refusals for cell, record in records.items()} == {
        "edge-0": 0,
        "edge-1": 2,
        "edge-2": 0,
        "edge-3": 0,
    }
    with LocalGrid(attacked(bad), NODES) as grid:
        harmed = Layered(edges).start(grid, initial_model(), num_rounds=2).arrays
    assert held_out(arrays_of(model)).loss < 0.5 * held_out(arrays_of(harmed)).loss


def test_an_edge_that_sends_what_it_moved_by_is_read_as_that() -> None:
    def edge(cell: int, move: float, difference: bool) -> tuple[Message, Message]:
        order = ConfigRecord({"cell": f"edge-{cell}", "schema": "flower-edge.edge/1"})
        out = Message(RecordDict({"arrays": initial_model(), EDGE_RECORD: order}), cell + 1, "train")
        out.metadata.__dict__["_message_id"] = f"m{cell}"
        start_ = arrays_of(initial_model())
        arrays = {name: np.full_like(a, move) + (0 if difference else a) for name, a in start_.items()}
        report = ConfigRecord({"difference": difference})
        back = RecordDict(
            {"arrays": record_of(arrays), "metrics": MetricRecord({"num-examples": 5.0}), EDGE_RECORD: report}
        )
        return out, Message(back, reply_to=out)

    with LocalGrid(toy_app(), 1):
        pairs = [edge(0, 0.1, True), edge(1, 0.11, False), edge(2, 0.09, True), edge(3, 2.0, True)]
        layer = Filtered(Norm())
        _, state = layer.outbound(layer.init(), Round(1), [out for out, _ in pairs])
        went, state = layer.inbound(state, Round(1), [back for _, back in pairs])
    assert [reply.has_error() for reply in went] == [False, False, False, True]
    assert set(track_records(state)) == {"edge-0", "edge-1", "edge-2", "edge-3"}


def test_a_slow_node_is_compared_with_the_model_it_was_sent() -> None:
    def sent(node: int, start_: float) -> Message:
        arrays = record_of({"w": np.full(40, start_, np.float32)})
        message = Message(RecordDict({"arrays": arrays}), node, "train")
        message.metadata.__dict__["_message_id"] = f"{node} {start_}"
        return message

    def answered(message: Message) -> Message:
        start_ = arrays_of(message.content.array_records["arrays"])["w"]
        content = RecordDict({"arrays": record_of({"w": start_ + np.linspace(0.9, 1.1, 40, dtype=np.float32)})})
        return Message(content, reply_to=message)

    seen: list[Any] = []

    class Seeing:
        def judge(self, updates: Any, rng: Any) -> Judgement:
            seen.extend((update.node, float(update.base["w"][0])) for update in updates)
            return Judgement()

    with LocalGrid(toy_app(), 1):
        layer = Filtered(Seeing())
        slow, quick = [sent(1, 0.0), sent(2, 0.0)], [sent(3, float(k)) for k in range(1, 9)]
        _, state = layer.outbound(layer.init(), Round(1), slow)
        for k, message in enumerate(quick, 1):
            _, state = layer.outbound(state, Round(k), [message])
            _, state = layer.inbound(state, Round(k), [answered(message)])
        _, state = layer.inbound(state, Round(9), [answered(message) for message in slow])
        assert seen[-2:] == [("1", 0.0), ("2", 0.0)]
        assert len(state.sent) <= 3  # what was answered is forgotten


def test_of_nodes_that_went_for_good_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filtered_state, "_NODES", 3)
    state = FilteredState().with_replies([("a", "norm"), ("b", None), ("c", None)], 1, 10.0)
    state = state.with_replies([("a", None), ("d", None)], 2, 10.0).with_told({key: {} for key in "abcd"})
    assert list(track_records(state)) == ["c", "a", "d"]
    assert track_records(state)["a"].refusals == 1
    assert set(state.told) == {"b", "c", "d"}


def test_a_strategy_that_weighs_by_another_metric_is_named() -> None:
    with pytest.raises(NestingError, match=r"write Filtered\(weighted_by='samples'\)"):
        Layered(FedAvg(weighted_by_key="samples"), Filtered())


def test_what_nobody_answers_is_forgotten_after_some_rounds() -> None:
    with LocalGrid(toy_app(), 1):
        layer = Filtered(Norm())
        state = layer.init()
        for k in range(60):
            arrays = record_of({"w": np.full(3, k, np.float32)})
            _, state = layer.outbound(state, Round(k), [Message(RecordDict({"arrays": arrays}), k + 1, "train")])
    assert len(state.sent) == 16


def test_sub_models_of_less_width_are_compared_where_they_overlap() -> None:
    def manifest(round: Round, key: str, sent: ArrayRecord) -> Any:
        width = 6 if int(key) < 4 else 3
        return part_manifest(
            {"weight": ((6,), "float32"), "bias": ((1,), "float32")},
            {"weight": (np.arange(width),), "bias": None},
        )

    def answer(node: int, out: Message) -> Message:
        before = arrays_of(initial_model())
        width = 6 if node - LocalGrid.FIRST_NODE_ID < 4 else 3
        step = 30.0 if node - LocalGrid.FIRST_NODE_ID == 6 else 1.0 + 0.01 * (node % 7)
        arrays = {"weight": before["weight"][:width] + np.float32(step), "bias": before["bias"] + np.float32(step)}
        return Message(
            RecordDict({"arrays": record_of(arrays), "metrics": MetricRecord({"num-examples": 3})}), reply_to=out
        )

    with LocalGrid(toy_app(), NODES) as grid:
        layer = Filtered(Norm(), Cosine(), manifest=manifest, seed=1)
        state = layer.opened(layer.init(), grid)
        out = [Message(RecordDict({"arrays": initial_model()}), node, "train") for node in grid.get_node_ids()]
        for number, message in enumerate(out):
            message.metadata.__dict__["_message_id"] = f"m{number}"
        _, state = layer.outbound(state, Round(1), out)
        went, state = layer.inbound(state, Round(1), [answer(m.metadata.dst_node_id, m) for m in out])
    assert [i for i, reply in enumerate(went) if reply.has_error()] == [6]


def test_multikrum_of_flower_as_a_test_leaves_out_the_far_ones() -> None:
    _, state, _ = start(attacked({2: times(-5.0), 5: times(-5.0)}), Filtered(MultiKrumTest(2)), rounds=1)
    assert {key for key, record in track_records(state).items() if record.refused} == {"2", "5"}
    _, state, _ = start(attacked({2: times(-5.0)}), Filtered(MultiKrumTest(3)), rounds=1)
    assert state.counts == {}  # eight replies are fewer than 2 f + 3: it abstains


def answer(content: RecordDict) -> str:
    """Why the filter refuses this reply of one node."""
    with LocalGrid(toy_app(), 1):
        layer = Filtered(Norm())
        out = Message(RecordDict({"arrays": initial_model()}), 1, "train")
        _, state = layer.outbound(layer.init(), Round(1), [out])
        (back,), _ = layer.inbound(state, Round(1), [Message(content, reply_to=out)])
        return str(back.error.reason) if back.has_error() else ""


COMPLEX = record_of({name: array * np.complex64(1) for name, array in arrays_of(initial_model()).items()})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"arrays": packet_record(b"abc")}, r"bytes\).*Filtered\(\.\.\.\), Compressed"),
        ({"arrays": initial_model(), "flower-edge.folded": ConfigRecord({"nodes": [1]})}, "no-arrays"),
        ({"arrays": COMPLEX}, "dtype"),
        ({"arrays": initial_model(), "metrics": MetricRecord({"num-examples": 10**400})}, "num-examples"),
    ],
    ids=["encoded", "for several nodes", "complex numbers", "10^400 examples"],
)
def test_no_reply_ends_a_round_that_has_no_gate(content: dict[str, Any], why: str) -> None:
    assert re.search(why, answer(RecordDict(content)))


def test_a_nodes_record_goes_with_it_to_the_next_edge() -> None:
    _, state, layer = start(attacked({2: times(20.0)}), Filtered(seed=1))
    parcel, left = layer.hand_over(state, LocalGrid.FIRST_NODE_ID + 2)
    # The grid is closed, and the node is known by what it was known by.
    assert "2" not in track_records(left)
    other = layer.take_over(layer.init(), 99, parcel)
    assert dict(track_records(other)["2"].refused) == {"norm": 2}
    assert layer.hand_over(left, LocalGrid.FIRST_NODE_ID + 2)[0] is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Filtered("norm"),  # type: ignore[arg-type]
        lambda: Filtered(evaluate=0.9),  # type: ignore[arg-type]
        lambda: Filtered(seed=1.5),  # type: ignore[arg-type]
        lambda: Filtered(half_life=0.0),
        lambda: MultiKrumTest(-1),
        lambda: MultiKrumTest(1, keep=0),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused_by_its_name(make: Any) -> None:
    with pytest.raises(ConfigError, match="expected"):
        make()


def test_the_default_tests_are_the_cheap_ones_and_with_held_out_data_one_more() -> None:
    assert [type(judge).__name__ for judge in default_judges()] == ["Norm", "Copies", "Cosine"]
    assert isinstance(default_judges(held_out)[-1], WithAndWithout)
    assert Filtered(AtLeastReference(held_out)).judges == (AtLeastReference(held_out),)
    assert Filtered(None, accept="True").judges == ()
