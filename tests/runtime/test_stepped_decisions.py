"""Terminals ask, the edge decides, and both take effect before the round ends."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from stepped_learner import BATCH, START, Counting, alone, asked, federation, learner, model_of, order_to

from flower_edge.clients.steps import step_mod
from flower_edge.errors import ConfigError, ProtocolError
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import Change, Continue, Drop, Progress, Replace, StepEvent, Stop
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.messages import REQUEST_RECORD
from flower_edge.wire import record_of


@pytest.mark.parametrize("kind", ["stop", "overload"])
@pytest.mark.parametrize("at", [1, 4, 6, 9])
def test_a_terminal_that_asks_to_stop_is_stopped_at_that_very_step(kind: str, at: int) -> None:
    (reply,), grid, counting = asked(wishes={(0, at): kind})
    assert model_of(reply) == model_of(alone(at))
    metrics = reply.content.metric_records["metrics"]
    assert (metrics["steps"], metrics["num-examples"]) == (at, at * BATCH)
    # With the last slice there is nothing left to decide: whoever merges may still heed it.
    assert (REQUEST_RECORD in reply.content) == (at == 9)
    event = grid.events[-1]
    assert (event.step, event.request, event.outcome) == (at, f"{kind} (load=0.9)", "returned")
    if at < 8:  # before the last slice: it took effect before the round was over
        assert event.decision == "stop"
        assert counting.steps(1000)[-1] == (at, at)
        assert len(counting.sent) == -(-at // 4) + 1


def test_a_request_that_is_no_reason_to_stop_is_told_and_the_steps_left_are_made() -> None:
    (reply,), grid, counting = asked(wishes={(0, 3): "smaller-model"})
    assert model_of(reply) == model_of(alone(10))
    assert counting.steps(1000) == [(0, 4), (3, 7), (7, 10)]
    assert grid.events[0] == StepEvent(0, 1000, 3, "smaller-model (load=0.9)", "continue", "kept on the node")


def test_a_request_in_a_message_that_was_not_sliced_is_recorded_and_stays() -> None:
    (reply,), grid, _ = asked(wishes={(0, 2): "stop"}, size=20)
    assert list(reply.content) == ["arrays", "metrics", REQUEST_RECORD]
    assert grid.events == [StepEvent(0, 1000, 2, "stop (load=0.9)", "none", "returned")]


def test_fedavg_takes_a_stopped_terminals_work_for_what_it_is() -> None:
    result, grid = federation(3, "sequential", False, wishes={(2, 2): "overload"})
    assert grid is not None
    stopped = [event for event in grid.events if event.decision == "stop"]
    assert [(event.round, event.step) for event in stopped] == [(1, 2), (2, 2), (3, 2)]
    assert result.arrays is not None
    counts = [3 * 7 * BATCH, 2 * BATCH]
    steps = result.train_metrics_clientapp[1]["steps"]
    assert steps == pytest.approx((counts[0] * 7 + counts[1] * 2) / sum(counts))


def test_stop_after_k_steps_gives_exactly_the_k_step_model() -> None:
    (reply,), _, _ = asked(lambda progress: Stop() if progress.steps_done >= 8 else Continue(), size=2)
    assert model_of(reply) == model_of(alone(8))


def test_a_changed_config_holds_from_the_next_slice_on_and_for_no_other_node() -> None:
    def slower(progress: Progress) -> Continue | Change:
        return Change({"lr": 0.001}) if progress.node_id == 1000 and progress.steps_done == 4 else Continue()

    _, grid, counting = asked(slower, messages=lambda: [order_to(1000, 10, lr=0.05), order_to(1001, 10, lr=0.05)])
    rates = {node: [config["lr"] for at, config, _ in counting.sent if at == node] for node in (1000, 1001)}
    assert rates == {1000: [0.05, 0.001, 0.001], 1001: [0.05, 0.05, 0.05]}
    assert [event.decision for event in grid.events if event.node_id == 1000] == ["change", "continue"]


@pytest.mark.parametrize(("total", "made"), [(6, 6), (2, 4), (15, 15)])
def test_the_number_of_steps_itself_can_be_changed(total: int, made: int) -> None:
    (reply,), _, _ = asked(lambda p: Change({"local-steps": total}) if p.steps_done == 4 else Continue())
    assert reply.content.metric_records["metrics"]["steps"] == made
    assert model_of(reply) == model_of(alone(made))


def test_a_dropped_nodes_work_reaches_nobody() -> None:
    replies, grid, counting = asked(
        lambda p: Drop() if p.node_id == 1000 else Continue(), messages=lambda: [order_to(1000), order_to(1001)]
    )
    assert [reply.has_error() for reply in replies] == [True, False]
    assert replies[0].metadata.src_node_id == 1000
    assert replies[0].error.reason == "dropped after 4 of 10 steps by decision"
    assert counting.steps(1000) == [(0, 4)]
    assert grid.events[0] == StepEvent(0, 1000, 4, "", "drop", "discarded")


@pytest.mark.parametrize("changed_before", [False, True])
def test_a_replacement_gives_what_it_had_given_if_asked_first(changed_before: bool) -> None:
    def give_to_1002(progress: Progress) -> Continue | Change | Replace:
        if progress.node_id == 1000 and progress.steps_done == 8:
            return Replace(1002)
        return Change({"lr": 9.0}) if changed_before and progress.node_id == 1000 else Continue()

    replies, grid, counting = asked(give_to_1002, messages=lambda: [order_to(1000), order_to(1001)])
    assert [reply.metadata.src_node_id for reply in replies] == [1002, 1001]
    assert model_of(replies[0]) == model_of(alone(10, node=1002))
    assert counting.steps(1002) == [(0, 4), (4, 8), (8, 10)]
    assert StepEvent(0, 1000, 8, "", "replace", "discarded; node 1002 begins anew", other_id=1002) in grid.events


def test_a_replaced_nodes_work_can_be_kept() -> None:
    replies, grid, _ = asked(lambda p: Replace(1002, keep_work=True) if p.node_id == 1000 else Continue())
    assert [(r.metadata.src_node_id, model_of(r)) for r in replies] == [
        (1000, model_of(alone(4))),
        (1002, model_of(alone(10, node=1002))),
    ]
    assert grid.events[0].outcome == "returned; node 1002 begins anew"


@pytest.mark.parametrize("decision", [Stop(), Stop(planned=True), Replace(1002, keep_work=True)])
def test_of_work_that_is_collected_the_event_tells_what_became_of_it(decision: Stop | Replace) -> None:
    def first(progress: Progress) -> Continue | Stop | Replace:
        return decision if progress.node_id == 1000 else Continue()

    word, then = ("stop", "") if isinstance(decision, Stop) else ("replace", "; node 1002 begins anew")
    other = None if isinstance(decision, Stop) else 1002
    for script, fate in (
        ([], "returned"),
        ([Fault(node=0, kind="raise", at=2, reason="disk full")], "lost: disk full"),
    ):
        _, grid, _ = asked(first, wishes={(0, 4): "stop"}, script=script)
        expected = f"{fate} as planned" if script == [] and decision == Stop(planned=True) else fate
        assert [event for event in grid.events if event.node_id == 1000] == [
            StepEvent(0, 1000, 4, "stop (load=0.9)", word, expected + then, other_id=other)
        ]


def test_a_replacement_that_is_busy_does_its_own_task_first() -> None:
    replies, _, counting = asked(
        lambda p: Replace(1001) if p.node_id == 1000 else Continue(), messages=lambda: [order_to(1000), order_to(1001)]
    )
    assert [model_of(reply) for reply in replies] == [model_of(alone(10, node=1001))] * 2
    assert counting.steps(1001) == [(0, 4), (4, 8), (8, 10)] * 2


def test_a_node_that_drops_out_can_be_replaced_and_is_not_asked_twice() -> None:
    out = Fault(node=0, kind="drop-out", at=2, reason="left the cell")
    (reply,), grid, _ = asked(lambda p: Replace(1001) if p.error else Continue(), script=[out])
    assert model_of(reply) == model_of(alone(10, node=1001))
    assert grid.events[1].outcome == "lost: left the cell; node 1001 begins anew"

    both = [out, Fault(node=1, kind="drop-out", at=1, reason="gone, too")]
    swap = {1000: 1001, 1001: 1000}
    (reply,), _, _ = asked(lambda p: Replace(swap[p.node_id]) if p.error else Continue(), script=both)
    assert reply.has_error()
    assert reply.error.reason == "gone, too"


def test_a_node_that_fails_answers_the_original_message_with_its_error() -> None:
    broken = Fault(node=0, kind="raise", at=2, reason="disk full")
    replies, grid, _ = asked(messages=lambda: [order_to(1000), order_to(1001)], script=[broken])
    assert [reply.has_error() for reply in replies] == [True, False]
    assert (replies[0].metadata.src_node_id, replies[0].error.reason) == (1000, "disk full")
    assert [event.outcome for event in grid.events if event.node_id == 1000] == ["kept on the node", "lost: disk full"]


def test_a_silent_node_is_left_behind_at_the_time_limit_and_can_work_in_the_next_round() -> None:
    with LocalGrid(learner(), nodes=2, script=[Fault(node=0, kind="silent", at=2)]) as local:
        grid = SteppedGrid(local, 4, poll_s=0.002)
        replies = list(grid.send_and_receive([order_to(1000), order_to(1001)], timeout=0.5))
        assert [reply.metadata.src_node_id for reply in replies] == [1001]
        assert grid.events[-1].outcome == "lost: no reply within 0.5 s"
        (reply,) = grid.send_and_receive([order_to(1000)], timeout=30)
    assert model_of(reply) == model_of(alone(10))


def test_a_late_slice_of_the_round_before_disturbs_nobody_and_is_cleared_away() -> None:
    with LocalGrid(learner(), nodes=1, script=[Fault(node=0, kind="late", at=2, delay_s=0.15)]) as local:
        counting = Counting(local)
        grid = SteppedGrid(counting, 4, poll_s=0.002)
        assert list(grid.send_and_receive([order_to(1000)], timeout=0.05)) == []
        (reply,) = grid.send_and_receive([order_to(1000, lr=0.01)], timeout=30)
        assert model_of(reply) == model_of(alone(10, lr=0.01))
        time.sleep(0.2)
        assert list(grid.pull_messages([])) == []
        assert list(local.pull_messages(counting.ids)) == []


def test_a_terminal_that_makes_no_step_at_all_does_not_hold_the_round() -> None:
    lazy = ClientApp(mods=[step_mod])

    @lazy.train()
    def train(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 0, "steps": 0})
        return Message(RecordDict({"arrays": record_of(START), "metrics": metrics}), reply_to=message)

    with LocalGrid(lazy, nodes=1) as local:
        grid = SteppedGrid(local, 4, poll_s=0.002)
        (reply,) = grid.send_and_receive([order_to(1000)], timeout=30)
    assert reply.error.reason == "stopped before its first step; it made no step"
    assert grid.events[0].outcome == "nothing to return; it made no step"


def test_a_client_without_the_mod_is_told_what_to_add() -> None:
    with LocalGrid(learner(mods=[]), nodes=1) as local:
        grid = SteppedGrid(local, 4, poll_s=0.002)
        with pytest.raises(ProtocolError, match=r"ClientApp\(mods=\[step_mod\]\)"):
            grid.send_and_receive([order_to(1000)], timeout=30)


def test_one_terminal_that_answers_nonsense_fails_alone() -> None:
    def lie(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        if context.node_id == 1001:
            reply.content.config_records["flower-edge.step"]["done"] = 10**9
        if context.node_id == 1002:
            del reply.content["flower-edge.step"]
        return reply

    with LocalGrid(learner(mods=[lie, step_mod]), nodes=3) as local:
        grid = SteppedGrid(local, 4, poll_s=0.002)
        replies = list(grid.send_and_receive([order_to(node) for node in (1000, 1001, 1002)], timeout=30))
    assert [reply.has_error() for reply in replies] == [False, True, True]
    assert "expected a step from 0 to 4" in str(replies[1].error.reason)
    assert "as if they were a whole task" in str(replies[2].error.reason)


def test_a_decision_that_is_none_and_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"decide returned 'stop'; expected Continue\(\)"):
        asked(lambda progress: "stop")  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="SteppedGrid writes these keys itself"):
        Change({"step-stop": 5})
    with LocalGrid(learner(), nodes=1) as local:
        for bad in ({"steps_per_message": 0}, {"steps_per_message": 1, "poll_s": 0.0}):
            with pytest.raises(ConfigError, match="expected"):
                SteppedGrid(local, **bad)
        with pytest.raises(ConfigError, match="'sum', 'mean' or 'last'"):
            SteppedGrid(local, 1, merge={"loss": "max"})  # type: ignore[dict-item]
