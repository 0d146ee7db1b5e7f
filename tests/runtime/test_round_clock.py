"""A time that rounds move: it never runs backwards, and it is in the checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from laws.grid_laws import GridLaws, law_app

from flower_edge.errors import ConfigError, NestingError
from flower_edge.runtime import Device, Link, LocalGrid, VirtualClock, WrappedGrid
from flower_edge.runtime.abilities import now_s, wait_until
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.runtime.wrapped_grid import grid_state, load_grid_state
from flower_edge.store import tree_from_bytes, tree_to_bytes


class TestRoundClock(GridLaws):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        return RoundClock(LocalGrid(app, nodes))


@pytest.fixture
def local() -> Iterator[LocalGrid]:
    with LocalGrid(law_app(), 2) as local:
        yield local


def test_time_passes_only_when_it_is_told_to_and_never_backwards(local: LocalGrid) -> None:
    clock = RoundClock(local, start_s=2.0)
    assert (clock.now_s, now_s(WrappedGrid(clock))) == (2.0, 2.0)
    for time_s, expected_s in ((3.5, 3.5), (1.0, 3.5), (3.5, 3.5), (4, 4.0)):
        clock.wait_until(time_s)
        assert clock.now_s == expected_s


def test_the_ability_is_that_of_the_outermost_clock_in_the_chain(local: LocalGrid) -> None:
    for clock in (RoundClock(local), VirtualClock(local, [Device()] * 2, [Link()] * 2)):
        assert wait_until(WrappedGrid(clock), 3.0)
        assert wait_until(WrappedGrid(clock), 2.0)
        assert clock.now_s == 3.0


def test_without_a_clock_nobody_waits(local: LocalGrid) -> None:
    assert not wait_until(WrappedGrid(local), 3.0)
    assert now_s(WrappedGrid(local)) is None


@pytest.mark.parametrize("time_s", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_none_is_refused(local: LocalGrid, time_s: float) -> None:
    clock = RoundClock(local)
    with pytest.raises(ConfigError, match="expected a finite time"):
        wait_until(clock, time_s)
    with pytest.raises(ConfigError, match="start_s = "):
        RoundClock(local, start_s=time_s)
    assert clock.now_s == 0.0


def test_a_grid_has_one_time(local: LocalGrid) -> None:
    for inner in (RoundClock(local), VirtualClock(local, [Device()] * 2, [Link()] * 2)):
        with pytest.raises(NestingError, match="a grid has one time"):
            RoundClock(WrappedGrid(inner))


def test_the_time_is_in_the_checkpoint(local: LocalGrid) -> None:
    clock = RoundClock(local)
    clock.wait_until(0.1 + 0.2)
    saved = tree_from_bytes(tree_to_bytes(grid_state(clock)))
    again = RoundClock(local)
    load_grid_state(again, saved)
    assert again.now_s == 0.1 + 0.2
