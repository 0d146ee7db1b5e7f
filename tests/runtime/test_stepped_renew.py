"""A node's model is renewed in the middle of its task: both parts count, each step once, whatever else happens."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st
from stepped_learner import BATCH, START, Counting, alone, asked, learner, model_of, order_to
from stepped_writer import NEW, OTHER, metrics_of, once, steps_in, written, wrote

from flower_edge.clients.steps import step_mod, steps_of
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import (
    Continue,
    Decision,
    Progress,
    Renew,
    Stop,
)
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.messages import Renewed, renewed_of
from flower_edge.wire import arrays_of, record_of


def test_the_strategy_gets_both_parts_each_with_its_own_steps_and_can_tell_them_apart() -> None:
    replies, grid, counting = wrote(once(4, Renew(written(2), "load 0.97")))
    assert [steps_in(reply) for reply in replies] == [([0, 1, 2, 3], 8), ([4, 5, 6, 7, 8, 9], 2)]
    assert [metrics_of(reply)["steps"] for reply in replies] == [4, 6]
    assert [metrics_of(reply)["num-examples"] for reply in replies] == [4 * BATCH, 6 * BATCH]
    assert [renewed_of(reply) for reply in replies] == [None, Renewed(1, 4)]
    assert {reply.metadata.src_node_id for reply in replies} == {1000}
    assert len({reply.metadata.reply_to_message_id for reply in replies}) == 1
    assert counting.steps(1000) == [(0, 4), (4, 4), (4, 8), (8, 10)]
    assert [arrays for _, _, arrays in counting.sent] == [1, 0, 1, 0], "each part's model travels once"
    renew = grid.events[0]
    assert (renew.decision, renew.step, renew.outcome, renew.why) == ("renew", 4, "returned", "load 0.97")


def test_a_task_that_is_not_renewed_says_nothing_new_on_the_wire() -> None:
    (reply,), _, counting = wrote(lambda progress: Continue())
    assert list(reply.content) == ["arrays", "metrics"]
    assert not [config for _, config, _ in counting.sent if "step-first" in config]


def test_both_parts_are_the_models_that_training_them_alone_gives() -> None:
    replies, _, _ = asked(once(4, Renew(NEW)))
    (whole,), _, _ = asked(messages=lambda: [order_to(1000, 4)], size=9)
    assert model_of(replies[0]) == model_of(whole) == model_of(alone(4))
    # The learner's batches are drawn by the absolute step and its momentum is the node's own: by hand the same.
    model, speed = dict(START), {name: np.zeros_like(array) for name, array in START.items()}
    for step in range(10):
        model = dict(OTHER) if step == 4 else model
        x = np.random.default_rng([0, 0, step]).standard_normal((BATCH, 3), dtype=np.float32)
        error = x @ model["w"] + model["b"] - x.sum(axis=1)
        for name, gradient in (("w", x.T @ error / BATCH), ("b", error.mean(keepdims=True))):
            speed[name] = np.float32(0.9) * speed[name] - np.float32(0.05) * gradient
            model[name] = model[name] + speed[name]
    assert model_of(replies[1]) == b"".join(array.data for array in record_of(model).values())


def test_a_model_can_be_renewed_again_and_what_was_told_is_told_to_the_policy() -> None:
    seen: list[tuple[int, int, int, int]] = []

    def smaller(progress: Progress) -> Decision:
        seen.append((progress.steps_done, progress.steps_total, progress.first_step, progress.renewals))
        return Renew(written(4 >> progress.renewals)) if progress.steps_done in (3, 6) else Continue()

    replies, _, _ = wrote(smaller, size=3)
    assert [steps_in(reply) for reply in replies] == [([0, 1, 2], 8), ([3, 4, 5], 4), ([6, 7, 8, 9], 2)]
    assert [renewed_of(reply) for reply in replies] == [None, Renewed(1, 3), Renewed(2, 6)]
    # A renewed task is at the step where it begins, and is asked about when it has made a slice.
    assert seen == [(3, 10, 0, 0), (6, 10, 3, 1), (9, 10, 6, 2)]


decisions = st.sampled_from(["continue", "renew", "stop"])


@settings(max_examples=40, deadline=None)
@given(
    script=st.lists(decisions, max_size=12),
    sizes=st.integers(1, 5),
    total=st.integers(2, 14),
)
def test_the_parts_are_the_steps_from_0_on_each_exactly_once_whatever_is_decided(
    script: list[str], sizes: int, total: int
) -> None:
    left = iter(script)
    widths = iter(range(7, 0, -1))

    def decide(progress: Progress) -> Decision:
        word = next(left, "continue")
        if word == "renew":
            return Renew(written(next(widths, 1)))
        return Stop() if word == "stop" else Continue()

    replies, grid, _ = wrote(decide, size=sizes, total=total, nodes=1)
    assert not any(reply.has_error() for reply in replies)
    made = [step for reply in replies for step in steps_in(reply)[0]]
    stopped = [event.step for event in grid.events if event.decision == "stop"]
    assert made == list(range(stopped[0] if stopped else total))
    for index, reply in enumerate(replies):
        steps, _ = steps_in(reply)
        assert metrics_of(reply)["num-examples"] == BATCH * len(steps)
        assert renewed_of(reply) == (Renewed(index, steps[0]) if index else None)


def test_where_nothing_was_done_there_is_nothing_to_collect() -> None:
    lazy: list[int] = []
    app = ClientApp(mods=[step_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        model, steps = arrays_of(message.content.array_records["arrays"]), steps_of(message)
        done = 0 if model["w"].size == 8 else len(steps)
        lazy.append(done)
        metrics = MetricRecord({"num-examples": done, "steps": done})
        return Message(RecordDict({"arrays": record_of(model), "metrics": metrics}), reply_to=message)

    with LocalGrid(app, nodes=1) as local:
        counting = Counting(local)
        grid = SteppedGrid(counting, 4, lambda p: Continue() if p.renewals else Renew(written(2)), poll_s=0.002)
        content = RecordDict({**written(8), "config": ConfigRecord({"local-steps": 6})})
        (reply,) = grid.send_and_receive([Message(content, 1000, "train")], timeout=30)
    assert (metrics_of(reply)["steps"], renewed_of(reply)) == (6, Renewed(1, 0))
    assert lazy == [0, 4, 2]
    assert counting.steps(1000) == [(0, 4), (0, 4), (4, 6)], "no message that only collects"
    assert grid.events[0].outcome == "nothing to return"


def test_a_renewed_node_that_makes_no_further_step_is_no_failure_its_first_part_is_in() -> None:
    def stop_at_once(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        if steps_of(message).start >= 4 and len(steps_of(message)):
            reply.content.metric_records["metrics"]["steps"] = 0
            reply.content["arrays"] = message.content["arrays"]
        return reply

    app = learner(mods=[step_mod, stop_at_once])
    with LocalGrid(app, nodes=1) as local:
        grid = SteppedGrid(local, 4, once(4, Renew(NEW)), poll_s=0.002)
        (reply,) = grid.send_and_receive([order_to(1000)], timeout=30)
    assert (metrics_of(reply)["steps"], renewed_of(reply)) == (4, None)
    assert grid.events[-1].outcome == "nothing to return; it made no step"


def test_collecting_that_fails_is_lost_and_told_and_the_steps_left_are_made() -> None:
    trouble = [Fault(node=0, kind="raise", at=2, reason="disk full")]
    replies, grid, _ = wrote(once(4, Renew(written(2), "too slow")), script=trouble)
    assert [reply.has_error() for reply in replies] == [True, False]
    assert replies[0].error.reason == "disk full"
    assert steps_in(replies[1]) == ([4, 5, 6, 7, 8, 9], 2)
    event = grid.events[0]
    assert (event.decision, event.outcome, event.why) == ("renew", "lost: disk full", "too slow")


def test_a_node_that_does_not_answer_any_more_loses_both_parts_at_the_time_limit_and_is_free_afterwards() -> None:
    with LocalGrid(learner(), nodes=1, script=[Fault(node=0, kind="silent", at=2)]) as local:
        grid = SteppedGrid(local, 4, once(4, Renew(NEW)), poll_s=0.002)
        assert list(grid.send_and_receive([order_to(1000)], timeout=0.1)) == []
        assert [(e.decision, e.step, e.outcome) for e in grid.events] == [
            ("renew", 4, "lost: no reply within 0.1 s"),
            ("none", 4, "lost: not begun; no reply within 0.1 s"),
        ]
        replies = list(grid.send_and_receive([order_to(1000)], timeout=30))
    assert [metrics_of(reply)["steps"] for reply in replies] == [4, 6]


def test_the_steps_left_are_made_before_another_task_that_waits_for_the_node() -> None:
    decide = once(4, Renew(NEW))
    replies, _, counting = asked(decide, messages=lambda: [order_to(1000), order_to(1000, 6)])
    assert counting.steps(1000)[:5] == [(0, 4), (4, 4), (4, 8), (8, 10), (0, 4)]
    assert [metrics_of(reply)["steps"] for reply in replies] == [4, 6, 4, 2]
