"""A detached node goes on alone; its reply is handed to its own cell later, once, when the node can be reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from stepped_learner import BATCH, START, Counting, alone, learner, model_of, order_to

from flower_edge.errors import ConfigError
from flower_edge.rounds import Round
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import Continue, Decision, Detach, Progress, StepEvent
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.messages import LATE_RECORD
from flower_edge.runtime.wrapped_grid import announce, grid_state, load_grid_state
from flower_edge.wire import record_of


def leaves(node: int, steps: int | None = None, at: int = 4) -> Callable[[Progress], Decision]:
    """The node goes out of reach after so many steps of round 1."""

    def decide(progress: Progress) -> Decision:
        gone = (progress.node_id, progress.round, progress.steps_done) == (node, 1, at)
        return Detach(steps) if gone else Continue()

    return decide


@contextmanager
def clocked(
    decide: Callable[[Progress], Decision], *step_s: float, **options: Any
) -> Iterator[tuple[SteppedGrid, VirtualClock]]:
    with LocalGrid(learner(), nodes=len(step_s)) as local:
        clock = VirtualClock(local, [Device(step_s=s) for s in step_s], [Link()] * len(step_s))
        yield SteppedGrid(clock, 4, decide, **options), clock


def train(grid: SteppedGrid, number: int, *nodes: int, cell: str = "a", steps: int = 10) -> list[Message]:
    announce(grid, Round(number, 1, cell))
    messages = [order_to(node, steps, **{"server-round": number}) for node in nodes]
    return list(grid.send_and_receive(messages, timeout=30))


def whole(node: int, number: int = 1, steps: int = 10) -> bytes:
    return model_of(alone(steps, node=node, **{"server-round": number}))


def test_the_exchange_does_not_wait_and_the_reply_comes_first_in_a_later_one_marked_as_late() -> None:
    with clocked(leaves(1001), 1.0, 3.0) as (grid, clock):
        (own,) = train(grid, 1, 1000, 1001)
        assert (own.metadata.src_node_id, clock.now_s) == (1000, 12.0), "as long as the slice took"
        clock.wait_until(40.0)
        late, fresh = train(grid, 2, 1000)
    assert late.metadata.src_node_id == 1001
    assert late.metadata.reply_to_message_id not in (own.metadata.reply_to_message_id, "")
    assert dict(late.content.config_records[LATE_RECORD]) == {"base-round": 1, "cell": "a", "steps": 10}
    assert late.content.metric_records["metrics"]["num-examples"] == 10 * BATCH
    assert [model_of(late), model_of(fresh)] == [whole(1001), whole(1000, 2)]
    assert [event for event in grid.events if event.node_id == 1001] == [
        StepEvent(1, 1001, 4, "", "detach", "kept on the node; nobody waits for it", "a"),
        StepEvent(1, 1001, 10, "", "none", "returned late, in round 2", "a"),
    ]


def test_what_is_left_travels_as_one_slice_without_arrays_on_the_way_out() -> None:
    with LocalGrid(learner(), nodes=1) as local:
        counting = Counting(local)
        train(SteppedGrid(counting, 2, leaves(1000), poll_s=0.002), 1, 1000)
    assert counting.steps(1000) == [(0, 2), (2, 4), (4, 10)]
    assert [config["step-return"] for _, config, _ in counting.sent] == [False, False, True]
    assert [arrays for _, _, arrays in counting.sent] == [1, 0, 0]


def test_a_late_reply_is_handed_out_once_and_in_its_own_cell_only() -> None:
    with clocked(leaves(1001), 1.0, 1.0, 1.0) as (grid, clock):
        train(grid, 1, 1000, 1001)
        clock.wait_until(40.0)
        assert [r.metadata.src_node_id for r in train(grid, 2, 1002, cell="b")] == [1002]
        assert [r.metadata.src_node_id for r in train(grid, 2, 1000)] == [1001, 1000]
        assert [r.metadata.src_node_id for r in train(grid, 3, 1000)] == [1000]


def test_a_reply_that_is_not_there_yet_lets_nobody_wait() -> None:
    with clocked(leaves(1001), 1.0, 20.0) as (grid, clock):
        train(grid, 1, 1000, 1001)
        begun_s = clock.now_s
        assert [r.metadata.src_node_id for r in train(grid, 2, 1000)] == [1000]
        assert clock.now_s == pytest.approx(begun_s + 10.0)
        assert [event.outcome for event in grid.lost_work()] == ["lost: still under way at the end"]
        clock.wait_until(500.0)
        assert [r.metadata.src_node_id for r in train(grid, 3, 1000)] == [1001, 1000]
        assert grid.lost_work() == []


def test_a_node_out_of_reach_keeps_its_reply_until_it_can_be_reached() -> None:
    reached: set[int] = set()
    with clocked(leaves(1001), 1.0, 1.0, reachable=reached.__contains__) as (grid, clock):
        train(grid, 1, 1000, 1001)
        clock.wait_until(50.0)
        assert [r.metadata.src_node_id for r in train(grid, 2, 1000)] == [1000]
        assert [event.outcome for event in grid.lost_work()] == ["not handed out by the end"]
        reached.add(1001)
        late, _ = train(grid, 3, 1000)
    assert late.content.config_records[LATE_RECORD]["base-round"] == 1


def test_evaluation_is_no_time_to_hand_in_training_and_a_message_in_one_piece_is() -> None:
    with clocked(leaves(1001), 1.0, 1.0) as (grid, clock):
        train(grid, 1, 1000, 1001)
        clock.wait_until(50.0)
        evaluate = Message(RecordDict({"config": ConfigRecord({"x": 1})}), 1000, "evaluate")
        assert [r.metadata.src_node_id for r in grid.send_and_receive([evaluate])] == [1000]
        assert [r.metadata.src_node_id for r in train(grid, 2, 1000, steps=2)] == [1001, 1000]


def test_a_detached_node_is_busy_and_begins_its_next_task_after_it() -> None:
    with clocked(leaves(1001), 1.0, 2.0) as (grid, clock):
        train(grid, 1, 1000, 1001)
        assert clock.now_s == pytest.approx(10.0)
        replies = train(grid, 2, 1001)
        assert clock.now_s == pytest.approx(20.0 + 20.0)
        assert [model_of(reply) for reply in replies] == [whole(1001, 2)]
        assert [model_of(reply) for reply in train(grid, 3, 1000)][:1] == [whole(1001)]


@pytest.mark.parametrize(("steps", "made"), [(0, 4), (3, 7), (99, 10)])
def test_a_detached_task_can_be_told_to_end_earlier(steps: int, made: int) -> None:
    with clocked(leaves(1001, steps), 1.0, 1.0) as (grid, clock):
        train(grid, 1, 1000, 1001)
        clock.wait_until(50.0)
        late, _ = train(grid, 2, 1000)
    assert model_of(late) == whole(1001, steps=made)
    assert late.content.config_records[LATE_RECORD]["steps"] == made
    with pytest.raises(ConfigError, match=r"Detach\(steps=-1\)"):
        Detach(-1)


def test_whoever_pushes_and_pulls_gets_the_late_reply_under_the_id_of_the_message() -> None:
    with clocked(leaves(1000), 1.0) as (grid, clock):
        ids = list(grid.push_messages([order_to(1000, **{"server-round": 1})]))
        got: list[Message] = []
        while clock.advance_to_next() is not None:
            got += grid.pull_messages(ids)
        assert list(grid.pull_messages(ids)) == []
    assert [model_of(reply) for reply in got] == [whole(1000)]
    assert LATE_RECORD in got[0].content


def test_what_a_detached_node_fails_at_is_lost_and_recorded() -> None:
    out = Fault(node=1, kind="raise", at=2, reason="battery empty")
    with LocalGrid(learner(), nodes=2, script=[out]) as local:
        grid = SteppedGrid(local, 4, leaves(1001), poll_s=0.002)
        assert [r.metadata.src_node_id for r in train(grid, 1, 1000, 1001)] == [1000]
        assert [r.metadata.src_node_id for r in train(grid, 2, 1000)] == [1000]
        assert grid.events[-3].outcome == "lost: battery empty"
        assert [r.metadata.src_node_id for r in train(grid, 3, 1001)] == [1001]


def test_a_detached_node_that_never_comes_back_is_given_up_with_the_task_that_waited_for_it() -> None:
    with LocalGrid(learner(), nodes=2, script=[Fault(node=1, kind="silent", at=2)]) as local:
        grid = SteppedGrid(local, 4, leaves(1001), poll_s=0.002)
        train(grid, 1, 1000, 1001)
        announce(grid, Round(2, 1, "a"))
        assert list(grid.send_and_receive([order_to(1001)], timeout=0.05)) == []
        assert [event.outcome for event in grid.events[-2:]] == [
            "lost: not begun; no reply within 0.05 s",
            "lost: no reply within 0.05 s",
        ]
        assert [model_of(r) for r in train(grid, 3, 1001)] == [whole(1001, 3)]


def test_a_reply_that_has_arrived_survives_a_checkpoint_and_one_under_way_is_told_to_be_lost() -> None:
    reached: set[int] = set()

    def gone(progress: Progress) -> Decision:
        return Detach() if progress.node_id > 1000 and progress.round == 1 else Continue()

    with clocked(gone, 1.0, 2.0, 50.0, reachable=reached.__contains__) as (grid, clock):
        train(grid, 1, 1000, 1001, 1002)
        clock.wait_until(250.0)
        train(grid, 2, 1000)
        saved = grid_state(grid)
        lost = [event for event in grid.lost_work() if "under way" in event.outcome]
    with clocked(gone, 1.0, 2.0, 50.0) as (fresh, _):
        load_grid_state(fresh, saved)
        assert fresh.events == [*grid.events, *lost]
        assert [event.node_id for event in lost] == [1002]
        assert fresh.last_duration_s(1001) == pytest.approx(20.0)
        late, _ = train(fresh, 3, 1000)
        assert fresh.lost_work() == []
    assert (late.metadata.src_node_id, model_of(late)) == (1001, whole(1001))
    assert late.content.config_records[LATE_RECORD]["base-round"] == 1


def test_every_event_is_drained_once_also_by_whoever_goes_on_from_a_checkpoint() -> None:
    def gone(progress: Progress) -> Decision:
        return Detach() if progress.node_id == 1001 else Continue()

    with clocked(gone, 1.0, 50.0) as (grid, clock):
        train(grid, 1, 1000, 1001)
        clock.wait_until(201.0)
        train(grid, 2, 1000)
        drained = grid.drain_events()
        assert drained == grid.events
        assert [event.outcome for event in drained if event.node_id == 1001] == [
            "kept on the node; nobody waits for it"
        ]
        assert grid.drain_events() == []
        between_rounds = grid_state(grid)
        assert [event.outcome for event in grid.drain_events(ended=True)] == ["lost: still under way at the end"]
        at_the_end = grid_state(grid)
    for saved, told in ((between_rounds, ["lost: still under way at the end"]), (at_the_end, [])):
        with clocked(gone, 1.0, 50.0) as (fresh, _):
            load_grid_state(fresh, saved)
            assert [event.outcome for event in fresh.drain_events()] == told
            assert fresh.drain_events(ended=True) == []


def test_fedavg_merges_a_late_reply_like_any_other() -> None:
    class Told(FedAvg):
        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[Any, Any]:
            replies = list(replies)
            came.append([reply.metadata.src_node_id for reply in replies])
            return super().aggregate_train(server_round, replies)

    came: list[list[int]] = []
    with clocked(leaves(1001), 1.0, 1.5) as (grid, _):
        config = ConfigRecord({"local-steps": 7})
        result = Told(fraction_evaluate=0.0).start(grid, record_of(START), 3, train_config=config)
    assert [sorted(nodes) for nodes in came] == [[1000], [1000, 1001], [1000, 1001, 1001]]
    assert came[2][0] == 1001
    assert result.train_metrics_clientapp[3]["steps"] == pytest.approx(7.0), "an aggregate was made of all three"


def test_a_real_grid_hands_out_late_replies_too() -> None:
    with LocalGrid(learner(), nodes=2, pool="threads") as local:
        grid = SteppedGrid(local, 4, leaves(1001), poll_s=0.002)
        train(grid, 1, 1000, 1001)
        for number in range(2, 50):
            time.sleep(0.01)
            if len(replies := train(grid, number, 1000)) == 2:
                break
    assert model_of(replies[0]) == whole(1001)
