"""Laws of who is where: jumping shares are exact, absences keep their share, files say what was written."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.coverage import (
    ByFunction,
    ByPosition,
    ByTrace,
    Jumping,
    Located,
    OutOfCoverage,
    RandomWaypoint,
    Regions,
    moves_between,
    write_attachment,
)
from flower_edge.errors import ConfigError, DataError

AREA_M = (400.0, 400.0)


def walking(seed: int) -> ByPosition:
    return ByPosition(RandomWaypoint(12, AREA_M, (2.0, 9.0), (0.0, 5.0), seed), Regions.grid(4, AREA_M, radius_m=120.0))


LOCATED: dict[str, Callable[[int], Located]] = {
    "position": walking,
    "jumping": lambda seed: Jumping(["a", "b", "c"], 12, 0.5, 20.0, seed),
    "absent": lambda seed: OutOfCoverage(walking(seed), 0.3, 15.0, seed),
    "function": lambda seed: ByFunction(
        ["x", "y"], 12, lambda time_s: ["x", "y", None] * 4 if time_s > seed else ["x"] * 12
    ),
    "trace": lambda seed: ByTrace([0, 0, 11], [0.0, 50.0, 9.0], ["x", None, "y"], cells=["y", "x"]),
}
everywhere = pytest.mark.parametrize("make", LOCATED.values(), ids=LOCATED)


@everywhere
@given(times_s=st.lists(st.floats(0, 300), min_size=1, max_size=10), seed=st.integers(0, 50))
@settings(max_examples=20)
def test_who_is_where_depends_on_the_time_only_where_there_is_no_margin(
    make: Callable[[int], Located], times_s: list[float], seed: int
) -> None:
    located = make(seed)
    assert isinstance(located, Located)
    answers = [located.where(time_s) for time_s in times_s]
    for time_s, answer in zip(times_s, answers, strict=True):
        np.testing.assert_array_equal(make(seed).where(time_s, answers[0]), answer)
        np.testing.assert_array_equal(located.where(time_s), answer)
        assert answer.shape == (located.nodes,) == (12,)
        assert answer.dtype == np.int64
        assert ((answer >= -1) & (answer < len(located.cells))).all()


@everywhere
def test_what_is_done_to_an_answer_does_not_reach_the_next(make: Callable[[int], Located]) -> None:
    located = make(3)
    first = located.where(25.0)
    kept = first.copy()
    first += 100
    np.testing.assert_array_equal(located.where(25.0), kept)


@given(
    cells=st.integers(2, 6),
    nodes=st.integers(0, 40),
    share=st.floats(0, 1),
    period=st.integers(0, 30),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_in_every_period_exactly_the_given_share_moves_each_once_and_nobody_between_periods(
    cells: int, nodes: int, share: float, period: int, seed: int
) -> None:
    located = Jumping([f"c{i}" for i in range(cells)], nodes, share, 8.0, seed)
    times_s = np.linspace(period * 8.0, (period + 1) * 8.0, 9)
    answers = [located.where(float(time_s)) for time_s in times_s]
    whole = moves_between(answers[0], answers[-1])
    assert len(whole.handed_over) == len(whole) == round(share * nodes)
    steps = [moves_between(a, b).handed_over for a, b in pairwise(answers)]
    np.testing.assert_array_equal(np.sort(np.concatenate(steps)), whole.handed_over)


def test_jumps_are_spread_over_time_and_over_all_other_cells() -> None:
    located = Jumping(["a", "b", "c", "d"], 9000, 1.0, 10.0, 0)
    start, half, end = (located.where(time_s) for time_s in (0.0, 5.0, 10.0))
    assert abs((half != start).mean() - 0.5) < 0.03
    for cell in range(4):
        reached = np.bincount(end[start == cell], minlength=4)
        assert reached[cell] == 0
        np.testing.assert_allclose(np.delete(reached, cell), 750, atol=120)


def test_with_one_cell_nobody_jumps_and_without_a_share_nobody_does_either() -> None:
    for located in (Jumping(["a"], 10, 1.0, 1.0, 0), Jumping(["a", "b"], 10, 0.0, 1.0, 0)):
        assert len(moves_between(located.where(0.0), located.where(99.0))) == 0


def test_jumping_begins_where_it_is_told_and_who_is_nowhere_enters_when_it_moves() -> None:
    located = Jumping(["a", "b"], 3, 1.0, 10.0, 0, start=[1, -1, -1])
    np.testing.assert_array_equal(located.where(0.0), [1, -1, -1])
    assert (located.where(10.0) >= 0).all()


def test_absences_have_the_given_share_from_the_beginning_and_the_given_length() -> None:
    inside = ByFunction(["a"], 4000, lambda time_s: ["a"] * 4000)
    located = OutOfCoverage(inside, 0.2, 30.0, 1)
    away = np.stack([located.where(float(time_s)) < 0 for time_s in range(0, 601, 2)])
    np.testing.assert_allclose(away[[0, 10, 100, 300]].mean(axis=1), 0.2, atol=0.025)
    # A node that is away is back after `time_s` with probability (1 - exp(-time_s (1/30 + 1/120))) (1 - share).
    stay = (away[0] & away[5]).sum() / away[0].sum()
    np.testing.assert_allclose(stay, 0.2 + 0.8 * np.exp(-10 * (1 / 30 + 1 / 120)), atol=0.05)


def test_who_is_not_away_is_where_it_would_be_and_without_a_share_everybody_is() -> None:
    inside, never = walking(1), OutOfCoverage(walking(1), 0.0, 30.0, 1)
    located = OutOfCoverage(inside, 0.4, 30.0, 1)
    gone = 0
    for time_s in np.linspace(0, 300, 31):
        where, real = located.where(float(time_s)), inside.where(float(time_s))
        assert ((where == real) | (where == -1)).all()
        gone += int((where != real).sum())
        np.testing.assert_array_equal(never.where(float(time_s)), real)
    assert gone > 0


def test_a_margin_reaches_through_absences() -> None:
    mobility = RandomWaypoint(30, AREA_M, (2.0, 9.0), (0.0, 5.0), 0)
    inside = ByPosition(mobility, Regions.grid(4, AREA_M, margin_m=60.0))
    located = OutOfCoverage(inside, 0.0, 1.0, 0)
    before = inside.where(0.0)
    held = inside.where(20.0, before)
    assert (held != inside.where(20.0)).any()
    np.testing.assert_array_equal(located.where(20.0, before), held)


@given(st.integers(0, 99), st.sets(st.integers(0, 300), min_size=1, max_size=12))
@settings(max_examples=20)
def test_attachments_written_to_a_file_read_back_the_same_at_each_time(
    tmp_path_factory: pytest.TempPathFactory, seed: int, times_s: set[int]
) -> None:
    located = OutOfCoverage(walking(seed), 0.3, 15.0, seed)
    path = write_attachment(tmp_path_factory.mktemp("log") / "attached.csv", located, times_s)
    again = ByTrace.read(path, cells=located.cells, nodes=located.nodes)
    for time_s in times_s:
        np.testing.assert_array_equal(again.where(float(time_s)), located.where(float(time_s)))


def test_a_log_of_attachments_holds_only_changes(tmp_path: Path) -> None:
    located = ByFunction(["a", "b"], 2, lambda time_s: ["a", "b" if time_s >= 20 else None])
    path = write_attachment(tmp_path / "log" / "attached.csv", located, [0, 10, 20, 30])
    assert path.read_text().splitlines() == ["time_s,node,cell", "0.0,0,a", "0.0,1,", "20.0,1,b"]


def test_a_node_is_nowhere_before_its_first_row_and_without_one() -> None:
    located = ByTrace([1], [5.0], ["hall"], nodes=3)
    np.testing.assert_array_equal(located.where(4.9), [-1, -1, -1])
    np.testing.assert_array_equal(located.where(5.0), [-1, 0, -1])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Jumping(["a", "b"], 3, 1.5, 1.0, 0), ConfigError, "share = 1.5"),
        (lambda: Jumping(["a", "b"], 3, 0.5, 0.0, 0), ConfigError, "period_s = 0.0"),
        (lambda: Jumping(["a", "b"], 3, 0.5, 1.0, 0, start=[0, 1, 2]), ConfigError, "one of 2 cells"),
        (lambda: OutOfCoverage(walking(0), 1.0, 1.0, 0), ConfigError, "from 0 to below 1"),
        (lambda: ByFunction(["a"], 2, lambda time_s: ["a"]).where(0.0), ConfigError, "gave 1 cells at 0.0 s for 2"),
        (lambda: ByFunction(["a"], 1, lambda time_s: ["b"]).where(0.0), ConfigError, "'b' at 0.0 s; cells are a"),
        (lambda: ByTrace([0], [0.0], ["a"], cells=["b"]), DataError, "cell 'a' is none of b"),
        (lambda: ByTrace([5], [0.0], ["a"], nodes=5), DataError, "go from 0 to 4"),
        (lambda: ByTrace([0, 0], [1.0, 1.0], ["a", "b"]), DataError, "node 0 has two rows at 1.0 s"),
        (lambda: ByTrace([0], [0.0], [""]), DataError, "cells="),
        (lambda: ByTrace([0, 1], [0.0, 0.0], ["a"]), DataError, "2 nodes and 1 cells"),
    ],
)
def test_what_cannot_be_located_is_refused_by_name(
    make: Callable[[], object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make()
