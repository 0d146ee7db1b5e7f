"""VirtualClock with lanes: causality, shared uplinks, whoever waits for whose reply, SteppedGrid shared by lanes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from logging import INFO
from typing import Any

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st
from stepped_learner import alone, learner, model_of, order_to

from flower_edge.errors import ConfigError
from flower_edge.runtime.clock.devices import Device, Link, draw_devices, draw_links
from flower_edge.runtime.clock.lanes import LaneCancelled
from flower_edge.runtime.clock.trips import Trip
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.wrapped_grid import WrappedGrid

#: A lane that never ends would hang the whole run.
pytestmark = pytest.mark.timeout(60)


def app() -> ClientApp:
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord({"steps": 10, "num-examples": 1})}), reply_to=message)

    app.train()(answer)
    app.evaluate()(answer)
    return app


class Noting(WrappedGrid):
    """Passes everything on and notes which nodes really ran, in which order."""

    def __init__(self, inner: LocalGrid) -> None:
        super().__init__(inner)
        self.ran: list[list[int]] = []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        messages = list(messages)
        self.ran.append([message.metadata.dst_node_id - 1000 for message in messages])
        return self.inner.send_and_receive(messages, timeout=timeout)


GRIDS: list[LocalGrid] = []


def local(nodes: int) -> LocalGrid:
    """A LocalGrid that is closed when the test is over."""
    GRIDS.append(LocalGrid(app(), nodes=nodes))
    return GRIDS[-1]


@pytest.fixture(autouse=True)
def closed_grids() -> Iterator[None]:
    yield
    while GRIDS:
        GRIDS.pop().close()


def clocked(*fixed_s: float, **options: Any) -> VirtualClock:
    """One node per duration: an exchange with it takes so many seconds."""
    return VirtualClock(
        Noting(local(len(fixed_s))), [Device(fixed_s=one) for one in fixed_s], [Link()] * len(fixed_s), **options
    )


def to(*nodes: int, kind: str = "train") -> list[Message]:
    return [Message(RecordDict(), 1000 + node, kind) for node in nodes]


def senders(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.src_node_id - 1000 for reply in replies]


def ran(clock: VirtualClock) -> list[list[int]]:
    assert isinstance(clock.inner, Noting)
    return clock.inner.ran


def rounds_with(clock: VirtualClock, nodes: Sequence[int], rounds: int) -> Callable[[], list[Trip]]:
    """A job: so many rounds with these nodes; returns the trips."""

    def job() -> list[Trip]:
        trips = []
        for _ in range(rounds):
            list(clock.send_and_receive(to(*nodes)))
            trips += [trip for node in nodes if (trip := clock.last_trip(1000 + node)) is not None]
        return trips

    return job


# -- causality ---------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 4), st.integers(0, 2**20))
def test_lanes_with_nodes_of_their_own_give_the_trips_of_clocks_of_their_own(
    sizes: list[int], rounds: int, seed: int
) -> None:
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    cells = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]
    cell_of = {node: f"cell-{at}" for at, nodes in enumerate(cells) for node in nodes}

    def clock() -> VirtualClock:
        return VirtualClock(
            local(sum(sizes)),
            draw_devices(sum(sizes), seed, jitter=0.5),
            draw_links(sum(sizes), seed, jitter=0.5),
            seed=seed,
            quorum=0.6,
            cell_of=lambda key: cell_of[int(key)],
            cell_up_bps={f"cell-{at}": 5e3 for at in range(len(sizes))},
        )

    together = clock()
    apart = [clock() for _ in cells]
    found = together.side_by_side([rounds_with(together, nodes, rounds) for nodes in cells])
    expected = [rounds_with(one, nodes, rounds)() for one, nodes in zip(apart, cells, strict=True)]

    def told(trips: list[list[Trip]]) -> list[list[Trip]]:
        # The ids count the messages of a clock.
        return [[replace(trip, message_id="") for trip in of_cell] for of_cell in trips]

    assert told(found) == told(expected)
    assert together.now_s == max(one.now_s for one in apart)
    assert together.late == sum(one.late for one in apart)
    assert together.ledger.up_bits == sum(one.ledger.up_bits for one in apart)


def test_messages_really_run_in_the_order_in_which_they_are_sent_in_virtual_time() -> None:
    clock = clocked(1.0, 2.5, 0.4)
    clock.side_by_side([rounds_with(clock, [node], rounds) for node, rounds in ((0, 4), (1, 2), (2, 3))])
    #                     0 s            0.4  0.8  1 s  2 s  2.5  3 s
    assert ran(clock) == [[0], [1], [2], [2], [2], [0], [0], [1], [0]]
    assert clock.now_s == 5.0


def test_a_node_that_moves_is_asked_by_the_second_edge_when_its_reply_to_the_first_is_in() -> None:
    clock = clocked(4.0, 1.0)

    def first() -> None:
        with clock.cut_off_at(1):
            assert senders(clock.send_and_receive(to(0, 1))) == [1]

    def second() -> Trip | None:
        clock.wait_until(2.0)
        list(clock.send_and_receive(to(0)))
        return clock.last_trip(1000)

    _, trip = clock.side_by_side([first, second])
    assert trip is not None
    assert (trip.sent_s, trip.start_s, trip.arrival_s) == (2.0, 4.0, 8.0)


def test_a_lane_that_is_later_does_not_take_the_uplink_from_one_that_is_earlier() -> None:
    metric_bits = 8 * MetricRecord({"steps": 10, "num-examples": 1}).count_bytes()
    # A reply takes 1 s on the uplink that all share.
    shared = {"cell_of": lambda key: "all", "cell_up_bps": {"all": float(metric_bits)}}
    clock = clocked(10.0, 1.0, 4.5, **shared)
    waits = clock.side_by_side([rounds_with(clock, [0], 3), rounds_with(clock, [1], 2), rounds_with(clock, [2], 1)])
    assert [[(trip.wait_s, trip.arrival_s) for trip in trips] for trips in waits] == [
        [(0.0, 11.0), (0.0, 22.0), (0.0, 33.0)],
        [(0.0, 2.0), (0.0, 4.0)],
        [(0.0, 5.5)],
    ]


def test_what_is_booked_on_an_uplink_is_kept_for_lanes_that_come_later() -> None:
    metric_bits = 8 * MetricRecord({"steps": 10, "num-examples": 1}).count_bytes()
    shared = {"cell_of": lambda key: "all", "cell_up_bps": {"all": float(metric_bits)}}
    clock = clocked(2.5, 1.0, **shared)
    trips = clock.side_by_side([rounds_with(clock, [0], 1), rounds_with(clock, [1], 3)])
    # Node 0 has the uplink in [2.5, 3.5] from the beginning: node 1, ready at 3 s, waits for half a second.
    assert [(trip.wait_s, trip.arrival_s) for trip in trips[1]] == [(0.0, 2.0), (0.5, 4.5), (0.0, 6.5)]


def test_a_lane_that_ends_without_waiting_for_its_messages_has_sent_them() -> None:
    clock = clocked(2.0, 5.0)

    def fails() -> None:
        clock.push_messages(to(1))
        raise ValueError("after sending")

    def pushes() -> list[str]:
        return list(clock.push_messages(to(0)))

    pushed, failed = clock.spawn(pushes), clock.spawn(fails)
    clock.wait_for([pushed, failed])
    assert (ran(clock), clock.now_s) == ([[0], [1]], 0.0)
    clock.wait_until(3.0)
    assert senders(clock.pull_messages(pushed.result())) == [0]
    with pytest.raises(ValueError, match="after sending"):
        failed.result()


# -- results -----------------------------------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_jobs_and_time_is_that_of_the_last() -> None:
    clock = clocked(3.0, 1.0)
    jobs = [lambda node=node: senders(clock.send_and_receive(to(node))) for node in (0, 1)]
    assert clock.side_by_side(jobs) == [[0], [1]]
    assert clock.now_s == 3.0
    assert clock.side_by_side([]) == []


def test_the_first_exception_in_the_list_is_raised_after_all_have_ended() -> None:
    clock = clocked(1.0)
    ended: list[float] = []

    def fails(time_s: float, word: str) -> None:
        clock.wait_until(time_s)
        raise ValueError(word)

    def ends() -> None:
        clock.wait_until(9.0)
        ended.append(clock.now_s)

    with pytest.raises(ValueError, match="listed first"):
        clock.side_by_side([ends, lambda: fails(5.0, "listed first"), lambda: fails(1.0, "raised first")])
    assert ended == [9.0]
    assert clock.now_s == 9.0


def test_lanes_inside_lanes_end_before_their_parent_goes_on() -> None:
    clock = clocked(1.0, 2.0, 4.0)

    def parent() -> float:
        clock.side_by_side([rounds_with(clock, [0], 2), rounds_with(clock, [1], 2)])
        return clock.now_s

    assert clock.side_by_side([parent, lambda: list(clock.send_and_receive(to(2))) and clock.now_s]) == [4.0, 4.0]


def test_waiting_for_the_first_of_several_lanes_leaves_the_others_on_their_way() -> None:
    clock = clocked(3.0, 1.0, 2.0)
    lanes = [clock.spawn(lambda node=node: senders(clock.send_and_receive(to(node)))) for node in range(3)]  # type: ignore[misc]
    assert [lane.result() for lane in clock.wait_for(lanes, count=1)] == [[1]]
    assert clock.now_s == 1.0
    clock.wait_until(2.5)
    assert [lane.ended_s for lane in lanes] == [None, 1.0, 2.0]
    assert [lane.result() for lane in clock.wait_for(lanes)] == [[1], [2], [0]]


def test_cancelled_lanes_stop_where_they_wait() -> None:
    clock = clocked(3.0)
    seen: list[str] = []

    def job() -> None:
        try:
            clock.send_and_receive(to(0))
        except LaneCancelled:
            seen.append(f"cancelled at {clock.now_s:g}")
            raise

    clock.spawn(lambda: clock.side_by_side([job, job]))
    clock.wait_until(1.0)
    clock.cancel()
    assert seen == ["cancelled at 1"] * 2
    clock.wait_until(20.0)
    assert clock.advance_to_next() is None


def test_an_interrupt_in_one_job_cancels_the_others() -> None:
    clock = clocked(3.0)

    def interrupted() -> None:
        clock.wait_until(1.0)
        raise KeyboardInterrupt

    closed: list[float] = []

    def other() -> None:
        try:
            clock.wait_until(2.0)
        finally:
            closed.append(clock.now_s)

    with pytest.raises(KeyboardInterrupt):
        clock.side_by_side([other, interrupted])
    assert closed == [1.0]


def test_calls_from_another_thread_are_refused_while_lanes_are_open() -> None:
    clock = clocked(1.0)
    lane = clock.spawn(rounds_with(clock, [0], 1))
    caught: list[str] = []

    def elsewhere() -> None:
        calls: list[Callable[[], Any]] = [
            lambda: clock.push_messages(to(0)),
            lambda: clock.pull_messages([]),
            lambda: clock.send_and_receive(to(0)),
            lambda: clock.wait_until(1.0),
            clock.advance_to_next,
        ]
        for call in calls:
            try:
                call()
            except ConfigError as error:
                caught.append(str(error))

    thread = threading.Thread(target=elsewhere, name="stranger")
    thread.start()
    thread.join()
    assert len(caught) == 5
    assert all("'stranger' is not in the lane that runs" in text for text in caught)
    clock.wait_for([lane])
    assert ran(clock) == [[0]]


def test_a_checkpoint_with_open_lanes_says_so_and_none_is_loaded_into_them(caplog: pytest.LogCaptureFixture) -> None:
    clock = clocked(2.0)
    lane = clock.spawn(rounds_with(clock, [0], 1))
    clock.wait_until(1.0)
    with caplog.at_level(INFO):
        state = clock.state_dict()
    assert "1 lanes are open" in caplog.text
    with pytest.raises(ConfigError, match=r"1 lanes are open; wait for them or cancel\(\)"):
        clock.load_state_dict(state)
    clock.wait_for([lane])
    caplog.clear()
    clock.load_state_dict(clock.state_dict())
    assert caplog.text == ""
    assert clock.now_s == 2.0


# -- whoever waits for whatever comes next -----------------------------------------------------------------------------


def test_a_lane_does_not_wait_for_the_replies_of_an_exchange_of_another() -> None:
    clock = clocked(2.0, 7.0)

    def exchanges() -> None:
        clock.send_and_receive(to(0))

    def steps() -> list[float | None]:
        clock.push_messages(to(1))
        return [clock.advance_to_next(), clock.now_s]

    assert clock.side_by_side([exchanges, steps]) == [None, [7.0, 7.0]]
    assert clock.side_by_side([steps, exchanges])[0] == [7.0, 7.0]


def test_whoever_waits_is_woken_by_what_another_lane_sends_meanwhile() -> None:
    clock = clocked(9.0, 1.0)

    def waits() -> list[float | None]:
        clock.push_messages(to(0))
        return [clock.advance_to_next(), clock.advance_to_next()]

    def sends() -> None:
        clock.wait_until(2.0)
        clock.push_messages(to(1))

    assert clock.side_by_side([waits, sends])[0] == [3.0, 3.0]


def test_a_reply_that_was_there_and_not_asked_for_is_passed_over() -> None:
    clock = clocked(1.0, 5.0, 0.0)
    ids = list(clock.push_messages(to(0, 1)))
    assert clock.advance_to_next() == 1.0
    assert clock.advance_to_next() == 1.0
    assert list(clock.pull_messages(ids[1:])) == []
    assert clock.advance_to_next() == 5.0
    assert senders(clock.pull_messages(ids[1:])) == [1]
    assert clock.advance_to_next() is None
    assert senders(clock.pull_messages(ids)) == [0]
    # Sent later and there at once: not the one that was passed over.
    list(clock.pull_messages(clock.push_messages(to(1))))
    ids = list(clock.push_messages(to(2)))
    assert clock.advance_to_next() == 5.0
    assert senders(clock.pull_messages(ids)) == [2]
    assert clock.advance_to_next() == 10.0


def test_pushes_that_nobody_pulls_stop_nobody() -> None:
    clock = clocked(*[0.5 * (node + 1) for node in range(6)])

    def litters(node: int) -> None:
        for at in range(4):
            clock.push_messages(to(node))
            clock.wait_until(at + 1.0)

    def polls(node: int) -> float:
        ids = set(clock.push_messages(to(node, node)))
        while ids:
            ids -= {reply.metadata.reply_to_message_id for reply in clock.pull_messages(list(ids))}
            if ids:
                assert clock.advance_to_next() is not None
        return clock.now_s

    jobs = [lambda: litters(0), lambda: polls(3), lambda: litters(1), lambda: polls(4), lambda: polls(5)]
    assert clock.side_by_side(jobs) == [None, 4.0, None, 5.0, 6.0]


actions = st.lists(st.tuples(st.sampled_from(["round", "push", "pull", "next", "wait"]), st.integers(0, 3)), max_size=8)


@settings(max_examples=40)
@given(st.lists(actions, min_size=1, max_size=3))
def test_whatever_lanes_do_time_never_runs_backwards_and_each_gets_each_of_its_replies_once(
    programs: list[list[tuple[str, int]]],
) -> None:
    def run() -> list[list[tuple[str, float]]]:
        clock = clocked(0.0, 1.0, 1.5, 4.0, deadline_s=3.0)
        times_s: list[float] = []

        def lane(program: list[tuple[str, int]]) -> list[tuple[str, float]]:
            ids: list[str] = []
            told: list[tuple[str, float]] = []

            def pull() -> None:
                told.extend((reply.metadata.reply_to_message_id, clock.now_s) for reply in clock.pull_messages(ids))

            for action, number in program:
                if action == "round":
                    list(clock.send_and_receive(to(number)))
                elif action == "push":
                    ids += clock.push_messages(to(number))
                elif action == "pull":
                    pull()
                elif action == "next":
                    clock.advance_to_next()
                else:
                    clock.wait_until(clock.now_s + number / 2)
                times_s.append(clock.now_s)
            while len(told) < len(ids):
                # The next reply of some lane; this one goes on for as long as one of its own is missing.
                assert clock.advance_to_next() is not None
                pull()
                times_s.append(clock.now_s)
            assert sorted(message_id for message_id, _ in told) == sorted(ids)
            return told

        found = clock.side_by_side([lambda program=program: lane(program) for program in programs])  # type: ignore[misc]
        assert times_s == sorted(times_s)
        return found

    first = run()
    assert run() == first


steps_of_lanes = st.lists(st.lists(st.integers(1, 17), min_size=1, max_size=2), min_size=2, max_size=4)


@settings(max_examples=15)
@given(steps_of_lanes, st.sampled_from([3, 4, 5]), st.booleans())
def test_lanes_share_one_stepped_grid_and_each_gets_its_replies_at_their_time(
    plan: list[list[int]], size: int, litter: bool
) -> None:
    """Each lane has a node of its own, with a second per step; nodes after them answer what nobody asks for."""
    with LocalGrid(learner(), nodes=2 * len(plan)) as local_grid:
        clock = VirtualClock(local_grid, [Device(step_s=1.0)] * 2 * len(plan), [Link()] * 2 * len(plan))
        grid = SteppedGrid(clock, size)

        def edge(place: int) -> list[tuple[bytes, float]]:
            told = []
            for steps in plan[place]:
                if litter:
                    clock.push_messages([order_to(1000 + len(plan) + place, steps=2)])
                (reply,) = grid.send_and_receive([order_to(1000 + place, steps)], timeout=60)
                told.append((model_of(reply), clock.now_s))
            return told

        found = clock.side_by_side([lambda place=place: edge(place) for place in range(len(plan))])  # type: ignore[misc]
        for place, (of_lane, orders) in enumerate(zip(found, plan, strict=True)):
            for at, (model, time_s) in enumerate(of_lane):
                assert model == model_of(alone(orders[at], node=1000 + place))
                assert time_s == pytest.approx(sum(orders[: at + 1]))


def test_lanes_may_ask_one_node_through_one_stepped_grid() -> None:
    with LocalGrid(learner(), nodes=2) as local_grid:
        clock = VirtualClock(local_grid, [Device(step_s=1.0)] * 2, [Link()] * 2)
        grid = SteppedGrid(clock, 4)

        def edge(*orders: tuple[int, int]) -> tuple[int, float]:
            sent = [order_to(1000 + node, steps) for node, steps in orders]
            return len(list(grid.send_and_receive(sent, timeout=60))), clock.now_s

        # The second lane's task for node 0 begins when the first lane's has ended.
        assert clock.side_by_side([lambda: edge((0, 6)), lambda: edge((0, 5), (1, 9))]) == [(1, 6.0), (2, 11.0)]


# -- cut-off -----------------------------------------------------------------------------------------------------------


def test_an_exchange_ends_with_the_last_usable_reply_that_it_needs() -> None:
    clock = clocked(4.0, 1.0, 3.0, 2.0)
    with clock.cut_off_at(2):
        assert senders(clock.send_and_receive(to(0, 1, 2, 3))) == [1, 3]
    assert (clock.now_s, clock.late) == (2.0, 2)
    assert senders(clock.send_and_receive(to(1, 3))) == [1, 3]
    assert clock.now_s == 4.0


def test_a_cut_off_never_makes_an_exchange_longer_and_the_innermost_counts() -> None:
    clock = clocked(1.0, 2.0, 3.0, quorum=2)
    with clock.cut_off_at(30):
        assert senders(clock.send_and_receive(to(0, 1, 2))) == [0, 1]
        with clock.cut_off_at(1):
            assert senders(clock.send_and_receive(to(0, 1))) == [0]
    with pytest.raises(ConfigError, match=r"cut_off_at\(0\): expected 1 or more"), clock.cut_off_at(0):
        pass


def test_a_cut_off_belongs_to_its_lane() -> None:
    clock = clocked(1.0, 2.0, 1.0, 2.0)

    def cut() -> list[int]:
        with clock.cut_off_at(1):
            return senders(clock.send_and_receive(to(0, 1)))

    def whole() -> list[int]:
        return senders(clock.send_and_receive(to(2, 3)))

    assert clock.side_by_side([cut, whole]) == [[0], [2, 3]]
    with clock.cut_off_at(1):
        assert clock.side_by_side([whole, cut]) == [[2, 3], [0]]
