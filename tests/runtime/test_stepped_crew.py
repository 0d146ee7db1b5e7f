"""Nodes that begin within the round, and what the tasks of one cell and round know of one another."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from stepped_learner import START, alone, asked, learner, model_of, order_to

from flower_edge.errors import ConfigError
from flower_edge.rounds import Round
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.crew import Crew
from flower_edge.runtime.steps.decisions import Continue, Decision, Progress, Replace, StepEvent, honour_requests
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.wrapped_grid import announce
from flower_edge.wire import record_of


def clocked(local: LocalGrid, *step_s: float) -> VirtualClock:
    return VirtualClock(local, [Device(step_s=s) for s in step_s], [Link()] * len(step_s))


def in_round(number: int, *nodes: int, steps: int = 10) -> list[Message]:
    return [order_to(node, steps, **{"server-round": number}) for node in nodes]


# -- enlisting -------------------------------------------------------------------------------------------------------


def test_an_enlisted_node_makes_the_whole_task_from_the_version_of_the_round_and_its_reply_is_one_more() -> None:
    def enlist(progress: Progress) -> Continue:
        return Continue(enlist=(1002,)) if progress.steps_done == 8 else Continue()

    replies, grid, counting = asked(enlist, messages=lambda: [order_to(1000), order_to(1001)])
    assert [reply.metadata.src_node_id for reply in replies] == [1000, 1002, 1001]
    assert [model_of(reply) for reply in replies] == [model_of(alone(10, node=node)) for node in (1000, 1002, 1001)]
    assert counting.steps(1002) == [(0, 4), (4, 8), (8, 10)]
    assert StepEvent(0, 1002, 0, "", "enlist", "begins beside node 1000", other_id=1000) in grid.events


def test_a_node_that_has_or_had_a_task_of_the_round_is_not_enlisted_again() -> None:
    def greedy(progress: Progress) -> Decision:
        if progress.node_id == 1000 and progress.steps_done == 4:
            return Replace(1002)
        return Continue(enlist=(1000, 1001, 1002, progress.node_id))

    replies, grid, _ = asked(greedy, messages=lambda: [order_to(1000), order_to(1001)])
    assert [reply.metadata.src_node_id for reply in replies] == [1002, 1001]
    assert "enlist" not in {event.decision for event in grid.events}


def test_a_node_asked_for_few_steps_in_one_message_has_had_its_task_too() -> None:
    replies, _, _ = asked(lambda p: Continue(enlist=(1001,)), messages=lambda: [order_to(1000), order_to(1001, 2)])
    assert [reply.metadata.src_node_id for reply in replies] == [1000, 1001]


def test_a_node_enlisted_in_one_round_can_be_enlisted_in_the_next() -> None:
    with LocalGrid(learner(), nodes=2) as local:
        grid = SteppedGrid(local, 4, lambda progress: Continue(enlist=(1001,)), poll_s=0.002)
        for number in (1, 1, 2):
            replies = list(grid.send_and_receive(in_round(number, 1000), timeout=30))
            assert [reply.metadata.src_node_id for reply in replies] == [1000, 1001]
    assert [event.round for event in grid.events if event.decision == "enlist"] == [1, 1, 2]


def test_a_busy_node_that_is_enlisted_does_its_own_task_first() -> None:
    def enlist_for_b(progress: Progress) -> Continue:
        return Continue(enlist=(1001,)) if progress.cell == "b" else Continue()

    with LocalGrid(learner(), nodes=2) as local:
        clock = clocked(local, 1.0, 1.0)
        grid = SteppedGrid(clock, 4, enlist_for_b)

        def edge(cell: str, node: int) -> list[Message]:
            announce(grid, Round(1, 1, cell))
            return list(grid.send_and_receive(in_round(1, node), timeout=30))

        a, b = clock.side_by_side([lambda: edge("a", 1001), lambda: edge("b", 1000)])
    assert [reply.metadata.src_node_id for reply in a] == [1001]
    assert [reply.metadata.src_node_id for reply in b] == [1000, 1001]
    assert clock.now_s == pytest.approx(20.0)


# -- what a policy is told -------------------------------------------------------------------------------------------


def test_a_policy_is_told_the_cell_and_who_was_asked_and_heirs_inherit_both() -> None:
    told: list[Progress] = []

    def watch(progress: Progress) -> Decision:
        told.append(progress)
        if progress.node_id == 1000:
            return Replace(1002)
        return Continue(enlist=(1003,)) if progress.node_id == 1002 else Continue()

    with LocalGrid(learner(), nodes=4) as local:
        grid = SteppedGrid(local, 4, watch, poll_s=0.002)
        announce(grid, Round(1, 2, "edge-7"))
        list(grid.send_and_receive(in_round(2, 1000, 1001), timeout=30))
    assert {(progress.cell, progress.round) for progress in told} == {("edge-7", 2)}
    assert {progress.node_id for progress in told} == {1000, 1001, 1002, 1003}
    assert told[0].asked == {1000, 1001}
    assert told[-1].asked == {1000, 1001, 1002, 1003}


def test_paces_are_virtual_seconds_per_step_and_compared_with_the_median() -> None:
    told: dict[tuple[int, int], Progress] = {}

    def watch(progress: Progress) -> Continue:
        told[progress.node_id, progress.steps_done] = progress
        return Continue()

    with LocalGrid(learner(), nodes=3) as local:
        clock = clocked(local, 1.0, 2.0, 5.0)
        clock.wait_until(100.0)
        list(SteppedGrid(clock, 4, watch).send_and_receive([order_to(node) for node in (1000, 1001, 1002)]))
    first = told[1000, 4]
    assert (first.begun_s, first.round_begun_s, first.now_s) == pytest.approx((100.0, 100.0, 104.0))
    assert (first.step_s, first.median_step_s) == pytest.approx((1.0, 1.0))
    assert [told[node, 8].step_s for node in (1000, 1001, 1002)] == pytest.approx([1.0, 2.0, 5.0])
    assert told[1001, 4].median_step_s == pytest.approx(1.5)
    assert told[1002, 4].median_step_s == pytest.approx(2.0)


def test_a_replacement_begins_later_than_its_round() -> None:
    told: list[Progress] = []

    def swap(progress: Progress) -> Decision:
        told.append(progress)
        return Replace(1001) if progress.node_id == 1000 else Continue()

    with LocalGrid(learner(), nodes=2) as local:
        list(SteppedGrid(clocked(local, 1.0, 1.0), 4, swap).send_and_receive([order_to(1000)]))
    assert (told[1].node_id, told[1].begun_s, told[1].round_begun_s) == (1001, 4.0, 0.0)


def test_without_a_virtual_clock_the_time_is_that_of_the_grids_own_clock() -> None:
    told: list[Progress] = []
    ticks = iter(range(1000))

    def watch(progress: Progress) -> Continue:
        told.append(progress)
        return Continue()

    asked(watch, clock=lambda: float(next(ticks)))
    assert told[0].begun_s < told[0].now_s < told[1].now_s
    assert told[0].step_s is not None
    assert 0 < told[0].step_s < 100


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcde"), st.floats(0.0, 10.0)), min_size=1, max_size=30))
def test_the_median_pace_is_that_of_each_tasks_last_pace(paces: list[tuple[str, float]]) -> None:
    crew = Crew("", 1)
    assert crew.median_step_s is None
    for task, step_s in paces:
        crew.paced(task, step_s)
    assert crew.median_step_s == pytest.approx(statistics.median(dict(paces).values()))


# -- a policy needs steps --------------------------------------------------------------------------------------------


def without_steps() -> Message:
    return Message(RecordDict({"arrays": record_of(START), "config": ConfigRecord({"lr": 0.1})}), 1000, "train.other")


def test_a_policy_for_messages_that_name_no_number_of_steps_is_refused_at_the_first() -> None:
    with LocalGrid(learner(), nodes=1) as local:
        grid = SteppedGrid(local, 4, honour_requests, poll_s=0.002)
        with pytest.raises(ConfigError, match=r"train_config=ConfigRecord\(\{'local-steps': 20\}\)"):
            grid.send_and_receive([without_steps()])
        # Once the strategy has named a number, training of another kind is its own business.
        list(grid.send_and_receive([order_to(1000)]))
        list(grid.send_and_receive([without_steps()]))


def test_without_a_policy_messages_that_name_no_number_of_steps_pass_through() -> None:
    seen: list[Any] = []
    with LocalGrid(learner(), nodes=1) as local:
        seen += SteppedGrid(local, 4).send_and_receive([without_steps()])
    assert [reply.metadata.src_node_id for reply in seen] == [1000]
