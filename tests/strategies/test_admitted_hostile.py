"""`Admitted` against every kind of bad reply: one is refused with its code, and the round is that of the others."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bad_replies import HARMS, Harm, metric, raw, record
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import initial_model, same_model, toy_app

from flower_edge.admission.refusal import CODES
from flower_edge.errors import ConfigError, NobodyAdmitted
from flower_edge.events import Event
from flower_edge.rewards.enrolment import Enrolment
from flower_edge.rounds import Round
from flower_edge.runtime.flower_private import clone_message, set_metadata
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.wrapped_grid import WrappedGrid
from flower_edge.store import RunFolder
from flower_edge.strategies import Layered
from flower_edge.strategies.filtering.admitted import Admitted
from flower_edge.wire import copy_content

NODES, BAD = 4, 2
ROUND = Round(1)


class Harmful:
    """A mod: node `bad` (every node without one) changes its training replies; `None` makes it fail."""

    def __init__(self, harm: Harm | None, bad: int | None = BAD) -> None:
        self.harm, self.bad = harm, bad

    def __call__(self, message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        if self.bad is not None and context.node_config["partition-id"] != self.bad:
            return reply
        if self.harm is None:
            raise RuntimeError("a node that fails")
        reply.content = self.harm(copy_content(reply.content))
        return reply


def strategy(**options: Any) -> FedAvg:
    return FedAvg(fraction_evaluate=0.0, **options)


class Kept(Admitted):
    """Keeps the last state, for the tests to look at."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.kept: list[Any] = []

    def inbound(self, *arguments: Any) -> Any:
        replies, state = super().inbound(*arguments)
        self.kept.append(state)
        return replies, state


def run(
    chosen: Any, harm: Harm | None = None, *, bad: int | None = BAD, rounds: int = 1, wrap: Any = None, **options: Any
) -> ArrayRecord:
    random.seed(4)
    np.random.seed(4)
    with LocalGrid(toy_app([Harmful(harm, bad)]), NODES) as local:
        grid = local if wrap is None else wrap(local)
        arrays: ArrayRecord = chosen.start(grid, initial_model(), num_rounds=rounds, **options).arrays
        return arrays


@pytest.fixture(scope="module")
def of_the_others() -> ArrayRecord:
    """Flower's own result where the bad node fails: that of the three others."""
    return run(strategy())


@pytest.mark.parametrize("what", HARMS)
def test_it_is_refused_and_the_round_is_that_of_the_others(what: str, of_the_others: ArrayRecord) -> None:
    harm, code = HARMS[what]
    gate = Kept(most_examples=1000)
    found = run(Layered(strategy(), gate), harm, train_config=ConfigRecord({"local-steps": 20}))
    assert gate.kept[-1].counts == {code: 1}
    assert same_model(found, of_the_others)
    (event,) = gate.kept[-1].untold
    assert (event.what, event.node, event.values["code"]) == ("refused", str(BAD), code)
    assert len(event.text) < 500


# -- the difference to stock FedAvg ----------------------------------------------------------------------------------

TAKEN = ("10^18 examples", "-5 examples", "NaN examples", "NaN in an array", "infinity in an array", "(1,) into (6,)")
LOST = ("a missing array", "an extra array", "(3,) into (6,)", "no record of metrics", "an extra metric", "garbage")


@pytest.mark.parametrize("what", TAKEN)
def test_flower_takes_it_in_and_the_model_is_not_that_of_the_honest(what: str) -> None:
    honest = run(strategy(), bad=-1)
    with np.errstate(all="ignore"):
        harmed = run(strategy(), HARMS[what][0])
    difference = np.abs(harmed["weight"].numpy() - honest["weight"].numpy()).max()
    assert not difference < 0.05  # also where it is NaN


@pytest.mark.parametrize("what", LOST)
def test_flower_loses_the_whole_round_with_all_that_the_others_have_done(what: str) -> None:
    try:
        found = run(strategy(), HARMS[what][0])
    except Exception:
        return  # a run that ends
    assert not found or same_model(found, initial_model())


def test_nobody_with_an_example_ends_a_flower_run_and_with_the_gate_the_model_stays(tmp_path: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        run(strategy(), metric(num_examples=0), bad=None)
    with RunFolder.create("refused", config={}, seed=0, root=tmp_path) as folder:
        found = run(Layered(strategy(), Admitted()), metric(num_examples=0), bad=None, rounds=2, run=folder)
    assert not found  # Flower's result holds a model only where one was merged
    events = [row for row in folder.rows() if row.kind == "event"]
    assert [row.values["what"] for row in events].count("nobody-admitted") == 2
    assert [row.values["what"] for row in events].count("refused") == 2 * NODES


def test_after_three_rounds_in_which_nobody_was_admitted_the_run_ends_with_the_reasons() -> None:
    with pytest.raises(NobodyAdmitted, match=r"3 rounds in a row .* 'num-examples' is 0; expected") as told:
        run(Layered(strategy(), Admitted()), metric(num_examples=0), bad=None, rounds=5)
    assert len(told.value.asked) == NODES


def test_a_resumed_run_goes_on_counting_them(tmp_path: Any) -> None:
    harm = metric(num_examples=0)
    with RunFolder.create("refused", config={}, seed=0, root=tmp_path) as folder:
        run(Layered(strategy(), Admitted()), harm, bad=None, rounds=2, run=folder)
        with pytest.raises(NobodyAdmitted, match="3 rounds in a row"):
            run(Layered(strategy(), Admitted()), harm, bad=None, rounds=3, run=folder, resume=True)


def test_a_round_that_is_good_again_counts_anew() -> None:
    rounds: list[int] = []

    def harm(content: RecordDict) -> RecordDict:
        rounds.append(1)
        bad = (len(rounds) - 1) // NODES in (0, 1, 3, 4)
        return metric(num_examples=0)(content) if bad else content

    assert run(Layered(strategy(), Admitted()), harm, bad=None, rounds=6)["weight"].shape == (6,)


# -- who answers what ------------------------------------------------------------------------------------------------


class Meddling(WrappedGrid):
    """A grid that changes the list of replies of an exchange."""

    def __init__(self, inner: Any, change: Callable[[list[Message]], list[Message]]) -> None:
        super().__init__(inner)
        self.change = change

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        replies = list(super().send_and_receive(messages, timeout=timeout))
        return self.change(replies) if replies else []


def with_metadata(reply: Message, **told: Any) -> Message:
    copy = clone_message(reply, copy_content(reply.content))
    set_metadata(copy, **told)
    return copy


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (lambda reply: with_metadata(reply), "duplicate"),
        (lambda reply: with_metadata(reply, reply_to_message_id=""), "duplicate"),
        (lambda reply: with_metadata(reply, src_node_id=99), "unasked"),
        (lambda reply: with_metadata(reply, src_node_id=99, reply_to_message_id=""), "unasked"),
    ],
)
def test_a_second_reply_and_one_of_a_stranger_change_nothing(more: Any, code: str) -> None:
    def change(replies: list[Message]) -> list[Message]:
        return [*replies, more(replies[BAD])]

    gate = Kept()
    found = run(Layered(strategy(), gate), bad=-1, wrap=lambda grid: Meddling(grid, change))
    assert same_model(found, run(strategy(), bad=-1))
    assert gate.kept[-1].counts == {code: 1}
    doubled = run(strategy(), bad=-1, wrap=lambda grid: Meddling(grid, change))
    assert not same_model(doubled, found)  # Flower counts it twice


def test_a_reply_of_another_run_is_refused(of_the_others: ArrayRecord) -> None:
    def change(replies: list[Message]) -> list[Message]:
        bad = 1000 + BAD
        return [with_metadata(one, run_id=77) if one.metadata.src_node_id == bad else one for one in replies]

    gate = Kept()
    found = run(Layered(strategy(), gate), bad=-1, wrap=lambda grid: Meddling(grid, change))
    assert gate.kept[-1].counts == {"wrong-run": 1}
    assert same_model(found, of_the_others)


def test_a_reply_from_an_earlier_round_that_comes_again_is_a_duplicate() -> None:
    first: list[Message] = []

    def change(replies: list[Message]) -> list[Message]:
        if not first:
            first.append(with_metadata(replies[BAD]))
            return replies
        return [*replies, first[0]]

    gate = Kept()
    found = run(Layered(strategy(), gate), bad=-1, rounds=3, wrap=lambda grid: Meddling(grid, change))
    assert same_model(found, run(strategy(), bad=-1, rounds=3))
    assert gate.kept[-1].counts == {"duplicate": 2}


def test_the_arrays_of_an_earlier_round_sent_once_more_are_refused() -> None:
    kept: list[ArrayRecord] = []

    def harm(content: RecordDict) -> RecordDict:
        kept.append(content.array_records["arrays"])
        content["arrays"] = kept[0]
        return content

    gate = Kept()
    run(Layered(strategy(), gate), harm, rounds=4)
    assert gate.kept[-1].counts == {"replayed": 3}
    off = Kept(replays=False)
    kept.clear()
    run(Layered(strategy(), off), harm, rounds=4)
    assert off.kept[-1].counts == {}


@pytest.mark.parametrize("still", [{BAD}, {0, 1, 2, 3}])
def test_nodes_that_do_not_move_replay_nothing(still: set[int]) -> None:
    def given_back(message: Message, context: Context, call_next: Any) -> Message:
        sent = message.content.array_records["arrays"]
        reply: Message = call_next(message, context)
        if context.node_config["partition-id"] in still:
            reply.content = record("arrays", sent)(copy_content(reply.content))
        return reply

    gate = Kept()
    with LocalGrid(toy_app([given_back]), NODES) as grid:
        Layered(strategy(), gate).start(grid, initial_model(), num_rounds=4)
    assert gate.kept[-1].counts == {}


# -- enrolment -------------------------------------------------------------------------------------------------------


def test_each_node_has_its_own_limit_and_who_is_not_enrolled_is_refused() -> None:
    gate = Kept(most_examples={"0": 20, "1": 22, "2": 26})  # they have 20, 23, 26 and 29
    run(Layered(strategy(), gate), bad=-1)
    over, stranger = sorted(gate.kept[-1].untold, key=lambda event: event.node)
    assert (over.node, stranger.node) == ("1", "3")
    assert over.text.endswith("'num-examples' is 23; expected a number from 1 to 22, what the node is enrolled with")
    assert "not enrolled" in stranger.text
    one_for_all = Kept(most_examples=Enrolment(most_examples=25))
    run(Layered(strategy(), one_for_all), bad=-1)
    assert {event.node for event in one_for_all.kept[-1].untold} == {"2", "3"}
    open_end = Kept(most_examples=lambda key: 20 if key == "0" else None)
    run(Layered(strategy(), open_end), bad=-1)
    assert open_end.kept[-1].counts == {}


def test_a_whole_count_as_a_float_is_one(of_the_others: ArrayRecord) -> None:
    found = run(Layered(strategy(), Admitted(most_examples=26 + 3)), metric(num_examples=26.0))
    assert same_model(found, run(strategy(), bad=-1))
    assert not same_model(found, of_the_others)


@pytest.mark.parametrize(
    "options",
    [
        {"most_examples": 0},
        {"most_examples": "600"},
        {"most_examples": {7: 600}},
        {"most_examples": {"7": -1}},
        {"most_bytes": 0},
        {"manifest": 3},
        {"echo": "maybe"},
        {"weighted_by": ""},
        {"seed": 0.5},
    ],
)
def test_an_argument_that_cannot_be_used_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Admitted(**options)


# -- evaluation ------------------------------------------------------------------------------------------------------


def test_evaluations_are_judged_by_their_metrics() -> None:
    def evaluated(harm: Harm, chosen: Any) -> tuple[Any, Any]:
        with LocalGrid(toy_app(), NODES) as grid:

            def change(replies: list[Message]) -> list[Message]:
                for reply in replies:
                    if reply.metadata.message_type == "evaluate" and reply.metadata.src_node_id == 1000 + BAD:
                        reply.content = harm(copy_content(reply.content))
                return replies

            result = chosen.start(Meddling(grid, change), initial_model(), num_rounds=1)
            return result.evaluate_metrics_clientapp[1]["loss"], result

    with np.errstate(all="ignore"):
        assert not evaluated(metric(loss=float("nan")), FedAvg())[0] < 1e9
    gate = Kept()
    assert 0 < evaluated(metric(loss=float("nan")), Layered(FedAvg(), gate))[0] < 1e9
    assert gate.kept[-1].counts == {"metrics": 1}
    assert 0 < evaluated(metric(num_examples=-10), Layered(FedAvg(), Kept()))[0] < 1e9


# -- anything --------------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.lists(st.floats(), max_size=3))
MUTATIONS = st.one_of(
    st.tuples(st.just("metric"), st.sampled_from(["num-examples", "train_loss", "steps", "x"]), NUMBERS),
    st.tuples(st.just("byte"), st.integers(0, 151), st.integers(0, 255)),
    st.tuples(st.just("cut"), st.integers(0, 151), st.just(0)),
    st.tuples(st.just("shape"), st.lists(st.integers(-3, 2**50), max_size=3), st.just(0)),
    st.tuples(st.just("dtype"), st.text(max_size=8), st.just(0)),
    st.tuples(st.just("drop"), st.sampled_from(["arrays", "metrics"]), st.just(0)),
)


def mutated(content: RecordDict, mutation: tuple[str, Any, Any]) -> RecordDict:
    kind, one, other = mutation
    if kind == "drop":
        return record(one, None)(content)
    if kind == "metric":
        metrics = {**dict(content["metrics"].items()), one: other}  # type: ignore[union-attr]
        return record("metrics", MetricRecord(metrics))(content)
    if kind == "byte":
        return raw(lambda data: data[:one] + bytes([other]) + data[one + 1 :])(content)
    if kind == "cut":
        return raw(lambda data: data[:one])(content)
    return raw(shape=tuple(one))(content) if kind == "shape" else raw(dtype=one)(content)


@settings(max_examples=60, deadline=None)
@given(MUTATIONS)
def test_a_reply_that_was_changed_passes_as_it_is_or_is_refused_with_a_code(mutation: tuple[str, Any, Any]) -> None:
    layer = Admitted(seed=1)
    content = RecordDict({"arrays": initial_model(), "config": ConfigRecord({"local-steps": 20})})
    with LocalGrid(toy_app(), 1) as grid:
        state = layer.opened(layer.init(), grid)
        message = Message(content, 1000, "train")
        _, state = layer.outbound(state, ROUND, [message])
        good = {"arrays": initial_model(), "metrics": MetricRecord({"num-examples": 26, "train_loss": 1.0})}
        came = Message(mutated(RecordDict(good), mutation), reply_to=message)
        kept = copy_content(came.content)
        (out,), state = layer.inbound(state, ROUND, [came])
    if out.has_error():
        (code,) = state.counts
        assert code in CODES
        assert out.error.code == 1001
        assert out.error.reason.startswith(f"refused ({code}): ")
    else:
        assert out is came
        arrays = out.content.array_records["arrays"]
        assert np.isfinite(arrays["weight"].numpy()).all()
        assert all(arrays[name].data == kept.array_records["arrays"][name].data for name in arrays)
    told: list[Event]
    told, _ = layer.events(state)
    assert [Event.from_json(event.to_json()).what for event in told] == ["refused"] * len(told)
