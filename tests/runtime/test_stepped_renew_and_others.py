"""After a node's model was renewed every other decision holds, time passes, and what cannot be sent is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.exception import InconsistentMessageReplies
from flwr.serverapp.strategy import FedAvg
from stepped_learner import START, learner, order_to
from stepped_writer import NEW, metrics_of, once, steps_in, writer, written, wrote

from flower_edge.clients.steps import step_mod
from flower_edge.errors import ConfigError
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import (
    Change,
    Continue,
    Decide,
    Decision,
    Detach,
    Drop,
    Progress,
    Renew,
    Replace,
    Stop,
)
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.messages import LATE_RECORD, Renewed, renewed_of
from flower_edge.runtime.steps.period import UntilPeriodEnds
from flower_edge.wire import record_of


def test_stop_after_a_renewal_collects_the_second_part_as_it_is() -> None:
    replies, grid, _ = wrote(lambda p: Stop() if p.renewals else Renew(written(2)))
    assert [steps_in(reply) for reply in replies] == [([0, 1, 2, 3], 8), ([4, 5, 6, 7], 2)]
    assert [(event.decision, event.step, event.outcome) for event in grid.events] == [
        ("renew", 4, "returned"),
        ("stop", 8, "returned"),
    ]


def test_drop_after_a_renewal_drops_the_second_part_alone() -> None:
    replies, _, _ = wrote(lambda p: Drop() if p.renewals else Renew(written(2)))
    assert steps_in(replies[0]) == ([0, 1, 2, 3], 8)
    assert replies[1].error.reason == "dropped after 8 of 10 steps by decision"


@pytest.mark.parametrize("keep_work", [False, True])
def test_a_replacement_after_a_renewal_makes_the_steps_from_there_with_the_renewed_records(keep_work: bool) -> None:
    def decide(progress: Progress) -> Decision:
        if progress.node_id != 1000:
            return Continue()
        return Replace(1001, keep_work) if progress.renewals else Renew(written(2))

    replies, _, counting = wrote(decide)
    parts = [(reply.metadata.src_node_id, *steps_in(reply), renewed_of(reply)) for reply in replies]
    kept = [(1000, [4, 5, 6, 7], 2, Renewed(1, 4))] if keep_work else []
    assert parts == [(1000, [0, 1, 2, 3], 8, None), *kept, (1001, [4, 5, 6, 7, 8, 9], 2, Renewed(1, 4))]
    assert counting.steps(1001) == [(4, 8), (8, 10)]


def test_a_renewed_node_that_fails_can_be_replaced_from_the_step_of_the_renewal_on() -> None:
    trouble = [Fault(node=0, kind="raise", at=4, reason="out of memory")]
    replies, _, _ = wrote(
        once(4, Renew(written(2)), lambda p: Replace(1001) if p.error else Continue()), script=trouble
    )
    assert [(r.metadata.src_node_id, *steps_in(r)) for r in replies] == [
        (1000, [0, 1, 2, 3], 8),
        (1001, [4, 5, 6, 7, 8, 9], 2),
    ]


def test_a_node_enlisted_beside_a_renewed_one_begins_with_the_message_as_the_strategy_made_it() -> None:
    replies, _, _ = wrote(lambda p: Continue(enlist=(1001,)) if p.renewals else once(4, Renew(written(2)))(p))
    assert [(r.metadata.src_node_id, *steps_in(r), renewed_of(r)) for r in replies] == [
        (1000, [0, 1, 2, 3], 8, None),
        (1000, [4, 5, 6, 7, 8, 9], 2, Renewed(1, 4)),
        (1001, list(range(10)), 8, None),
    ]


def test_a_change_before_a_renewal_holds_after_it_unless_the_renewal_says_otherwise() -> None:
    def rates(records: Mapping[str, ArrayRecord | ConfigRecord]) -> list[float]:
        def decide(progress: Progress) -> Decision:
            if progress.steps_done == 2:
                return Change({"lr": 0.5})
            return Renew(records) if progress.steps_done == 4 else Continue()

        replies, _, counting = wrote(decide, size=2, total=8, lr=0.25)
        assert [metrics_of(reply)["steps"] for reply in replies] == [4, 4]
        assert {config["local-steps"] for _, config, _ in counting.sent} == {8}
        return [config["lr"] for _, config, _ in counting.sent]

    assert rates(written(2)) == [0.25, 0.5, 0.5, 0.5, 0.5]
    assert rates({**written(2), "config": ConfigRecord({"lr": 0.125})}) == [0.25, 0.5, 0.5, 0.125, 0.125]


def test_a_number_of_steps_that_was_changed_stays_changed_for_the_renewed_node_and_who_replaces_it() -> None:
    def decide(progress: Progress) -> Decision:
        if progress.node_id != 1000:
            return Continue()
        if progress.renewals:
            return Replace(1001)
        return Change({"local-steps": 14}) if progress.steps_done == 4 else Renew(written(2))

    replies, _, _ = wrote(decide)
    assert [(r.metadata.src_node_id, steps_in(r)[0]) for r in replies] == [
        (1000, list(range(8))),
        (1001, list(range(8, 14))),
    ]


def test_records_of_other_names_stay_and_new_config_records_come_with_the_renewed_part() -> None:
    seen: list[list[str]] = []

    def look(message: Message, context: Context, call_next: Any) -> Message:
        seen.append(sorted(message.content))
        return call_next(message, context)  # type: ignore[no-any-return]

    with LocalGrid(learner(mods=[step_mod, look]), nodes=1) as local:
        order = order_to(1000)
        order.content["extra"] = ConfigRecord({"k": 1})
        grid = SteppedGrid(local, 5, once(5, Renew({**NEW, "size": ConfigRecord({"rate": 0.5})})), poll_s=0.002)
        grid.send_and_receive([order], timeout=30)
    assert seen == [["arrays", "config", "extra"], ["arrays", "config", "extra", "size"]]


def test_a_detached_renewed_node_hands_in_its_second_part_alone() -> None:
    with LocalGrid(learner(), nodes=1) as local:
        clock = VirtualClock(local, [Device(step_s=1.0)], [Link()])
        grid = SteppedGrid(clock, 4, lambda p: Detach() if p.renewals else Renew(NEW))
        (first,) = grid.send_and_receive([order_to(1000, 10, **{"server-round": 1})], timeout=30)
        clock.wait_until(60.0)
        late, *_ = grid.send_and_receive([order_to(1000, 10, **{"server-round": 2})], timeout=30)
    assert metrics_of(first)["steps"] == 4
    assert (metrics_of(late)["steps"], renewed_of(late)) == (6, Renewed(1, 4))
    assert late.content.config_records[LATE_RECORD]["steps"] == 6


def test_on_a_virtual_clock_collecting_and_the_new_model_take_their_time() -> None:
    link = Link(up_bps=8_000.0, down_bps=8_000.0)

    def took(decide: Decide) -> tuple[float, float | None, list[float]]:
        paces: list[float] = []

        def watched(progress: Progress) -> Decision:
            assert progress.step_s is not None
            paces.append(progress.step_s)
            return decide(progress)

        with LocalGrid(writer(), nodes=1) as local:
            clock = VirtualClock(local, [Device(step_s=1.0)], [link])
            grid = SteppedGrid(clock, 4, watched)
            content = RecordDict({**written(4_000), "config": ConfigRecord({"local-steps": 12})})
            list(grid.send_and_receive([Message(content, 1000, "train")], timeout=30))
            return clock.now_s, grid.last_duration_s(1000), paces

    whole_s, _, _ = took(lambda progress: Continue())
    renewed_s, told_s, paces = took(once(4, Renew(written(2_000))))
    # 12 steps either way; once more a model of 16 kB up, and one of 8 kB down instead of up at the end.
    assert renewed_s - whole_s == pytest.approx(16.0, rel=0.15)
    assert told_s == renewed_s, "from the first slice of all, not that of the renewed part"
    assert paces[1] == pytest.approx(1.0 + (8.0 + 1.0) / 4, rel=0.2), "the new pace is the renewed part's own"


def test_a_cut_off_waits_for_the_renewed_part_before_it_counts_the_node() -> None:
    with LocalGrid(learner(), nodes=2) as local:
        clock = VirtualClock(local, [Device(step_s=1.0), Device(step_s=2.0)], [Link(), Link()])
        grid = SteppedGrid(clock, 4, once(4, Renew(NEW)))
        with grid.cut_off_at(1):
            replies = list(grid.send_and_receive([order_to(1000), order_to(1001)], timeout=30))
    assert [(r.metadata.src_node_id, metrics_of(r)["steps"]) for r in replies] == [(1000, 4), (1000, 6)]


def test_at_the_end_of_a_period_there_is_nothing_to_renew_for() -> None:
    decide = UntilPeriodEnds(20.0, then=lambda progress: Renew(written(2)))
    assert decide(Progress(1000, 10, 99, now_s=120.0, round_begun_s=100.0)) == Stop(planned=True)
    assert isinstance(decide(Progress(1000, 8, 99, now_s=116.0, round_begun_s=100.0)), Renew)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Renew({}), "expected at least one record"),
        (lambda: Renew({"arrays": MetricRecord()}), "MetricRecord, expected an ArrayRecord or a ConfigRecord"),  # type: ignore[dict-item]
        (lambda: Renew({"config": ConfigRecord({"step-first": 3})}), "step-first, which SteppedGrid writes itself"),
    ],
)
def test_records_that_cannot_be_sent_are_refused_where_the_decision_is_made(
    make: Callable[[], Renew], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ({"model": ArrayRecord()}, "'model' did not come with the message, which has 'arrays'"),
        ({"arrays": ConfigRecord()}, "is of type ArrayRecord in the message and would become ConfigRecord"),
        ({"config": ConfigRecord({"local-steps": 5})}, "local-steps = 5 in record 'config', and the task has 10"),
    ],
)
def test_records_that_do_not_fit_the_message_are_refused_with_what_to_type(
    records: dict[str, ArrayRecord | ConfigRecord], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        wrote(once(4, Renew(records)))


def test_a_terminal_cannot_claim_to_be_renewed() -> None:
    def forge(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        reply.content["flower-edge.renewed"] = Renewed(7, 3).to_record()
        return reply

    for size in (4, 20):  # in slices, and as a message in one piece
        with LocalGrid(learner(mods=[forge, step_mod]), nodes=1) as local:
            (reply,) = SteppedGrid(local, size, poll_s=0.002).send_and_receive([order_to(1000)], timeout=30)
        assert renewed_of(reply) is None
        assert list(reply.content) == ["arrays", "metrics"]


def test_flowers_own_strategy_takes_two_parts_of_one_shape_and_refuses_arrays_of_other_names() -> None:
    def train(new: dict[str, Any]) -> Any:
        with LocalGrid(learner(), nodes=2) as local:
            grid = SteppedGrid(local, 4, once(4, Renew({"arrays": record_of(new)})), poll_s=0.002)
            config = ConfigRecord({"local-steps": 10})
            return FedAvg(fraction_evaluate=0.0).start(
                grid, record_of(START), num_rounds=1, timeout=30, train_config=config
            )

    # Of two nodes' ten steps each, in three replies: the mean of steps is weighed by steps.
    steps = train(START).train_metrics_clientapp[1]["steps"]
    assert steps == pytest.approx((4 * 4 + 6 * 6 + 10 * 10) / 20)
    with pytest.raises(InconsistentMessageReplies):
        train({**START, "another": START["b"]})
