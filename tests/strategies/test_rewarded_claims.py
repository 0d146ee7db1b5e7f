"""What a node says of itself does not pay; how often it took part does, and so does a reply that is late, once."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from paying import POT, Replies, credits_of, exchange, rewarded, session_of, with_arrays, with_metrics
from toy import DIMENSION, initial_model, toy_app
from travellers import app as travelling_app
from travellers import clock, order, start_model, train_round, world

from flower_edge.events import Event
from flower_edge.models import EvalResult
from flower_edge.rewards.budget import Budget
from flower_edge.rewards.enrolment import Enrolment
from flower_edge.rewards.rule import RewardRule
from flower_edge.rounds import Round
from flower_edge.runtime.edge_messages import EDGE_RECORD, EVENTS_KEY, SCHEMA
from flower_edge.runtime.flower_private import clone_message
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.messages import LATE_RECORD
from flower_edge.runtime.wrapped_grid import announce
from flower_edge.strategies import LayeredGrid
from flower_edge.strategies.coverage.coverage import Coverage
from flower_edge.strategies.coverage.mid_round import MidRound
from flower_edge.strategies.rewards.rewarded import Rewarded
from flower_edge.updates.manifest import part_manifest
from flower_edge.wire import copy_content, model_spec, record_of


@pytest.mark.parametrize("enrolled", [None, Enrolment(most_examples=20), {"0": Enrolment(most_examples=20)}])
@pytest.mark.parametrize("told", [10**18, float("nan"), 400.0])
def test_telling_more_examples_than_it_has_earns_no_more(enrolled: Any, told: float) -> None:
    honest = credits_of(session_of(rewarded(enrolled=enrolled), rounds=1)[1])

    def inflated(k: int, reply: Message) -> list[Message]:
        return [with_metrics(reply, num_examples=told, data_age_s=0.0) if k == 0 else reply]

    with LocalGrid(toy_app(), 4) as local:
        random.seed(2)
        grid = LayeredGrid(local, [rewarded(enrolled=enrolled)])
        exchange(grid, Round(1), initial_model(), inflated)
        grid.merged(Round(1), initial_model(), initial_model())
        found = credits_of(grid.events())
        # No number at all counts as not told, and then as little as can be.
        assert found == honest if told == told else found["0"] <= honest["0"]


def test_older_data_by_its_own_word_earn_less() -> None:
    def aged(age_s: float) -> Replies:
        return Replies(lambda k, reply: [with_metrics(reply, data_age_s=age_s if k == 3 else 0.0)])

    honest, old = (credits_of(session_of(rewarded(), aged(age_s), rounds=1)[1]) for age_s in (0.0, 5e6))
    assert [key for key in honest if old[key] < honest[key]] == [max(honest, key=honest.__getitem__)]


def test_who_was_merged_more_often_earns_more_of_the_same_contribution() -> None:
    def same(reply: Message) -> Message:
        target = np.arange(1.0, DIMENSION + 1, dtype=np.float32)
        return with_arrays(reply, weight=target, bias=np.zeros(1, np.float32))

    with LocalGrid(toy_app(), 3) as local:
        grid = LayeredGrid(local, [rewarded(rule=RewardRule(size=None, recency=None))])

        def change(k: int, reply: Message) -> list[Message]:
            return [] if k == 0 and grid.round.cloud < 3 else [same(reply)]

        for number in (1, 2, 3):
            exchange(grid, Round(number), initial_model(), change)
            grid.merged(Round(number), initial_model(), initial_model())
            told = grid.events()
    # Shares of 1 : 3 : 3.
    paid = [(event.values["frequency"], event.values["micro"]) for event in told if event.what == "rewarded"]
    assert sorted(paid) == [(1.0, 142_857), (3.0, 428_571), (3.0, 428_572)]


def test_a_terminal_takes_its_frequency_along_to_another_edge() -> None:
    with LocalGrid(toy_app(), 3) as local:
        layer = rewarded()
        source, target = LayeredGrid(local, [layer]), LayeredGrid(local, [layer])
        for number in (1, 2, 3):
            exchange(source, Round(number), initial_model())
            source.merged(Round(number), initial_model(), initial_model())
        node = next(iter(local.get_node_ids()))
        target.take_over(node, source.hand_over(node))
        exchange(target, Round(4), initial_model())
        target.merged(Round(4), initial_model(), initial_model())
        frequencies = {event.node: event.values["frequency"] for event in target.events() if event.what == "rewarded"}
        exchange(source, Round(4), initial_model())
        source.merged(Round(4), initial_model(), initial_model())
        left = {
            event.node: event.values["frequency"]
            for event in source.events()
            if event.what == "rewarded" and event.values["frequency"] in (1.0, 4.0)
        }
    moved = [key for key, value in frequencies.items() if value == 4.0]
    assert len(moved) == 1
    assert left[moved[0]] == 1.0


def test_a_frequency_that_could_not_have_been_is_not_taken_over() -> None:
    with LocalGrid(toy_app(), 2) as local:
        grid = LayeredGrid(local, [rewarded()])
        exchange(grid, Round(1), initial_model())
        grid.merged(Round(1), initial_model(), initial_model())
        for node in local.get_node_ids():
            (layer, _), *rest = grid.hand_over(node)
            assert not rest
            grid.take_over(node, [(layer, [*range(-50, 0), 0.5, "0", 10, 10**9])])
        assert set(grid.states[0].accepted.values()) == {()}


# -- late, in another's place, and parts of the model ------------------------------------------------------------


def test_a_late_reply_is_paid_once_for_what_it_has_moved_from_the_model_it_began_with() -> None:
    held: list[Message] = []

    def late(k: int, reply: Message) -> list[Message]:
        if k != 1:
            return [reply]
        if not held:
            content = copy_content(reply.content)
            content[LATE_RECORD] = ConfigRecord({"base-round": 1, "cell": "", "steps": 5})
            held.append(clone_message(reply, content))
            return []
        return [reply, held[0], held[0]]

    with LocalGrid(toy_app(), 3) as local:
        layer = rewarded()
        grid = LayeredGrid(SteppedGrid(clock(local, [1.0] * 3), 1), [layer])
        exchange(grid, Round(1), initial_model(), late, local)
        grid.merged(Round(1), initial_model(), initial_model())
        assert set(credits_of(grid.events())) == {"0", "2"}
        # In the meantime the model has come near to what is right.
        near = record_of({"weight": np.arange(1.0, 7.0, dtype=np.float32) - 0.1, "bias": np.zeros(1, np.float32)})
        exchange(grid, Round(2), near, late, local)
        (state,) = grid.states
        waiting = [(reply.key, reply.given.number) for reply in state.pending]
        assert waiting == [("0", 2), ("1", 2), ("1", 1), ("2", 2)]
        grid.merged(Round(2), near, near)
        told = grid.events()
    assert sum(credits_of(told).values()) + grid.metrics()["carried_micro"] == POT
    frequency = {event.node: event.values["frequency"] for event in told if event.what == "rewarded"}
    assert frequency == {"0": 2.0, "1": 1.0, "2": 2.0}, "two replies in one exchange are one more time"


def test_a_late_reply_from_before_a_resume_is_paid_once() -> None:
    def as_late(reply: Message) -> Message:
        content = copy_content(reply.content)
        content[LATE_RECORD] = ConfigRecord({"base-round": 1, "cell": "", "steps": 5})
        return clone_message(reply, content)

    layer = rewarded()
    with LocalGrid(toy_app(), 3) as local:
        stepped = SteppedGrid(clock(local, [1.0] * 3), 1)
        grid = LayeredGrid(stepped, [layer])
        old = exchange(grid, Round(1), initial_model(), through=local)
        resumed = LayeredGrid(stepped, [layer])
        resumed.load_state_dict(grid.state_dict())
        twice = [as_late(old[0])] * 2
        exchange(resumed, Round(2), initial_model(), lambda k, reply: twice if k == 0 else [], local)
        (state,) = resumed.states
        assert len(state.pending) == 1
        resumed.merged(Round(2), initial_model(), initial_model())
        found = resumed.metrics()
    assert found["paid_micro"] + found["carried_micro"] == 2 * POT


def test_a_node_that_calls_its_replies_late_is_paid_for_the_one_it_was_asked_for() -> None:
    def forged(k: int, reply: Message) -> list[Message]:
        out = [reply]
        for number in (-1, 0, 7) if k == 1 else ():
            content = copy_content(reply.content)
            content[LATE_RECORD] = ConfigRecord({"base-round": number, "cell": "", "steps": 5})
            out.append(clone_message(reply, content))
        return out

    with LocalGrid(toy_app(), 3) as local:
        grid = LayeredGrid(local, [rewarded()])
        exchange(grid, Round(1), initial_model(), forged)
        assert [reply.key for reply in grid.states[0].pending] == ["0", "1", "2"]


def test_a_terminal_that_calls_itself_an_edge_is_measured_by_what_is_merged() -> None:
    def moved(k: int, reply: Message) -> list[Message]:
        content = copy_content(reply.content)
        credit = Event("rewarded", "earned", "mine", values={"micro": 5}).to_json()
        content[EDGE_RECORD] = ConfigRecord({"schema": SCHEMA, "difference": True, EVENTS_KEY: [credit]})
        return [clone_message(reply, content)]

    with LocalGrid(toy_app(), 3) as local:
        grid = LayeredGrid(local, [rewarded()])
        exchange(grid, Round(1), initial_model(), moved)
        assert [(reply.difference, dict(reply.passed_on)) for reply in grid.states[0].pending] == [(False, {})] * 3


@pytest.mark.parametrize(("below", "models"), [("plain", {4}), ("slices", {2, 4})])
def test_models_of_earlier_rounds_are_let_go_unless_a_late_reply_may_need_them(below: str, models: set[int]) -> None:
    with LocalGrid(toy_app(), 3) as local:
        grid = LayeredGrid(local if below == "plain" else SteppedGrid(clock(local, [1.0] * 3), 1), [rewarded()])
        for number in range(1, 5):
            # In the second round nobody answers.
            exchange(grid, Round(number), initial_model(), lambda k, reply, n=number: [reply] * (n != 2), local)
        kept = {given.number for entries in grid.states[0].given.values() for given in entries if len(given.sent)}
    assert kept == models


def test_who_takes_anothers_place_in_mid_round_is_paid_for_it() -> None:
    coverage = Coverage(world(["a", "b"], [{0.0: "a"}, {0.0: "a", 3.0: "b"}, {0.0: "a"}]))

    def goal(arrays: Mapping[str, np.ndarray]) -> EvalResult:
        return EvalResult(float(np.mean((arrays["w"] - 5.0) ** 2)), 0.0, 1)

    with LocalGrid(travelling_app(), 3) as local:
        inner = clock(local, [1.0] * 3)
        stepped = SteppedGrid(inner, 2, MidRound(coverage), reachable=coverage.reachable)
        grid = LayeredGrid(stepped, [Rewarded(goal, budget=Budget(POT), seed=1)])
        round = train_round(1, 1, "a")
        grid.announced(round)
        announce(stepped, round)
        coverage(stepped, round)
        replies = list(grid.send_and_receive([order(1000 + i, 1) for i in range(2)]))
        assert 1002 in {reply.metadata.src_node_id for reply in replies}
        grid.merged(round, start_model(), start_model())
        credits = credits_of(grid.events())
    assert sum(credits.values()) == POT
    assert credits["2"] > 0


def test_nodes_with_parts_of_the_model_are_paid_for_their_parts() -> None:
    spec = model_spec(initial_model())
    first, last = np.array([0, 1, 2]), np.array([3, 4, 5])
    parts = {
        "0": part_manifest(spec, {"weight": (first,)}),
        "1": part_manifest(spec, {"weight": (last,), "bias": None}),
        "2": part_manifest(spec, {"weight": None, "bias": None}),
    }
    target = np.arange(1.0, DIMENSION + 1, dtype=np.float32)
    start = np.zeros(DIMENSION, np.float32)

    def arrays_for(key: str, whole: np.ndarray) -> dict[str, np.ndarray]:
        index = {"0": first, "1": last, "2": slice(None)}[key]
        return {"weight": whole[index], **({} if key == "0" else {"bias": np.zeros(1, np.float32)})}

    before = record_of({"weight": start, "bias": np.zeros(1, np.float32)})
    with LocalGrid(toy_app(), 3) as local:
        grid = LayeredGrid(local, [rewarded(manifest=lambda round, key, sent: parts[key])])
        grid.announced(Round(1))
        messages = [
            Message(RecordDict({"arrays": record_of(arrays_for(str(k), start))}), node, "train")
            for k, node in enumerate(local.get_node_ids())
        ]

        def deliver(outgoing: list[Message]) -> list[Message]:
            # Node 0 moves its half to where it should be, node 1 the other half away, node 2 nothing.
            moved = {0: target, 1: -target, 2: start}
            return [
                Message(
                    RecordDict(
                        {
                            "arrays": record_of(arrays_for(str(k), moved[k])),
                            "metrics": MetricRecord({"num-examples": 10}),
                        }
                    ),
                    reply_to=message,
                )
                for k, message in enumerate(outgoing)
            ]

        grid.hop(messages, deliver)
        grid.merged(Round(1), before, before)
        told = grid.events()
    assert credits_of(told) == {"0": POT, "1": 0, "2": 0}


def test_nodes_that_are_sent_the_whole_model_may_send_back_a_part_of_it() -> None:
    spec = model_spec(initial_model())
    half = np.array([0, 1, 2])
    target = np.arange(1.0, DIMENSION + 1, dtype=np.float32)

    def cut(k: int, reply: Message) -> list[Message]:
        start = initial_model()["weight"].numpy()
        return [with_arrays(reply, weight=(target if k == 0 else start)[half])]

    with LocalGrid(toy_app(), 3) as local:
        grid = LayeredGrid(
            local, [rewarded(manifest=lambda round, key, sent: part_manifest(spec, {"weight": (half,)}))]
        )
        exchange(grid, Round(1), initial_model(), cut)
        grid.merged(Round(1), initial_model(), initial_model())
        told = grid.events()
    assert sorted(credits_of(told).values()) == [0, 0, POT]
    assert sum("unchanged" in event.values for event in told) == 2
