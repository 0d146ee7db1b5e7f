"""A step of planning for 100,000 terminals and 1,000 cells: far below a second and a gigabyte."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from flower_edge.coverage import ByPosition, RandomWalk, RandomWaypoint, Regions, moves_between

AREA_M = (10_000.0, 10_000.0)


@pytest.mark.parametrize("kind", ["walk", "waypoint"])
def test_a_hundred_thousand_terminals_in_a_thousand_cells_are_planned_in_under_a_second(kind: str) -> None:
    if kind == "walk":
        mobility = RandomWalk(100_000, AREA_M, 1.5, 60.0, 0)
    else:
        mobility = RandomWaypoint(100_000, AREA_M, (1.0, 15.0), (0.0, 60.0), 0)
    located = ByPosition(mobility, Regions.grid(1000, AREA_M, margin_m=20.0))
    before = located.where(0.0)
    taken_s = []
    for k in range(1, 4):
        start_s = time.process_time()
        now = located.where(60.0 * k, before)
        moves = moves_between(before, now)
        taken_s.append(time.process_time() - start_s)
        assert len(moves.handed_over) > 10_000
        before = now
    # About 0.05 s on a laptop's core; a machine may be busy.
    assert min(taken_s) < 1.0


def test_the_memory_of_a_step_grows_with_the_terminals_and_stays_below_100_megabytes() -> None:
    peaks_b = []
    for nodes in (25_000, 50_000, 100_000):
        tracemalloc.start()
        mobility = RandomWaypoint(nodes, AREA_M, (1.0, 15.0), (0.0, 60.0), 0)
        located = ByPosition(mobility, Regions.grid(1000, AREA_M, margin_m=20.0))
        before = located.where(0.0)
        moves_between(before, located.where(60.0, before))
        peaks_b.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks_b[2] < 100e6
    assert peaks_b[2] < 2.2 * peaks_b[1] < 2.2 * 2.2 * peaks_b[0]
