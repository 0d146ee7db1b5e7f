"""VirtualClock over LocalGrid: arrival order, deadlines, quorums, busy nodes, shared uplinks, stepping, checkpoints."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.clients.properties import answer_properties
from flower_edge.errors import ConfigError, NestingError, ProtocolError
from flower_edge.ledger import Ledger
from flower_edge.runtime import abilities
from flower_edge.runtime.clock.devices import Device, Link, Work, draw_devices, draw_links
from flower_edge.runtime.clock.trips import Trip
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.flower_private import clone_message
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.wrapped_grid import WrappedGrid, grid_state, load_grid_state
from flower_edge.wire import payload_bits

STEPS = 10


def app_with(reply_bytes: int = 0) -> ClientApp:
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        content = RecordDict({"metrics": MetricRecord({"steps": STEPS, "num-examples": 1 + place})})
        sent = message.content.array_records.get("arrays", ArrayRecord())
        content["arrays"] = blob(reply_bytes) if reply_bytes else ArrayRecord(dict(sent))
        return Message(content, reply_to=message)

    app.train()(answer)
    app.evaluate()(answer)
    return answer_properties(app)


def blob(count_bytes: int) -> ArrayRecord:
    """A record of one Array with so many bytes of data, names and labels included."""
    record = ArrayRecord({"b": Array("uint8", (0,), "s", b"")})
    empty_bytes = record.count_bytes()
    assert count_bytes >= empty_bytes
    return ArrayRecord({"b": Array("uint8", (0,), "s", bytes(count_bytes - empty_bytes))})


GRIDS: list[LocalGrid] = []


def local(nodes: Any, **options: Any) -> LocalGrid:
    """A LocalGrid that is closed when the test is over."""
    GRIDS.append(LocalGrid(options.pop("app", None) or app_with(), nodes=nodes, **options))
    return GRIDS[-1]


@pytest.fixture(autouse=True)
def closed_grids() -> Iterator[None]:
    local(1)  # messages can be built from here on
    yield
    while GRIDS:
        GRIDS.pop().close()


def clocked(
    nodes: int,
    *,
    step_s: Iterable[float] | None = None,
    script: Iterable[Fault] = (),
    pool: Literal["sequential", "threads"] = "sequential",
    app: ClientApp | None = None,
    wrap: Callable[[Grid], Grid] = lambda grid: grid,
    **options: Any,
) -> VirtualClock:
    devices = [Device(step_s=seconds) for seconds in step_s] if step_s else [Device()] * nodes
    options = {"devices": devices, "links": [Link()] * nodes, **options}
    return VirtualClock(wrap(local(nodes, app=app, script=script, pool=pool)), **options)


def messages_to(nodes: Iterable[int], content: RecordDict | None = None, kind: str = "train") -> list[Message]:
    return [Message(content or RecordDict(), LocalGrid.FIRST_NODE_ID + place, kind) for place in nodes]


def keys(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.src_node_id - LocalGrid.FIRST_NODE_ID for reply in replies]


# -- one message -------------------------------------------------------------------------------------------------------


def test_a_round_trip_worked_by_hand_takes_8_and_a_half_seconds() -> None:
    # Down: 125 000 bytes = 1 Mbit at 2 Mbit/s = 0.5 s, and 0.25 s latency. Computing: 0.5 s to start, 10 steps of
    # 0.3 s. Up: 250 000 bytes = 2 Mbit at 0.5 Mbit/s = 4 s, and 0.25 s latency. In all 8.5 s.
    metric_bytes = MetricRecord({"steps": STEPS, "num-examples": 1}).count_bytes()
    grid = clocked(
        1,
        app=app_with(reply_bytes=250_000 - metric_bytes),
        devices=[Device(step_s=0.3, fixed_s=0.5)],
        links=[Link(up_bps=0.5e6, down_bps=2e6, latency_s=0.25)],
    )
    grid.send_and_receive(messages_to([0], RecordDict({"arrays": blob(125_000)})))
    (trip,) = grid.trips
    assert (trip.down_s, trip.compute_s, trip.wait_s, trip.up_s) == (0.75, 3.5, 0.0, 4.25)
    assert grid.now_s == trip.arrival_s == 8.5
    assert grid.ledger == Ledger(down_bits=1_000_000, up_bits=2_000_000, down_messages=1, up_messages=1, virtual_s=8.5)


def test_bits_are_those_of_the_real_messages() -> None:
    content = RecordDict({"arrays": ArrayRecord([np.arange(7.0), np.ones((3, 2), np.float32)])})
    grid = clocked(3)
    replies = list(grid.send_and_receive(messages_to(range(3), content)))
    assert grid.ledger.down_bits == 3 * payload_bits(content) > 0
    assert grid.ledger.up_bits == sum(payload_bits(reply.content) for reply in replies)
    assert {trip.message_id: trip.up_bits for trip in grid.trips} == {
        reply.metadata.reply_to_message_id: payload_bits(reply.content) for reply in replies
    }


def test_replies_answer_the_messages_that_were_sent() -> None:
    grid = clocked(3)
    messages = messages_to(range(3))
    replies = grid.send_and_receive(messages)
    assert {r.metadata.reply_to_message_id for r in replies} == {m.metadata.message_id for m in messages}


def test_what_travels_is_the_content_of_the_moment_of_sending() -> None:
    grid = clocked(1)
    content = RecordDict({"arrays": ArrayRecord({"w": Array(np.array([1.0]))})})
    ids = grid.push_messages(messages_to([0], content))
    content.array_records["arrays"]["w"] = Array(np.array([2.0]))
    grid.advance_to_next()
    (reply,) = grid.pull_messages(ids)
    assert reply.content.array_records["arrays"]["w"].numpy().tolist() == [1.0]


# -- a round -----------------------------------------------------------------------------------------------------------

populations = st.lists(st.floats(0.0, 100.0), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(populations, st.data())
def test_replies_come_in_the_order_of_their_arrival_and_the_round_takes_the_slowest(
    step_s: list[float], data: st.DataObject
) -> None:
    grid = clocked(len(step_s), step_s=step_s)
    sampled = data.draw(st.permutations(range(len(step_s))))[: data.draw(st.integers(1, len(step_s)))]
    replies = keys(grid.send_and_receive(messages_to(sampled)))
    assert replies == sorted(sampled, key=lambda place: (STEPS * step_s[place], sampled.index(place)))
    assert grid.now_s == max(STEPS * step_s[place] for place in sampled)
    assert [trip.arrival_s for trip in grid.trips] == sorted(trip.arrival_s for trip in grid.trips)


@settings(max_examples=40, deadline=None)
@given(populations, st.floats(0.1, 1200.0))
def test_a_deadline_drops_exactly_the_replies_that_arrive_later(step_s: list[float], deadline_s: float) -> None:
    grid = clocked(len(step_s), step_s=step_s, deadline_s=deadline_s)
    replies = keys(grid.send_and_receive(messages_to(range(len(step_s)))))
    in_time = [place for place, seconds in enumerate(step_s) if STEPS * seconds <= deadline_s]
    assert sorted(replies) == in_time
    assert grid.late == len(step_s) - len(in_time)
    slowest_s = max(STEPS * seconds for seconds in step_s)
    assert grid.now_s == min(slowest_s, deadline_s)


def test_a_reply_that_arrives_exactly_at_the_deadline_is_in_time() -> None:
    grid = clocked(2, step_s=[0.125, 0.1251], deadline_s=1.25)
    assert keys(grid.send_and_receive(messages_to([0, 1]))) == [0]


def test_a_quorum_ends_the_round_with_its_last_member() -> None:
    grid = clocked(4, step_s=[0.4, 0.1, 0.3, 0.2], quorum=0.5)
    assert keys(grid.send_and_receive(messages_to(range(4)))) == [1, 3]
    assert grid.now_s == pytest.approx(2.0)
    assert grid.late == 2
    assert grid.ledger.up_messages == 4


def test_an_error_is_there_at_once_and_does_not_count_towards_the_quorum() -> None:
    grid = clocked(3, step_s=[0.1, 0.2, 0.3], quorum=2, script=[Fault(0, "raise")])
    replies = list(grid.send_and_receive(messages_to(range(3))))
    assert keys(replies) == [0, 1, 2]
    assert replies[0].has_error()
    assert grid.now_s == pytest.approx(3.0)
    assert (grid.ledger.up_messages, grid.ledger.failed_messages) == (2, 1)


def test_a_silent_node_holds_the_round_up_until_the_deadline_or_else_until_the_last_reply() -> None:
    script = [Fault(1, "silent")]
    with_deadline = clocked(3, step_s=[0.1, 0.1, 0.3], script=script, deadline_s=50.0)
    assert keys(with_deadline.send_and_receive(messages_to(range(3)))) == [0, 2]
    assert with_deadline.now_s == 50.0
    without = clocked(3, step_s=[0.1, 0.1, 0.3], script=script)
    assert keys(without.send_and_receive(messages_to(range(3)))) == [0, 2]
    assert without.now_s == pytest.approx(3.0)
    assert without.ledger.failed_messages == 1


class NotesTimeout(WrappedGrid):
    """Remembers for how long it was told to wait."""

    waits: float | None = -1.0

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        self.waits = timeout
        return self.inner.send_and_receive(messages, timeout=timeout)


def test_timeout_is_real_time_unless_virtual_time_was_asked_for() -> None:
    real = clocked(1, step_s=[10.0], wrap=NotesTimeout)
    assert keys(real.send_and_receive(messages_to([0]), timeout=5.0)) == [0]
    assert (real.now_s, real.inner.waits) == (100.0, 5.0)  # type: ignore[attr-defined]
    virtual = clocked(1, step_s=[10.0], wrap=NotesTimeout, virtual_timeout=True)
    assert keys(virtual.send_and_receive(messages_to([0]), timeout=5.0)) == []
    assert (virtual.now_s, virtual.inner.waits) == (5.0, None)  # type: ignore[attr-defined]


def test_evaluation_takes_time_too() -> None:
    grid = clocked(1, step_s=[0.5])
    grid.send_and_receive(messages_to([0], kind="evaluate"))
    assert grid.now_s == STEPS * 0.5
    assert grid.trips[0].kind == "evaluate"


def test_the_work_of_a_message_can_be_told_by_a_function() -> None:
    def work(message: Message, reply: Message) -> Work:
        return Work(flops=300.0 if message.metadata.message_type == "train" else 100.0)

    grid = clocked(1, devices=[Device(flops_per_s=100.0, step_s=9.0)], work=work)
    grid.send_and_receive(messages_to([0]))
    grid.send_and_receive(messages_to([0], kind="evaluate"))
    assert grid.now_s == 4.0


@pytest.mark.parametrize("steps", [float("nan"), float("inf"), -5.0, [1.0, 2.0]])
def test_steps_that_cannot_be_count_as_none(steps: Any) -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord({"steps": steps})}), reply_to=message)

    grid = clocked(1, step_s=[1.0], app=app)
    grid.send_and_receive(messages_to([0]))
    assert grid.now_s == 0.0


# -- busy nodes and shared uplinks -------------------------------------------------------------------------------------


def test_a_straggler_begins_its_next_message_when_its_late_reply_is_in() -> None:
    grid = clocked(2, step_s=[0.1, 0.5], deadline_s=2.0)
    assert keys(grid.send_and_receive(messages_to([0, 1]))) == [0]
    assert grid.now_s == 2.0
    assert keys(grid.send_and_receive(messages_to([0, 1]))) == [0]
    assert {trip.key: (trip.start_s, trip.arrival_s) for trip in grid.trips} == {0: (2.0, 3.0), 1: (5.0, 10.0)}


def test_two_messages_to_one_node_are_handled_one_after_the_other() -> None:
    grid = clocked(1, step_s=[0.1])
    assert len(list(grid.send_and_receive(messages_to([0, 0, 0])))) == 3
    assert [trip.start_s for trip in grid.trips] == [0.0, 1.0, 2.0]
    assert grid.now_s == 3.0


def test_nodes_of_a_cell_share_its_uplink_one_reply_at_a_time_each_at_the_smaller_rate() -> None:
    bits = 1_000_000
    metric_bytes = MetricRecord({"steps": STEPS, "num-examples": 1}).count_bytes()
    grid = clocked(
        3,
        step_s=[0.0, 0.05, 0.0],
        links=[Link(latency_s=0.25), Link(up_bps=0.5e6), Link()],
        app=app_with(reply_bytes=bits // 8 - metric_bytes),
        cell_of=lambda key: "far" if key == 2 else "near",
        cell_up_bps={"near": 1e6},
    )
    grid.send_and_receive(messages_to(range(3)))
    times = {trip.key: (trip.wait_s, trip.up_s, trip.arrival_s) for trip in grid.trips}
    # Node 0 is ready at 0.25 s, sends for 1 s, and is in a latency later; node 1 is ready at 0.5 s and waits for it.
    assert times == {0: (0.0, 1.25, 1.5), 1: (0.75, 2.0, 3.25), 2: (0.0, 0.0, 0.0)}


# -- time --------------------------------------------------------------------------------------------------------------


def uneven(nodes: int, **options: Any) -> VirtualClock:
    return clocked(
        nodes,
        devices=draw_devices(nodes, seed=2, jitter=0.5),
        links=draw_links(nodes, seed=2, jitter=0.5),
        cell_of=lambda key: "cell",
        cell_up_bps={"cell": 5e3},
        **options,
    )


def several_rounds(grid: VirtualClock, rounds: int = 3) -> list[tuple[Trip, ...]]:
    told = []
    for _ in range(rounds):
        grid.send_and_receive(messages_to([3, 0, 2, 1]), timeout=30.0)
        told.append(grid.trips)
    return told


def test_times_repeat_with_their_seed_and_change_with_it() -> None:
    first = several_rounds(uneven(4, seed=1))
    assert several_rounds(uneven(4, seed=1)) == first
    assert several_rounds(uneven(4, seed=2)) != first


def test_jitter_is_drawn_anew_for_every_message() -> None:
    durations = {trip.compute_s for trips in several_rounds(uneven(4, seed=1)) for trip in trips}
    assert len(durations) == 12


def test_sequential_and_threaded_grids_and_a_proxy_between_give_the_same_times() -> None:
    sequential = several_rounds(uneven(4, seed=1))
    assert several_rounds(uneven(4, seed=1, pool="threads")) == sequential
    between = uneven(4, seed=1, pool="threads", wrap=lambda grid: GridProxy(grid, poll_s=0.05, order="arrival"))
    assert several_rounds(between) == sequential


def test_times_belong_to_partitions_not_to_node_ids() -> None:
    def arrivals(places: list[int]) -> dict[int | str, float]:
        inner = local([{"partition-id": place} for place in places])
        grid = VirtualClock(GridProxy(inner), draw_devices(4, 1, jitter=0.4), draw_links(4, 1, jitter=0.4), seed=9)
        grid.send_and_receive([Message(RecordDict(), node_id, "train") for node_id in grid.get_node_ids()])
        return {trip.key: trip.arrival_s for trip in grid.trips}

    assert arrivals([0, 1, 2, 3]) == arrivals([2, 0, 3, 1])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["round", "push", "pull", "next", "wait"]), st.integers(0, 40)), max_size=12))
def test_time_never_runs_backwards_and_no_reply_is_early_lost_or_given_twice(plan: list[tuple[str, int]]) -> None:
    grid = clocked(3, step_s=[0.1, 0.7, 2.0], deadline_s=15.0)
    ids: list[str] = []
    given: list[str] = []
    arrival_s: dict[str, float] = {}
    for action, number in plan:
        before_s = grid.now_s
        if action == "round":
            grid.send_and_receive(messages_to([number % 3]))
        elif action == "push":
            ids += grid.push_messages(messages_to([number % 3]))
        elif action == "pull":
            given += [reply.metadata.reply_to_message_id for reply in grid.pull_messages(ids)]
        elif action == "next":
            grid.advance_to_next()
        else:
            grid.wait_until(float(number))
        arrival_s |= {trip.message_id: trip.arrival_s for trip in grid.trips}
        assert grid.now_s >= before_s
        assert all(arrival_s[message_id] <= grid.now_s for message_id in given)
    while grid.advance_to_next() is not None:
        given += [reply.metadata.reply_to_message_id for reply in grid.pull_messages(ids)]
    assert sorted(given) == sorted(ids)
    arrival_s |= {trip.message_id: trip.arrival_s for trip in grid.trips}
    assert grid.ledger.down_messages == grid.ledger.up_messages == len(arrival_s)


def test_stepping_gives_replies_one_by_one_as_an_asynchronous_strategy_wants_them() -> None:
    grid = clocked(3, step_s=[0.3, 0.1, 0.2])
    ids = list(grid.push_messages(messages_to(range(3))))
    assert list(grid.pull_messages(ids)) == []
    seen = []
    while (now_s := grid.advance_to_next()) is not None:
        seen.append((round(now_s, 9), keys(grid.pull_messages(ids))))
        if len(seen) == 1:
            ids += grid.push_messages(messages_to([1]))
    assert seen == [(1.0, [1]), (2.0, [2, 1]), (3.0, [0])]


def test_waiting_moves_time_forward_only_and_refuses_what_is_no_time() -> None:
    grid = clocked(1)
    grid.wait_until(4.0)
    grid.wait_until(2.0)
    assert grid.now_s == 4.0
    with pytest.raises(ConfigError, match="expected a finite time"):
        grid.wait_until(float("nan"))


# -- a load that changes, and what is known of the last message --------------------------------------------------------


def test_a_slowdown_counts_from_when_the_node_begins_to_compute() -> None:
    # Down in 2 s, computing 10 s alone. The load comes at 3 s: it is the second message that meets it.
    asked: list[tuple[int | str, float]] = []

    def slowdown(key: int | str, time_s: float) -> float:
        asked.append((key, time_s))
        return 1.0 if time_s < 3.0 else 2.5

    grid = clocked(1, devices=[Device(step_s=0.5, fixed_s=5.0)], links=[Link(latency_s=2.0)], slowdown=slowdown)
    grid.send_and_receive(messages_to([0, 0]))
    assert [(trip.compute_s, trip.arrival_s) for trip in grid.trips] == [(10.0, 14.0), (25.0, 43.0)]
    assert asked == [(0, 2.0), (0, 16.0)]


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 50.0))
def test_a_constant_slowdown_is_a_slower_device(factor: float) -> None:
    slowed = clocked(2, step_s=[0.5, 0.25], slowdown=lambda key, time_s: factor)
    slower = clocked(2, step_s=[0.5 * factor, 0.25 * factor])
    for grid in (slowed, slower):
        grid.send_and_receive(messages_to([0, 1, 0]))
    assert slowed.now_s == pytest.approx(slower.now_s)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_slowdown_that_cannot_be_is_refused_with_its_node_and_time(factor: float) -> None:
    grid = clocked(1, links=[Link(latency_s=2.0)], slowdown=lambda key, time_s: factor)
    with pytest.raises(ConfigError, match=rf"slowdown\(0, 2\) = {factor}: expected a finite factor above 0"):
        grid.send_and_receive(messages_to([0]))


def test_the_last_training_message_of_a_node_is_known_once_its_reply_is_in() -> None:
    grid = clocked(2, step_s=[0.1, 0.4])
    ids = grid.push_messages(messages_to([0, 1, 1]))
    seen = []
    while (now_s := grid.advance_to_next()) is not None:
        seen.append((now_s, grid.last_duration_s(1000), grid.last_duration_s(1001)))
        list(grid.pull_messages(ids))
    # The second message of node 1 was sent at 0 s and waited for the first.
    assert seen == [(1.0, 1.0, None), (4.0, 1.0, 4.0), (8.0, 1.0, 8.0)]
    trip = grid.last_trip(1001)
    assert trip is not None
    assert (trip.sent_s, trip.start_s, trip.compute_s, trip.arrival_s) == (0.0, 4.0, 4.0, 8.0)


def test_a_late_reply_tells_how_long_its_node_took_when_it_would_have_been_in() -> None:
    grid = clocked(2, step_s=[0.1, 0.4], deadline_s=2.0)
    grid.send_and_receive(messages_to([0, 1]))
    assert (grid.late, grid.last_duration_s(1001)) == (1, None)
    grid.wait_until(4.0)
    assert grid.last_duration_s(1001) == 4.0


def test_evaluation_and_errors_do_not_change_what_is_known_of_the_last_training() -> None:
    grid = clocked(1, step_s=[0.1], script=[Fault(0, "raise", at=3)])
    for kind in ("train", "evaluate", "train"):
        grid.send_and_receive(messages_to([0], kind=kind))
    assert [trip.failed for trip in grid.trips] == [True]
    trip = grid.last_trip(1000)
    assert trip is not None
    assert (trip.kind, trip.sent_s, trip.arrival_s) == ("train", 0.0, 1.0)
    assert abilities.last_duration_s(WrappedGrid(grid), 1000) == 1.0


def test_a_checkpoint_holds_the_last_training_of_every_node_and_that_of_late_ones() -> None:
    grid = clocked(2, step_s=[0.1, 0.4], deadline_s=2.0)
    grid.send_and_receive(messages_to([0, 1]))
    resumed = clocked(2, step_s=[0.1, 0.4], deadline_s=2.0)
    load_grid_state(resumed, grid_state(grid))
    for one in (grid, resumed):
        one.wait_until(10.0)
        assert (one.last_duration_s(1000), one.last_duration_s(1001)) == (1.0, 4.0)
    assert resumed.last_trip(1001) == grid.last_trip(1001)


# -- with a strategy, and checkpoints ----------------------------------------------------------------------------------


def test_fedavg_runs_on_the_clock_and_its_rounds_add_up() -> None:
    grid = clocked(4, step_s=[0.1, 0.2, 0.3, 0.4])
    random.seed(1)
    result = FedAvg().start(grid, ArrayRecord([np.arange(3.0)]), num_rounds=3)
    assert result.arrays.to_numpy_ndarrays()[0] == pytest.approx(np.arange(3.0))
    assert grid.now_s == pytest.approx(3 * 2 * STEPS * 0.4)
    assert grid.ledger.up_messages == grid.ledger.down_messages == 3 * 2 * 4


def test_a_restored_clock_goes_on_as_if_nothing_had_happened() -> None:
    whole = uneven(4, seed=6, deadline_s=0.5)
    expected = several_rounds(whole, 5)
    first = uneven(4, seed=6, deadline_s=0.5)
    assert several_rounds(first, 2) == expected[:2]
    assert first.late > 0
    state = grid_state(first)

    resumed = uneven(4, seed=6, deadline_s=0.5)
    load_grid_state(resumed, state)
    assert grid_state(resumed) == state
    assert several_rounds(resumed, 3) == expected[2:]
    assert (resumed.now_s, resumed.ledger, resumed.late) == (whole.now_s, whole.ledger, whole.late)


def test_a_checkpoint_of_other_cells_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"with the cells \['cell'\], this one has \[\]"):
        clocked(4).load_state_dict(uneven(4).state_dict())


# -- what is refused ---------------------------------------------------------------------------------------------------


class TakesNewIds(WrappedGrid):
    """Sends copies of its own, as a grid must not that is inside a clock."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.inner.send_and_receive([clone_message(message) for message in messages], timeout=timeout)


def test_a_node_without_a_device_or_a_partition_is_named() -> None:
    with pytest.raises(ConfigError, match=r"node 1002 is 2, and there is no device or no link for 2: 2 devices"):
        clocked(3, devices=[Device()] * 2).push_messages(messages_to([2]))
    inner = local([{"partition-id": True}])
    with pytest.raises(ConfigError, match="node 1000 has no partition-id"):
        VirtualClock(inner, [Device()], [Link()]).push_messages(messages_to([0]))


def test_nodes_may_have_names_instead_of_partitions() -> None:
    grid = clocked(2, devices={"a": Device(step_s=1.0), "b": Device()}, links={"a": Link(), "b": Link()},
                   key_of=lambda node_id: "ab"[node_id - 1000])  # fmt: skip
    assert keys(grid.send_and_receive(messages_to([0, 1]))) == [1, 0]
    assert [trip.key for trip in grid.trips] == ["b", "a"]


def test_replies_to_messages_that_were_not_sent_are_refused() -> None:
    grid = VirtualClock(TakesNewIds(local(1)), [Device()], [Link()])
    with pytest.raises(ProtocolError, match="TakesNewIds gave 1 replies to messages that were not sent"):
        grid.send_and_receive(messages_to([0]))


def test_wrong_nesting_is_refused_with_the_right_one() -> None:
    inner = local(1)
    with pytest.raises(NestingError, match=r"write VirtualClock\(GridProxy\(grid\), ..., quorum=...\)"):
        VirtualClock(GridProxy(inner, quorum=0.5), [Device()], [Link()])
    with pytest.raises(NestingError, match="keep one of them"):
        VirtualClock(VirtualClock(inner, [Device()], [Link()]), [Device()], [Link()])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"deadline_s": 0.0}, "deadline_s = 0.0"),
        ({"quorum": 2.0}, "quorum = 2.0"),
        ({"cell_of": str}, "needs both cell_of"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        clocked(1, **options)


# -- the page ----------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "virtual_clock.md"


@pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not part of an installed package")
def test_the_page_about_the_clock_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    printed = re.findall(r"```text\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    for block, expected in zip(code, printed, strict=True):
        exec(compile(block, str(PAGE), "exec"), names)
        assert capsys.readouterr().out == expected
