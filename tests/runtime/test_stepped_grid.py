"""Training in short messages gives the same model as in one, and the strategy sees no difference."""

from __future__ import annotations

import random
from typing import Literal

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st
from stepped_learner import BATCH, START, Counting, alone, asked, federation, final, learner, model_of, order_to

from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import Continue, Progress
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.task import Part, Rule, merge_metrics
from flower_edge.runtime.wrapped_grid import grid_state, load_grid_state
from flower_edge.strategies import Layered
from flower_edge.wire import record_of

# -- nothing changes -------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(steps=st.integers(1, 12), size=st.integers(1, 13))
def test_steps_in_slices_of_any_size_are_one_message_bit_for_bit(steps: int, size: int) -> None:
    (reply,), _, counting = asked(messages=lambda: [order_to(1000, steps)], size=size)
    whole = alone(steps)
    assert model_of(reply) == model_of(whole)
    assert list(reply.content) == list(whole.content)
    got, expected = (dict(r.content.metric_records["metrics"]) for r in (reply, whole))
    assert got.pop("train_loss") == pytest.approx(expected.pop("train_loss"))
    assert got == expected == {"num-examples": steps * BATCH, "steps": steps}
    assert len(counting.sent) == (0 if steps <= size else -(-steps // size))


@pytest.mark.parametrize("pool", ["sequential", "threads"])
@pytest.mark.parametrize("serialise", [False, True])
def test_fedavg_on_slices_is_fedavg_bit_for_bit(pool: Literal["sequential", "threads"], serialise: bool) -> None:
    random.seed(3)
    whole, _ = federation(None, "sequential", False)
    random.seed(3)
    sliced, grid = federation(3, pool, serialise)
    assert final(sliced) == final(whole)
    assert sliced.train_metrics_clientapp[3].keys() == whole.train_metrics_clientapp[3].keys()
    assert grid is not None
    assert {event.decision for event in grid.events} == {"continue"}
    assert len(grid.events) == 3 * 4 * 2


@pytest.mark.parametrize("kind", ["train.split", "train.piece"])
def test_an_exchange_of_split_learning_or_of_pieces_is_not_cut_whatever_the_train_config_says(kind: str) -> None:
    def never(progress: Progress) -> Continue:
        raise AssertionError("a decision was asked for")

    def messages() -> list[Message]:
        return [Message(order_to(1000).content, 1000, kind)]

    (reply,), grid, counting = asked(never, messages=messages)
    assert reply.has_error(), "the learner knows no such message, and was asked once"
    assert not counting.sent
    assert not grid.events


def test_only_the_first_slice_brings_arrays_and_only_the_last_returns_them() -> None:
    _, _, counting = asked()
    assert counting.steps(1000) == [(0, 4), (4, 8), (8, 10)]
    assert [arrays for _, _, arrays in counting.sent] == [1, 0, 0]
    assert [config["step-return"] for _, config, _ in counting.sent] == [False, False, True]
    assert {config["steps-total"] for _, config, _ in counting.sent} == {10}


def test_the_strategys_own_records_are_not_changed() -> None:
    config = ConfigRecord({"local-steps": 10})
    shared = RecordDict({"arrays": record_of(START), "config": config})
    asked(messages=lambda: [Message(shared, node, "train") for node in (1000, 1001)])
    assert dict(config) == {"local-steps": 10}
    assert list(shared) == ["arrays", "config"]


def test_evaluation_and_short_training_pass_through_as_they_are() -> None:
    def messages() -> list[Message]:
        evaluate = Message(RecordDict({"config": ConfigRecord({"local-steps": 99})}), 1001, "evaluate")
        return [order_to(1000, 4), evaluate, order_to(1002, 9)]

    replies, grid, counting = asked(messages=messages)
    assert [r.metadata.src_node_id for r in replies] == [1000, 1001, 1002]
    assert [len(counting.steps(node)) for node in (1000, 1001, 1002)] == [0, 0, 3]
    assert grid.events[0].node_id == 1002


def test_two_tasks_of_one_node_follow_each_other() -> None:
    replies, _, counting = asked(messages=lambda: [order_to(1000, 6), order_to(1000, 6, lr=0.01)])
    assert [model_of(r) for r in replies] == [model_of(alone(6)), model_of(alone(6, lr=0.01))]
    assert counting.steps(1000) == [(0, 4), (4, 6), (0, 4), (4, 6)]


def test_a_slow_node_does_not_hold_up_the_others() -> None:
    order: list[int] = []

    def watch(progress: Progress) -> Continue:
        order.append(progress.node_id)
        return Continue()

    late = Fault(node=0, kind="late", at=1, delay_s=0.3)
    asked(watch, messages=lambda: [order_to(1000, 8), order_to(1001, 16)], script=[late])
    assert order == [1001, 1001, 1001, 1000]


def test_push_and_pull_give_whole_replies_under_the_id_of_the_message() -> None:
    with LocalGrid(learner(), nodes=2) as local:
        grid = SteppedGrid(local, 4)
        sent = [order_to(1000), order_to(1001, 3)]
        ids = list(grid.push_messages(sent))
        assert ids == [message.metadata.message_id for message in sent]
        got: dict[str, Message] = {}
        looks = 0
        while len(got) < 2:
            looks += 1
            assert looks < 10
            got |= {reply.metadata.reply_to_message_id: reply for reply in grid.pull_messages(ids)}
        assert looks == 3
        assert list(grid.pull_messages(ids)) == []
    assert model_of(got[ids[0]]) == model_of(alone(10))


# -- metrics, clock, checkpoint --------------------------------------------------------------------------------------


def test_metrics_are_merged_as_told_and_lists_element_by_element() -> None:
    parts: list[Part] = [
        (1, {"m": {"num-examples": 8, "a": [1.0, 2.0], "b": 1}}),
        (3, {"m": {"num-examples": 24, "a": [5.0, 6.0], "b": 9}}),
    ]
    assert merge_metrics(parts)["m"] == {"num-examples": 32, "a": [4.0, 5.0], "b": 7.0}
    rules: dict[str, Rule] = {"num-examples": "last", "b": "sum"}
    assert merge_metrics(parts, rules)["m"] == {"num-examples": 24, "a": [4.0, 5.0], "b": 10}
    assert merge_metrics(parts[:1]) == {"m": {"num-examples": 8, "a": [1.0, 2.0], "b": 1}}


def test_on_a_virtual_clock_slices_take_the_time_of_their_steps() -> None:
    with LocalGrid(learner(), nodes=2) as local:
        clock = VirtualClock(local, [Device(step_s=1.0), Device(step_s=2.0)], [Link(), Link()])
        grid = SteppedGrid(clock, 4)
        replies = list(grid.send_and_receive([order_to(1000), order_to(1001)], timeout=30))
    assert [model_of(reply) for reply in replies] == [model_of(alone(10)), model_of(alone(10, node=1001))]
    assert clock.now_s == pytest.approx(20.0)


@pytest.mark.parametrize("outside", [False, True])
def test_a_grid_proxy_may_stand_inside_or_around(outside: bool) -> None:
    messages = [1000, 1001, 1002]
    with LocalGrid(learner(), nodes=3) as local:
        if outside:
            grid: Grid = GridProxy(SteppedGrid(local, 4, poll_s=0.002), ask_properties=False, poll_s=0.05)
        else:
            grid = SteppedGrid(GridProxy(local, ask_properties=False), 4, poll_s=0.002)
        replies = list(grid.send_and_receive([order_to(node) for node in messages], timeout=30))
    assert [model_of(reply) for reply in replies] == [model_of(alone(10, node=node)) for node in messages]


def test_layers_and_slices_leave_the_strategy_alone_together() -> None:
    def layered(sliced: bool) -> bytes:
        random.seed(3)
        with LocalGrid(learner(), nodes=4) as local:
            grid = SteppedGrid(local, 3, poll_s=0.002) if sliced else local
            config = ConfigRecord({"local-steps": 7})
            result = Layered(FedAvg(fraction_evaluate=0.5)).start(grid, record_of(START), 2, train_config=config)
            return final(result)

    assert layered(sliced=True) == layered(sliced=False)


def test_events_are_part_of_a_checkpoint() -> None:
    _, grid, _ = asked(wishes={(0, 3): "stop"})
    assert grid.events
    with LocalGrid(learner(), nodes=3) as local:
        fresh = SteppedGrid(Counting(local), 4)
        load_grid_state(fresh, grid_state(grid))
        assert fresh.events == grid.events
