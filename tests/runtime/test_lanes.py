"""Lanes: the order in which jobs run, what they return and raise, how they are cancelled. No messages here."""

from __future__ import annotations

import random
import threading
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError, ProtocolError
from flower_edge.runtime.clock.lanes import Lane, LaneCancelled, Lanes
from flower_edge.runtime.generators import seeded_call

Told = list[tuple[str, float]]


def sleeper(lanes: Lanes, told: Told, name: str, *pauses_s: float) -> Callable[[], str]:
    """A job that tells when it began and when it woke from each of its sleeps."""

    def job() -> str:
        told.append((name, lanes.now_s))
        for pause_s in pauses_s:
            lanes.sleep_until(lanes.now_s + pause_s)
            told.append((name, lanes.now_s))
        return name

    return job


# -- order -------------------------------------------------------------------------------------------------------------


def test_whoever_is_due_first_runs_first_and_the_first_to_come_among_equals() -> None:
    lanes, told = Lanes(), []
    begun = [lanes.spawn(sleeper(lanes, told, *args)) for args in (("a", 2.0, 2.0), ("b", 1.0, 1.0), ("c", 2.0))]
    lanes.wait_for(begun)
    assert told == [("a", 0), ("b", 0), ("c", 0), ("b", 1), ("a", 2), ("c", 2), ("b", 2), ("a", 4)]


def test_a_lane_begins_when_its_parent_lets_time_pass_and_not_before() -> None:
    lanes, told = Lanes(5.0), []
    lane = lanes.spawn(sleeper(lanes, told, "child"))
    told.append(("parent", lanes.now_s))
    assert not lane.ended
    lanes.sleep_until(5.0)
    assert told == [("parent", 5.0), ("child", 5.0)]
    assert (lane.begun_s, lane.ended_s) == (5.0, 5.0)


def test_the_main_program_sleeps_among_its_lanes() -> None:
    lanes, told = Lanes(), []
    lanes.spawn(sleeper(lanes, told, "lane", 1.0, 1.0, 1.0))
    sleeper(lanes, told, "main", 1.5, 1.0)()
    assert told == [("main", 0.0), ("lane", 0.0), ("lane", 1.0), ("main", 1.5), ("lane", 2.0), ("main", 2.5)]
    lanes.cancel()


def test_without_lanes_sleeping_only_moves_the_time() -> None:
    lanes = Lanes()
    lanes.sleep_until(3.0)
    lanes.sleep_until(1.0)
    assert lanes.now_s == 3.0


def test_lanes_may_spawn_lanes_and_wait_for_them() -> None:
    lanes, told = Lanes(), []

    def parent() -> list[str]:
        lanes.sleep_until(1.0)
        inner = [lanes.spawn(sleeper(lanes, told, name, pause_s)) for name, pause_s in (("slow", 3.0), ("fast", 1.0))]
        return [lane.result() for lane in lanes.wait_for(inner)]

    first, second = lanes.spawn(parent), lanes.spawn(sleeper(lanes, told, "other", 2.5))
    assert [lane is first for lane in lanes.wait_for([first, second])] == [False, True]
    assert first.result() == ["fast", "slow"]
    assert (first.ended_s, second.ended_s) == (4.0, 2.5)
    assert told == [("other", 0), ("slow", 1), ("fast", 1), ("fast", 2), ("other", 2.5), ("slow", 4)]


def test_lanes_of_one_clock_run_inside_a_lane_of_another() -> None:
    outer, told = Lanes(), []

    def job(name: str) -> None:
        inner = Lanes(100.0)
        inner.wait_for([inner.spawn(sleeper(inner, told, f"{name}{i}", 2.0 - i)) for i in range(2)])
        outer.sleep_until(1.0)

    begun = [outer.spawn(lambda name=name: job(name)) for name in "ab"]  # type: ignore[misc]
    outer.wait_for(begun)
    assert [lane.result() for lane in begun] == [None, None]
    assert outer.now_s == 1.0
    assert told[:4] == [("a0", 100.0), ("a1", 100.0), ("a1", 101.0), ("a0", 102.0)]


Plan = tuple[int, list[float], list["Plan"]]
pauses = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]), max_size=4)
plans: st.SearchStrategy[Any] = st.recursive(
    st.tuples(pauses, st.just([])), lambda inner: st.tuples(pauses, st.lists(inner, max_size=2)), max_leaves=8
)


@settings(max_examples=60)
@given(st.lists(plans, min_size=1, max_size=4))
def test_time_never_runs_backwards_in_any_program_and_each_lane_sees_its_own_sleeps(jobs: list[Any]) -> None:
    def run() -> tuple[list[tuple[tuple[int, ...], float]], float]:
        lanes = Lanes()
        told: list[tuple[tuple[int, ...], float]] = []

        def work(name: tuple[int, ...], pauses_s: list[float], inner: list[Any]) -> None:
            begun_s, slept_s = lanes.now_s, 0.0
            told.append((name, lanes.now_s))
            spawned = [
                lanes.spawn(lambda at=at, plan=plan: work((*name, at), *plan))  # type: ignore[misc]
                for at, plan in enumerate(inner)
            ]
            for pause_s in pauses_s:
                lanes.sleep_until(lanes.now_s + pause_s)
                slept_s += pause_s
                assert lanes.now_s == begun_s + slept_s
                told.append((name, lanes.now_s))
            lanes.wait_for(spawned)
            ends_s = [lane.ended_s for lane in spawned if lane.ended_s is not None]
            assert lanes.now_s == max([begun_s + slept_s, *ends_s])

        work((), [], jobs)
        assert lanes.open == ()
        return told, lanes.now_s

    def longest_s(plan: Any) -> float:
        pauses_s, inner = plan
        return max([sum(pauses_s), *(longest_s(one) for one in inner)])

    told, end_s = run()
    times_s = [time_s for _, time_s in told]
    assert times_s == sorted(times_s)
    assert end_s == max(longest_s(plan) for plan in jobs)
    assert run() == (told, end_s)


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_waiting_for_some_ends_with_the_last_of_them_and_the_others_go_on() -> None:
    lanes, told = Lanes(), []
    begun = [lanes.spawn(sleeper(lanes, told, name, pause_s)) for name, pause_s in (("a", 3.0), ("b", 1.0), ("c", 2.0))]
    assert [lane.result() for lane in lanes.wait_for(begun, count=2)] == ["b", "c"]
    assert lanes.now_s == 2.0
    assert lanes.open == (begun[0],)
    assert [lane.result() for lane in lanes.wait_for(begun, count=1)] == ["b", "c"]
    assert lanes.now_s == 2.0
    assert [lane.result() for lane in lanes.wait_for(begun)] == ["b", "c", "a"]
    assert lanes.now_s == 3.0


def test_two_may_wait_for_the_same_lane() -> None:
    lanes, told = Lanes(), []
    awaited = lanes.spawn(sleeper(lanes, told, "awaited", 2.0))

    def waiting() -> float:
        lanes.wait_for([awaited])
        return lanes.now_s

    first, second = lanes.spawn(waiting), lanes.spawn(waiting)
    lanes.wait_for([first, second])
    assert (first.result(), second.result()) == (2.0, 2.0)


def test_a_sleeping_lane_can_be_woken_earlier_and_not_later() -> None:
    lanes, told = Lanes(), []
    begun = [lanes.spawn(sleeper(lanes, told, name, 10.0)) for name in "ab"]
    lanes.sleep_until(1.0)
    lanes.hasten(begun[0], 4.0)
    lanes.hasten(begun[1], 12.0)
    lanes.wait_for(begun)
    assert told[2:] == [("a", 4.0), ("b", 10.0)]


def test_waiting_for_what_never_comes_is_refused() -> None:
    lanes = Lanes()
    handles: list[Lane[Any]] = []
    handles += [lanes.spawn(lambda: lanes.wait_for(handles[1:])), lanes.spawn(lambda: lanes.wait_for(handles[:1]))]
    with pytest.raises(ConfigError, match=r"wait for each other.*<Lane 1, begun at 0 s>, <Lane 2, begun at 0 s>"):
        lanes.wait_for(handles)
    lanes.cancel()
    assert lanes.open == ()


@pytest.mark.parametrize(
    ("wait", "complaint"),
    [
        (lambda lanes, lane: lanes.wait_for([lane], count=2), r"wait_for\(1 lanes, count=2\): expected 0 to 1"),
        (lambda lanes, lane: lanes.wait_for([lane], count=-1), "expected 0 to 1"),
        (lambda lanes, lane: Lanes().wait_for([lane]), "a lane of another clock"),
        (lambda lanes, lane: lanes.wait_for([lanes.current]), "cannot wait for itself"),
    ],
)
def test_lanes_that_cannot_be_waited_for_are_refused(wait: Callable[[Lanes, Lane[int]], Any], complaint: str) -> None:
    lanes = Lanes()
    lane = lanes.spawn(lambda: 1)
    with pytest.raises(ConfigError, match=complaint):
        wait(lanes, lane)
    lanes.wait_for([lane])


# -- what a job leaves -------------------------------------------------------------------------------------------------


def test_what_a_job_raises_comes_with_its_result_and_shows_where_it_was_raised() -> None:
    lanes = Lanes()

    def fails_here() -> None:
        lanes.sleep_until(1.0)
        raise ValueError("no good")

    lane = lanes.spawn(fails_here)
    assert lanes.wait_for([lane]) == [lane]
    for _ in range(2):
        with pytest.raises(ValueError, match="no good") as caught:
            lane.result()
        assert "fails_here" in {frame.name for frame in traceback.extract_tb(caught.tb)}


def test_an_open_lane_has_no_result_yet() -> None:
    lanes = Lanes()
    lane = lanes.spawn(lambda: 1)
    with pytest.raises(ConfigError, match=r"<Lane 1, begun at 0 s> has no result yet; call wait_for"):
        lane.result()
    lanes.wait_for([lane])
    assert lane.result() == 1


def test_a_keyboard_interrupt_in_a_lane_ends_the_wait_of_the_main_program() -> None:
    lanes, told = Lanes(), []

    def interrupted() -> None:
        lanes.sleep_until(1.0)
        raise KeyboardInterrupt

    begun = [lanes.spawn(interrupted), lanes.spawn(sleeper(lanes, told, "other", 2.0))]
    with pytest.raises(KeyboardInterrupt):
        lanes.wait_for(begun)
    assert [lane.ended for lane in begun] == [True, False]
    assert lanes.wait_for(begun) == begun
    assert told == [("other", 0.0), ("other", 2.0)]


def test_lanes_see_the_context_variables_of_their_parent_and_keep_their_own() -> None:
    lanes = Lanes()
    colour: ContextVar[str] = ContextVar("colour", default="none")
    colour.set("red")

    def job(own: str) -> list[str]:
        seen = [colour.get()]
        colour.set(own)
        lanes.sleep_until(lanes.now_s + 1.0)
        return [*seen, colour.get()]

    begun = [lanes.spawn(lambda own=own: job(own)) for own in ("green", "blue")]  # type: ignore[misc]
    lanes.wait_for(begun)
    assert [lane.result() for lane in begun] == [["red", "green"], ["red", "blue"]]
    assert colour.get() == "red"


def drawn_with(lanes: Lanes, seed: int, pauses_s: float) -> list[float]:
    """Draws from the global generators, seeded, with pauses in between."""
    with seeded_call(seed):
        drawn = []
        for _ in range(3):
            drawn += [random.random(), np.random.random()]
            lanes.sleep_until(lanes.now_s + pauses_s)
        return drawn


def test_generators_that_a_lane_has_seeded_for_itself_stay_its_own_while_others_run() -> None:
    lanes = Lanes()
    alone = [drawn_with(Lanes(), seed, 1.0) for seed in (1, 2)]
    random.seed(7)
    unseeded = [random.random() for _ in range(3)]
    random.seed(7)

    def draws() -> list[float]:
        drawn = []
        for _ in range(3):
            lanes.sleep_until(lanes.now_s + 0.4)
            drawn.append(random.random())
        return drawn

    begun = [lanes.spawn(lambda: drawn_with(lanes, 1, 1.0)), lanes.spawn(lambda: drawn_with(lanes, 2, 0.6))]
    begun.append(lanes.spawn(draws))
    before = np.random.get_state(legacy=False)["state"]["key"].tolist()
    lanes.wait_for(begun)
    assert [lane.result() for lane in begun] == [*alone, unseeded]
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before
    random.seed(7)
    after = [random.random() for _ in range(4)][3]
    random.seed(7)
    lanes.wait_for([lanes.spawn(draws), lanes.spawn(lambda: drawn_with(lanes, 1, 0.1))])
    assert random.random() == after


def test_lanes_inside_a_seeded_block_draw_from_it() -> None:
    lanes = Lanes()
    with seeded_call(5):
        expected = [random.random() for _ in range(2)]

    def draws() -> float:
        lanes.sleep_until(1.0)
        return random.random()

    with seeded_call(5):
        begun = [lanes.spawn(draws), lanes.spawn(draws)]
        lanes.wait_for(begun)
    assert [lane.result() for lane in begun] == expected


# -- cancelling --------------------------------------------------------------------------------------------------------


def test_cancelling_runs_what_is_in_finally_blocks_and_lets_no_time_pass() -> None:
    lanes, told = Lanes(), []

    def job() -> None:
        try:
            lanes.sleep_until(10.0)
        finally:
            told.append(("closed", lanes.now_s))
            lanes.sleep_until(20.0)
            told.append(("never", lanes.now_s))

    lane = lanes.spawn(job)
    lanes.sleep_until(1.0)
    lanes.cancel()
    assert told == [("closed", 1.0)]
    assert (lane.ended, lanes.open, lanes.now_s) == (True, (), 1.0)
    with pytest.raises(ProtocolError, match="was cancelled"):
        lane.result()


def test_a_lane_that_has_not_begun_never_does() -> None:
    lanes, told = Lanes(), []
    lane = lanes.spawn(sleeper(lanes, told, "cancelled"))
    lanes.cancel([lane])
    lanes.sleep_until(1.0)
    assert (told, lane.ended) == ([], True)
    lanes.cancel([lane])


def test_a_lane_may_cancel_its_sister_and_whoever_waited_for_her_goes_on() -> None:
    lanes, told = Lanes(), []
    sister = lanes.spawn(sleeper(lanes, told, "sister", 10.0))

    def cancels() -> str:
        lanes.sleep_until(2.0)
        lanes.cancel([sister])
        lanes.sleep_until(3.0)
        return "done"

    waiting = lanes.spawn(lambda: lanes.wait_for([sister]) and lanes.now_s)
    cancelling = lanes.spawn(cancels)
    lanes.wait_for([cancelling, waiting])
    assert (cancelling.result(), waiting.result()) == ("done", 2.0)
    assert (sister.ended_s, lanes.now_s, told) == (2.0, 3.0, [("sister", 0.0)])


def test_a_child_that_cancels_its_parent_is_cancelled_with_it_where_it_next_lets_time_pass() -> None:
    lanes, told = Lanes(), []

    def child(parent: list[Lane[None]]) -> None:
        lanes.sleep_until(1.0)
        lanes.cancel(parent)
        told.append(("child goes on", lanes.now_s))
        lanes.sleep_until(2.0)
        told.append(("never", lanes.now_s))

    def parent() -> None:
        inner = [lanes.spawn(lambda: child(handles))]
        try:
            lanes.wait_for(inner)
        except LaneCancelled:
            told.append(("parent cancelled", lanes.now_s))
            lanes.cancel(inner)
            raise

    handles: list[Lane[None]] = []
    handles.append(lanes.spawn(parent))
    lanes.sleep_until(5.0)
    assert told == [("parent cancelled", 1.0), ("child goes on", 1.0)]
    assert lanes.open == ()


# -- threads -----------------------------------------------------------------------------------------------------------


def test_a_call_from_another_thread_is_refused_while_lanes_are_open() -> None:
    lanes = Lanes()
    lane = lanes.spawn(lambda: lanes.sleep_until(1.0))
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            lanes.sleep_until(2.0)
        except ConfigError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere, name="stranger")
    thread.start()
    thread.join()
    assert "thread 'stranger' is not in the lane that runs" in str(caught[0])
    lanes.wait_for([lane])
    assert lanes.now_s == 1.0


def test_lanes_may_be_run_by_another_thread_than_the_one_that_made_them() -> None:
    lanes, told = Lanes(), []
    thread = threading.Thread(target=lambda: lanes.wait_for([lanes.spawn(sleeper(lanes, told, "a", 1.0))]))
    thread.start()
    thread.join()
    lanes.wait_for([lanes.spawn(sleeper(lanes, told, "b", 1.0))])
    assert told == [("a", 0.0), ("a", 1.0), ("b", 1.0), ("b", 2.0)]
