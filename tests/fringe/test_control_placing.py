"""Cuts and machines: against every placement worked out by hand or by brute force."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import FringeError
from flower_edge.fringe.links import Link
from flower_edge.fringe.placing import depth_for, methods_for, place

NUMBERS = st.floats(0.001, 1.0)


@settings(max_examples=40)
@given(st.lists(NUMBERS, min_size=3, max_size=3), st.data())
def test_no_assignment_of_units_to_machines_in_order_is_faster(speeds: list[float], data: st.DataObject) -> None:
    unit_s = data.draw(st.lists(NUMBERS, min_size=4, max_size=4))
    cut_bytes = data.draw(st.lists(st.integers(1, 10_000), min_size=3, max_size=3))
    rates = data.draw(st.lists(st.floats(1e4, 1e7), min_size=2, max_size=2))
    links = [Link(rate, 0.001) for rate in rates]
    best = float("inf")
    for rest in itertools.combinations_with_replacement(range(3), 3):  # machine of units 1 .. 3; unit 0 is on machine 0
        on = (0, *rest)
        total = sum(unit_s[unit] / speeds[machine] for unit, machine in enumerate(on))
        for unit in range(3):
            total += sum(links[hop].seconds(cut_bytes[unit]) for hop in range(on[unit], on[unit + 1]))
        best = min(best, total)
    found = place(unit_s, cut_bytes, speeds, links)
    assert found.latency_s == pytest.approx(best)


def test_compression_moves_the_cut_to_where_compute_wants_it() -> None:
    unit_s, cut_bytes, speeds, links = [0.1, 0.1, 0.1], [100_000, 1_000], [1.0, 10.0], [Link(1e6)]
    assert place(unit_s, cut_bytes, speeds, links).cuts == (2,)
    assert place(unit_s, cut_bytes, speeds, links, shrink=20).cuts == (1,)


def test_room_and_the_last_machine_are_kept() -> None:
    arguments = ([0.1, 0.1, 0.1], [10, 10], [1.0, 1.0, 1.0], [Link(1e6, 0.1), Link(1e6, 0.1)])
    assert place(*arguments).machines == (0,)
    assert place(*arguments, last_machine=True).machines == (0, 2)
    assert place(*arguments, most_units=[1, 1, None]).cuts == (1,)
    with pytest.raises(FringeError, match="do not fit"):
        place(*arguments, most_units=[1, 0, 1])


def test_wrong_numbers_are_refused() -> None:
    for wrong in (
        ([0.1], [1], [1.0], []),
        ([0.1, 0.1], [1], [1.0, 0.0], [Link(1e6)]),
        ([0.1, -0.1], [1], [1.0, 1.0], [Link(1e6)]),
        ([0.1, 0.1], [1], [1.0], [Link(1e6)]),
    ):
        with pytest.raises(FringeError, match="expected"):
            place(*wrong)
    with pytest.raises(FringeError, match="shrink"):
        depth_for(0.5)


def test_a_fast_link_gets_no_pair_and_one_without_cost_nothing() -> None:
    assert "distillation" in methods_for(65_560, Link(10e6), 20, pair_s=0.001)
    assert "distillation" not in methods_for(65_560, Link(10e9), 20, pair_s=0.001)
    assert methods_for(65_560, Link(float("inf")), 20) == ()
    assert methods_for(65_560, Link(10e6), 3) == ("quantisation",)
    assert "pruning" not in methods_for(65_560, Link(10e6), 20, prunable=False)
