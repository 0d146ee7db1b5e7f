"""Which edge reaches a position: compared with looking at every edge, and how a margin holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.coverage import ByPosition, RandomWaypoint, Regions
from flower_edge.errors import ConfigError


def by_looking_at_all(regions: Regions, at_m: np.ndarray) -> np.ndarray:
    """The first of the nearest edges whose radius reaches, one position at a time."""
    found = []
    for position_m in at_m:
        off_m = np.sqrt(((position_m - regions.positions_m) ** 2).sum(axis=1))
        order = sorted(range(len(regions)), key=lambda c: (off_m[c], c))
        found.append(next((c for c in order if off_m[c] <= regions.radius_m[c]), -1))
    return np.array(found, dtype=np.int64)


@st.composite
def places(draw: st.DrawFn) -> tuple[Regions, np.ndarray]:
    """On whole metres, so that many edges are as near as others and many positions lie on a border."""
    cells, nodes = draw(st.integers(1, 12)), draw(st.integers(0, 15))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.sampled_from([3, 10, 40]))
    positions_m = rng.integers(0, size, (cells, 2))
    radius_m = rng.integers(0, size, cells) if draw(st.booleans()) else float(rng.integers(0, size))
    margin_m = draw(st.sampled_from([0.0, 1.0, 2.5]))
    return Regions([f"c{i}" for i in range(cells)], positions_m, radius_m, margin_m), rng.integers(0, size, (nodes, 2))


@given(places())
@settings(max_examples=120)
def test_the_nearest_edge_in_reach_is_found_and_of_equally_near_ones_the_first(
    case: tuple[Regions, np.ndarray],
) -> None:
    regions, at_m = case
    np.testing.assert_array_equal(regions.nearest_in_range(at_m), by_looking_at_all(regions, at_m))


@pytest.mark.parametrize("spread", ["same", "like", "unlike", "one-large"])
def test_hundreds_of_edges_of_any_sizes_are_searched_right(spread: str) -> None:
    rng = np.random.default_rng(2)
    radius_m = {
        "same": np.full(300, 40.0),
        "like": rng.uniform(35, 65, 300),
        "unlike": np.exp(rng.uniform(0, 6, 300)),
        "one-large": np.r_[800.0, np.full(299, 5.0)],
    }[spread]
    regions = Regions([f"c{i}" for i in range(300)], rng.uniform(0, 1000, (300, 2)), radius_m)
    at_m = rng.uniform(0, 1000, (1000, 2))
    np.testing.assert_array_equal(regions.nearest_in_range(at_m), by_looking_at_all(regions, at_m))


def test_an_edge_behind_nearer_ones_that_do_not_reach_is_found() -> None:
    near = [[x, 0] for x in (70, 72, 74, 76, 78, 80)]
    regions = Regions(list("abcdefg"), [*near, [-100, 0]], [65.0] * 6 + [120.0])
    np.testing.assert_array_equal(regions.nearest_in_range([[0, 0]]), [6])


def test_of_many_equally_near_edges_behind_nearer_ones_that_do_not_reach_the_first_is_found() -> None:
    ring = [[x, y] for x in range(-85, 86) for y in range(-85, 86) if x * x + y * y == 85 * 85]
    assert len(ring) == 36
    names = [f"c{i}" for i in range(39)]
    for seed in range(10):
        ring_m = np.random.default_rng(seed).permutation(ring)
        regions = Regions(names, [[66, 0], [0, 67], [-68, 0], *ring_m], [64.0] * 3 + [100.0] * 36)
        np.testing.assert_array_equal(regions.nearest_in_range([[0, 0]]), [3])


@given(places(), st.integers(0, 2**32 - 1))
@settings(max_examples=120)
def test_with_a_margin_a_node_stays_exactly_while_in_reach_and_no_other_is_nearer_by_more(
    case: tuple[Regions, np.ndarray], seed: int
) -> None:
    regions, at_m = case
    before = np.random.default_rng(seed).integers(-1, len(regions), len(at_m))
    now, nearest = regions.nearest_in_range(at_m, before), by_looking_at_all(regions, at_m)
    for node, (old, near) in enumerate(zip(before, nearest, strict=True)):
        off_m = np.sqrt(((at_m[node] - regions.positions_m) ** 2).sum(axis=1))
        in_reach = old >= 0 and off_m[old] <= regions.radius_m[old]
        holds = regions.margin_m > 0 and in_reach and off_m[old] - off_m[near] <= regions.margin_m
        assert now[node] == (old if holds else near)


def test_a_margin_makes_terminals_on_the_border_change_less_often() -> None:
    mobility = RandomWaypoint(100, (1000.0, 400.0), (1.0, 3.0), (0.0, 5.0), 0)

    def changes(margin_m: float) -> int:
        located = ByPosition(mobility, Regions.grid(4, (1000.0, 400.0), margin_m=margin_m))
        where, count = None, 0
        for time_s in range(0, 1200, 5):
            now = located.where(float(time_s), where)
            count += 0 if where is None else int((now != where).sum())
            where = now
        return count

    assert changes(30.0) < changes(0.0)


@given(st.integers(1, 60), st.floats(1, 5000), st.floats(1, 5000), st.integers(0, 99))
@settings(max_examples=60)
def test_a_grid_of_any_number_of_cells_covers_its_whole_area(
    cells: int, width_m: float, height_m: float, seed: int
) -> None:
    regions = Regions.grid(cells, (width_m, height_m))
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [0.5, 0.5]])
    at_m = np.concatenate([corners, np.random.default_rng(seed).random((200, 2))]) * [width_m, height_m]
    assert len(regions) == cells
    assert (regions.nearest_in_range(at_m) >= 0).all()
    # And the edge of a cell is in its own cell.
    np.testing.assert_array_equal(regions.nearest_in_range(regions.positions_m), np.arange(cells))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Regions([], np.empty((0, 2)), 1.0), "at least one"),
        (lambda: Regions(["a", "a"], [[0, 0], [1, 1]], 1.0), "name of its own"),
        (lambda: Regions("ab", [[0, 0], [1, 1]], 1.0), "name of its own"),
        (lambda: Regions(["a", "b"], [[0, 0]], 1.0), "2 cells and 1 positions"),
        (lambda: Regions(["a"], [[0, 0]], [1.0, 2.0]), "one for each of the 1 cells"),
        (lambda: Regions(["a"], [[0, 0]], -1.0), "radius_m = -1.0"),
        (lambda: Regions(["a"], [[0, 0]], 1.0, margin_m=-1.0), "margin_m = -1.0"),
        (lambda: Regions.grid(0, (1.0, 1.0)), "cells = 0"),
        (lambda: Regions(["a"], [[0, 0]], 1.0).nearest_in_range([[0, 0]], [1]), "one of 1 cells"),
        (lambda: Regions(["a"], [[0, 0]], 1.0).nearest_in_range([[0, 0]], [0, 0]), "each of 1 nodes"),
    ],
)
def test_regions_that_cannot_be_are_refused_by_name(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
