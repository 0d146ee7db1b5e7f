"""A round as a period: it ends for all at once, and everybody is weighed by what they did in it."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, Message
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st
from stepped_learner import BATCH, START, alone, learner, model_of, order_to

from flower_edge.errors import ConfigError
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import Change, Continue, Decision, Detach, Drop, Progress, Replace, Stop
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.messages import LATE_RECORD
from flower_edge.runtime.steps.period import UntilPeriodEnds
from flower_edge.wire import arrays_of, record_of

MANY = 10_000


def clocked(local: LocalGrid, *step_s: float) -> VirtualClock:
    return VirtualClock(local, [Device(step_s=s) for s in step_s], [Link()] * len(step_s))


def orders(number: int, *nodes: int) -> list[Message]:
    return [order_to(node, MANY, **{"server-round": number}) for node in nodes]


def test_a_terminal_makes_as_many_steps_as_the_period_has_room_for() -> None:
    with LocalGrid(learner(), nodes=3) as local:
        clock = clocked(local, 1.0, 2.5, 0.5)
        grid = SteppedGrid(clock, 1, UntilPeriodEnds(10.0))
        clock.wait_until(0.3)  # sums of these times are not exact in binary
        for number in (1, 2):
            replies = list(grid.send_and_receive(orders(number, 1000, 1001, 1002)))
            assert clock.now_s == pytest.approx(0.3 + 10.0 * number)
            assert [reply.content.metric_records["metrics"]["steps"] for reply in replies] == [10, 4, 20]
            whole = [alone(steps, node=node, **{"server-round": number}) for node, steps in ((1000, 10), (1001, 4))]
            assert [model_of(reply) for reply in replies[:2]] == [model_of(reply) for reply in whole]


def test_fedavg_weighs_everybody_by_the_steps_of_the_period() -> None:
    with LocalGrid(learner(), nodes=2) as local:
        grid = SteppedGrid(clocked(local, 1.0, 5.0), 1, UntilPeriodEnds(10.0))
        config = ConfigRecord({"local-steps": MANY})
        result = FedAvg(fraction_evaluate=0.0).start(grid, record_of(START), 1, train_config=config)
    fast, slow = (
        arrays_of(alone(steps, node=node, **{"server-round": 1}).content.array_records["arrays"])
        for node, steps in ((1000, 10), (1001, 2))
    )
    assert result.arrays is not None
    for name, array in arrays_of(result.arrays).items():
        expected = (10 * BATCH * fast[name] + 2 * BATCH * slow[name]) / (12 * BATCH)
        assert array == pytest.approx(expected, abs=1e-6)


def test_a_replacement_has_what_is_left_of_the_period() -> None:
    def swap(progress: Progress) -> Decision:
        return Replace(1001) if (progress.node_id, progress.steps_done) == (1000, 6) else Continue()

    with LocalGrid(learner(), nodes=2) as local:
        clock = clocked(local, 1.0, 1.0)
        (reply,) = SteppedGrid(clock, 1, UntilPeriodEnds(10.0, swap)).send_and_receive(orders(1, 1000))
    assert reply.metadata.src_node_id == 1001
    assert reply.content.metric_records["metrics"]["steps"] == 4
    assert clock.now_s == pytest.approx(10.0)


def test_a_period_around_another_policy_ends_in_time_and_the_other_way_round_it_does_not() -> None:
    def leaves(progress: Progress) -> Decision:
        return Replace(1001, keep_work=True) if (progress.node_id, progress.steps_done) == (1000, 8) else Continue()

    def around(progress: Progress) -> Decision:
        decision = leaves(progress)
        return UntilPeriodEnds(8.0)(progress) if decision == Continue() else decision

    ends_s = []
    for policy in (UntilPeriodEnds(8.0, leaves), around):
        with LocalGrid(learner(), nodes=2) as local:
            clock = clocked(local, 1.0, 1.0)
            list(SteppedGrid(clock, 4, policy).send_and_receive(orders(1, 1000)))
            ends_s.append(clock.now_s)
    assert ends_s == [8.0, 12.0]


def test_the_end_of_a_period_is_a_planned_one() -> None:
    with LocalGrid(learner(), nodes=1) as local:
        grid = SteppedGrid(clocked(local, 1.0), 5, UntilPeriodEnds(10.0))
        list(grid.send_and_receive(orders(1, 1000)))
    assert [(event.decision, event.outcome) for event in grid.events] == [
        ("continue", "kept on the node"),
        ("stop", "returned as planned"),
    ]


def test_a_terminal_that_is_detached_makes_the_steps_of_the_period_and_no_more() -> None:
    def leaves(progress: Progress) -> Decision:
        return Detach() if (progress.node_id, progress.round, progress.steps_done) == (1001, 1, 2) else Continue()

    with LocalGrid(learner(), nodes=2) as local:
        grid = SteppedGrid(clocked(local, 1.0, 2.0), 1, UntilPeriodEnds(10.0, leaves))
        assert len(list(grid.send_and_receive(orders(1, 1000, 1001)))) == 1
        late, _ = grid.send_and_receive(orders(2, 1000))
    assert late.content.config_records[LATE_RECORD]["steps"] == 5


at = st.floats(0.0, 1e6, allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(begun_s=at, spent=st.floats(0.0, 2.0), period_s=st.floats(0.1, 1e4))
def test_before_the_end_the_policy_inside_decides_and_at_the_end_nobody_goes_on(
    begun_s: float, spent: float, period_s: float
) -> None:
    if abs(spent - 1.0) < 1e-3:
        return
    progress = Progress(1, 4, MANY, now_s=begun_s + spent * period_s, round_begun_s=begun_s, step_s=period_s / 8)
    at_the_end: dict[Decision, Decision] = {
        Continue(enlist=(2,)): Stop(planned=True),
        Stop(): Stop(),
        Drop(): Drop(),
        Replace(2): Drop(),
        Replace(2, keep_work=True): Stop(planned=True),
        Detach(): Detach(steps=0),
        Detach(steps=3): Detach(steps=3),
    }
    for inside, expected in at_the_end.items():
        decision = UntilPeriodEnds(period_s, lambda _, inside=inside: inside)(progress)
        if spent > 1.0:
            assert decision == expected
        elif inside == Detach():
            assert isinstance(decision, Detach)
            assert decision.steps is not None
            assert 1 <= decision.steps <= 8
        else:
            assert decision == inside
    assert (UntilPeriodEnds(period_s, lambda _: Change({"lr": 0.1}))(progress) == Stop(planned=True)) == (spent > 1.0)


def test_no_time_at_all_is_no_period() -> None:
    with pytest.raises(ConfigError, match=r"UntilPeriodEnds\(0\.0\): expected more than 0 s"):
        UntilPeriodEnds(0.0)
