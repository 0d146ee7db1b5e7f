"""`Pace`: the rate holds over every second, and nothing is given for waiting."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.transport.pacing import LEAST_PIECE_BYTES, PIECE_S, Pace, piece_bytes


class Time:
    """A clock that sleeping moves, by a little more than asked."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def leave(pace: Pace, clock: Time, bits: int, late_s: float = 0.0) -> float:
    """When a piece of so many bits leaves; `late_s` is how much too long the sender slept."""
    pace.book(bits)
    wait_s = pace.wait_s()
    if wait_s > 0.0:
        clock.now_s += wait_s + late_s
    return clock.now_s


def most_in_any_second(leaves: list[tuple[float, int]]) -> float:
    """The most bits of any window [t, t + 1)."""
    times = [time_s for time_s, _ in leaves]
    sums = [0, *accumulate(bits for _, bits in leaves)]
    # The fullest window begins with a piece; what leaves a whole second later, to rounding, is in the next one.
    return max(sums[bisect_left(times, t + 1.0 - 1e-6)] - sums[bisect_right(times, t - 1e-12)] for t in times)


messages = st.lists(st.tuples(st.integers(1, 3_000_000), st.floats(0.0, 3.0), st.floats(0.0, 0.01)), max_size=12)


@settings(max_examples=60)
@given(st.floats(3.3e6, 1e8), messages)
def test_no_second_carries_more_than_102_percent_of_the_rate(bps: float, sent: list[tuple[int, float, float]]) -> None:
    clock = Time()
    pace = Pace(bps, clock=clock)
    leaves = [(clock.now_s, 0)]
    for size, idle_s, late_s in sent:
        clock.now_s += idle_s
        pace.begin()
        while size > 0:
            part = min(size, pace.piece_bytes(1 << 20))
            leaves.append((leave(pace, clock, 8 * part, late_s), 8 * part))
            size -= part
    assert most_in_any_second(leaves) <= bps * 1.02 * (1 + 1e-9)


@settings(max_examples=40)
@given(st.floats(1e3, 3.2e6), messages)
def test_a_message_on_a_slow_link_is_never_ahead_of_that_link(bps: float, sent: list[tuple[int, float, float]]) -> None:
    clock = Time()
    pace = Pace(bps, clock=clock)
    for size, idle_s, late_s in sent:
        clock.now_s += idle_s
        pace.begin()
        start_s, bits = clock.now_s, 0
        for _ in range(min(50, math.ceil(size / LEAST_PIECE_BYTES))):
            at_s = leave(pace, clock, 8 * LEAST_PIECE_BYTES, late_s)
            bits += 8 * LEAST_PIECE_BYTES
            assert bits <= bps * (at_s - start_s) * (1 + 1e-9) + 1e-6


def test_ten_megabytes_from_20_to_60_mbit_end_within_one_percent_of_the_ideal() -> None:
    clock = Time()
    pace = Pace(20e6, clock=clock)
    pace.begin()
    sent = 0
    while sent < 10_000_000:
        part = min(10_000_000 - sent, pace.piece_bytes(1 << 20))
        sent += part
        leave(pace, clock, 8 * part, 1e-4)
        if sent >= 5_000_000 and pace.bps == 20e6:
            pace.change(60e6)
    ideal_s = 40e6 / 20e6 + 40e6 / 60e6
    assert ideal_s * 0.999 <= clock.now_s - 1_000.0 <= ideal_s * 1.01


def test_a_message_takes_as_long_as_on_a_link_of_that_rate_however_late_its_pieces_are() -> None:
    clock = Time()
    pace = Pace(8e6, clock=clock)
    pace.begin()
    for _ in range(100):
        leave(pace, clock, 160_000, 0.004)
    assert clock.now_s - 1_000.0 == pytest.approx(2.0, abs=0.0041)


def test_an_hour_of_silence_gives_no_burst() -> None:
    clock = Time()
    pace = Pace(1e6, clock=clock)
    pace.begin()
    leave(pace, clock, 32_768)
    clock.now_s += 3_600.0
    pace.begin()
    pace.book(1_000_000)
    assert pace.wait_s() == pytest.approx(1.0)


def test_a_sender_that_was_held_up_makes_good_for_one_piece_and_no_more() -> None:
    clock = Time()
    pace = Pace(1e6, clock=clock)
    pace.begin()
    leave(pace, clock, 100_000)
    clock.now_s += 60.0  # the network took nothing for a minute
    waits = []
    for _ in range(3):
        pace.book(100_000)
        waits.append(pace.wait_s())
    assert waits == pytest.approx([0.0, 0.1, 0.2])


@given(st.floats(1e3, 1e9), st.floats(1e3, 1e9))
def test_what_is_waiting_goes_on_at_the_new_rate(old: float, new: float) -> None:
    clock = Time()
    pace = Pace(old, clock=clock)
    pace.begin()
    pace.book(1_000)
    half_s = 500 / old
    clock.now_s += half_s
    pace.change(new)
    assert pace.wait_s() == pytest.approx(500 / new, rel=1e-3, abs=1e-9)


def test_without_a_rate_nothing_waits_and_a_rate_can_be_lifted_in_the_middle() -> None:
    clock = Time()
    pace = Pace(clock=clock)
    pace.begin()
    pace.book(10**12)
    assert pace.wait_s() == 0.0
    pace.change(1.0)
    pace.book(100)
    assert pace.wait_s() == pytest.approx(100.0)
    pace.change(None)
    assert pace.wait_s() == 0.0


def test_a_piece_is_10_ms_of_the_rate_between_4096_bytes_and_the_limit() -> None:
    assert PIECE_S == 0.01
    assert [piece_bytes(bps, 1 << 20) for bps in (1.0, 3.2768e6, 4e6, 1e12, None)] == [
        4096,
        4096,
        5000,
        1 << 20,
        1 << 20,
    ]


@pytest.mark.parametrize("bps", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_that_is_none_is_refused(bps: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        Pace(bps)
    with pytest.raises(ConfigError, match="above 0"):
        Pace().change(bps)
