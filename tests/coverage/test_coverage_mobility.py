"""Laws of mobility: a function of time, inside its area, the same for a node whoever else there is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from flower_edge.coverage import Mobility, RandomWalk, RandomWaypoint, Still
from flower_edge.coverage.draws import Draws
from flower_edge.coverage.renewals import Renewals
from flower_edge.coverage.snapshots import Snapshots
from flower_edge.errors import ConfigError

AREA_M = (300.0, 200.0)
MAKERS: dict[str, Callable[[int, int], Mobility]] = {
    "still": lambda nodes, seed: Still(np.random.default_rng(seed).random((nodes, 2)) * AREA_M),
    "walk": lambda nodes, seed: RandomWalk(nodes, AREA_M, 5.0, 10.0, seed),
    "walk-each-its-speed": lambda nodes, seed: RandomWalk(nodes, AREA_M, np.arange(nodes), 7.0, seed),
    "waypoint": lambda nodes, seed: RandomWaypoint(nodes, AREA_M, (1.0, 5.0), (0.0, 20.0), seed),
    "waypoint-without-pause": lambda nodes, seed: RandomWaypoint(nodes, AREA_M, (2.0, 2.0), (0.0, 0.0), seed),
}
mobilities = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
times = st.lists(st.floats(0, 400), min_size=1, max_size=12)


@mobilities
@given(times_s=times, seed=st.integers(0, 99))
@settings(max_examples=20)
def test_positions_do_not_depend_on_what_was_asked_before(
    make: Callable[[int, int], Mobility], times_s: list[float], seed: int
) -> None:
    one = make(6, seed)
    answers = [one.positions_m(time_s).copy() for time_s in times_s]
    again = [one.positions_m(time_s) for time_s in reversed(times_s)][::-1]
    for time_s, answer, later in zip(times_s, answers, again, strict=True):
        np.testing.assert_array_equal(answer, make(6, seed).positions_m(time_s))
        np.testing.assert_array_equal(answer, later)


@mobilities
def test_the_first_nodes_of_many_go_the_ways_of_few(make: Callable[[int, int], Mobility]) -> None:
    for time_s in (0.0, 33.0, 500.0):
        few, many = make(3, 7).positions_m(time_s), make(40, 7).positions_m(time_s)
        np.testing.assert_array_equal(many[:3], few)
        assert many.shape == (40, 2)
        assert make(0, 7).positions_m(time_s).shape == (0, 2)


@mobilities
@given(time_s=st.floats(0, 5000), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_nobody_leaves_the_area_or_outruns_its_speed(
    make: Callable[[int, int], Mobility], time_s: float, seed: int
) -> None:
    mobility = make(5, seed)
    here, there = mobility.positions_m(time_s), mobility.positions_m(time_s + 0.5)
    for at_m in (here, there):
        assert ((at_m >= 0) & (at_m <= np.array(AREA_M))).all()
    assert (np.hypot(*(there - here).T) <= 0.5 * 5.0 + 1e-6).all()


def test_a_walker_far_from_the_border_keeps_its_speed_and_direction_for_a_leg() -> None:
    walk = RandomWalk(4, (1e6, 1e6), [1.0, 2.0, 3.0, 0.0], 10.0, 0, start_m=np.full((4, 2), 5e5))
    ways_m = np.diff([walk.positions_m(time_s) for time_s in (0.0, 5.0, 10.0, 15.0)], axis=0)
    np.testing.assert_allclose(ways_m[0], ways_m[1], atol=1e-6)
    np.testing.assert_allclose(np.hypot(ways_m[..., 0], ways_m[..., 1]), [[5, 10, 15, 0]] * 3, atol=1e-6)
    assert (np.abs(ways_m[2] - ways_m[1]).max(axis=1)[:3] > 1e-3).all()


def test_the_border_reflects() -> None:
    mirrored = RandomWalk(200, (10.0, 1e9), 1.0, 100.0, 4, start_m=np.tile([5.0, 5e8], (200, 1)))
    free = RandomWalk(200, (1e9, 1e9), 1.0, 100.0, 4, start_m=np.tile([5e8, 5e8], (200, 1)))
    way_m = free.positions_m(12.0)[:, 0] - 5e8
    expected_m = np.where(5 + way_m > 10, 15 - way_m, np.where(5 + way_m < 0, -5 - way_m, 5 + way_m))
    assert (np.abs(way_m) > 5).any()
    np.testing.assert_allclose(mirrored.positions_m(12.0)[:, 0], expected_m, atol=1e-6)


def test_a_traveller_pauses_where_it_arrived() -> None:
    mobility = RandomWaypoint(50, AREA_M, (100.0, 100.0), (50.0, 50.0), 1)  # 3.6 s at most on the way, 50 s there
    at_m = [mobility.positions_m(time_s) for time_s in (4.0, 30.0, 49.0)]
    np.testing.assert_array_equal(at_m[0], at_m[1])
    np.testing.assert_array_equal(at_m[0], at_m[2])
    assert (np.abs(mobility.positions_m(0.0) - at_m[0]).max(axis=1) > 0).all()


def test_the_mean_speed_does_not_decay() -> None:
    mobility = RandomWaypoint(2000, (1000.0, 1000.0), (1.0, 9.0), (0.0, 0.0), 3)

    def mean_mps(time_s: float) -> float:
        return float(np.hypot(*(mobility.positions_m(time_s + 0.01) - mobility.positions_m(time_s)).T).mean() / 0.01)

    # Slow trips take longer: in the steady state the mean is (high - low) / ln(high / low) = 3.64 m/s, not 5.
    late = [mean_mps(time_s) for time_s in (2e3, 4e3, 8e3)]
    np.testing.assert_allclose(late, 8 / math.log(9), rtol=0.05)


def test_numbers_of_neighbouring_nodes_turns_seeds_and_purposes_look_unrelated() -> None:
    nodes = np.arange(20_000)
    columns = [
        Draws(seed, purpose).uniform(nodes, turn) for seed in (0, 1) for purpose in ("a", "b") for turn in (0, 1)
    ]
    for column in columns:
        assert kstest(column, "uniform").pvalue > 1e-4
        assert abs(np.corrcoef(column[:-1], column[1:])[0, 1]) < 0.03
    off_diagonal = np.corrcoef(columns)[~np.eye(len(columns), dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.04


def test_a_number_is_looked_up_by_node_and_turn() -> None:
    draws = Draws(5, "test")
    turns = np.array([4, 0, 9])
    each = [draws.uniform(np.array([node]), int(turn))[0] for node, turn in zip((7, 3, 0), turns, strict=True)]
    np.testing.assert_array_equal(draws.uniform(np.array([7, 3, 0]), turns), each)


@given(times, st.integers(0, 99))
@settings(max_examples=30)
def test_turns_are_those_counted_one_by_one(times_s: list[float], seed: int) -> None:
    table_s = np.random.default_rng(seed).exponential(20.0, (3, 400))
    renewals = Renewals(3, lambda nodes, turns: table_s[nodes, turns])
    starts_s = np.concatenate([np.zeros((3, 1)), np.cumsum(table_s, axis=1)], axis=1)
    for time_s in times_s:
        turn, start_s = renewals.at(time_s)
        expected = [int(np.searchsorted(row, time_s, side="right")) - 1 for row in starts_s]
        np.testing.assert_array_equal(turn, expected)
        np.testing.assert_array_equal(start_s, starts_s[np.arange(3), expected])


@mobilities
def test_fifty_questions_in_any_order_are_answered_as_one_is(make: Callable[[int, int], Mobility]) -> None:
    one = make(4, 5)
    for time_s in np.random.default_rng(0).uniform(0, 2000, 50):
        np.testing.assert_array_equal(one.positions_m(time_s), make(4, 5).positions_m(time_s))


@given(st.lists(st.integers(1, 1000), max_size=80), st.integers(2, 9), st.integers(0, 1000))
def test_of_many_states_few_are_kept_and_the_first_and_the_latest_always(
    keys: list[int], most: int, asked: int
) -> None:
    kept = Snapshots(0, "0", most=most)
    for key in keys:
        kept.remember(key, str(key))
    key, state = kept.last_before(asked)
    assert 0 <= key <= asked
    assert state == str(key)
    count = len({kept.last_before(time)[0] for time in range(1001)})
    assert count <= most
    assert count == len({0, *keys}) or len(keys) >= most
    assert kept.last_before(0) == (0, "0")
    if keys:
        assert kept.last_before(1000)[0] == max(keys)


def test_a_turn_that_ends_now_is_over_and_turns_of_no_length_are_passed() -> None:
    renewals = Renewals(2, lambda nodes, turns: np.where((nodes == 1) & (turns % 2 == 0), 0.0, 2.0))
    for time_s, expected in ((0.0, [0, 1]), (1.9, [0, 1]), (2.0, [1, 3]), (4.0, [2, 5])):
        turn, start_s = renewals.at(time_s)
        assert turn.tolist() == expected
        assert start_s.tolist() == [time_s // 2 * 2] * 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomWaypoint(3, AREA_M, (0.0, 5.0), (0.0, 1.0), 0), "give one above 0"),
        (lambda: RandomWaypoint(3, AREA_M, (5.0, 1.0), (0.0, 1.0), 0), "lower limit first"),
        (lambda: RandomWaypoint(3, AREA_M, (1.0, 5.0), (-1.0, 1.0), 0), "pause_s = -1.0"),
        (lambda: RandomWaypoint(3, AREA_M, (1.0, [1.0, 2.0]), (0.0, 1.0), 0), "one for each of the 3 nodes"),
        (lambda: RandomWalk(3, AREA_M, 1.0, 0.0, 0), "leg_s = 0.0"),
        (lambda: RandomWalk(3, (0.0, 5.0), 1.0, 1.0, 0), "area_m width = 0.0"),
        (lambda: RandomWalk(-1, AREA_M, 1.0, 1.0, 0), "nodes = -1"),
        (lambda: RandomWalk(1, AREA_M, 1.0, 1.0, 0, start_m=[[301, 0]]), "start_m\\[0\\].*outside"),
        (lambda: RandomWalk(2, AREA_M, 1.0, 1.0, 0, start_m=[[1, 0]]), "start_m has 1 rows"),
        (lambda: Still([1.0, 2.0]), "one row \\(x, y\\)"),
        (lambda: Still([[1.0, math.nan]]), "positions_m\\[0\\]"),
        (lambda: Still([[1.0, 2.0]]).positions_m(-1.0), "time begins at 0 s"),
        (lambda: RandomWalk(1, AREA_M, 1.0, 1.0, 0).positions_m(math.inf), "time_s = inf"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
