"""Laws of moves: everybody is counted once, and the moves lead from before to now."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.coverage import moves_between
from flower_edge.errors import DataError

cells = st.integers(-1, 4)
pairs = st.lists(st.tuples(cells, cells), max_size=40)


@given(pairs)
def test_every_node_stayed_entered_left_was_handed_over_or_stayed_outside(where: list[tuple[int, int]]) -> None:
    before, now = np.array(where, dtype=np.int64).reshape(-1, 2).T
    moves = moves_between(before, now)
    stayed = np.flatnonzero(before == now)
    everyone = np.concatenate([stayed, moves.entered, moves.left, moves.handed_over])
    np.testing.assert_array_equal(np.sort(everyone), np.arange(len(where)))
    assert len(moves) == len(where) - len(stayed)
    assert (before[moves.entered] == -1).all()
    assert (now[moves.left] == -1).all()
    np.testing.assert_array_equal(before[moves.handed_over], moves.source)
    assert (moves.source != moves.target).all()


@given(pairs)
def test_the_moves_applied_to_before_give_now(where: list[tuple[int, int]]) -> None:
    before, now = np.array(where, dtype=np.int64).reshape(-1, 2).T
    kept = before.copy()
    np.testing.assert_array_equal(moves_between(before, now).applied_to(before), now)
    np.testing.assert_array_equal(before, kept)
    np.testing.assert_array_equal(moves_between(None, now).applied_to(np.full(len(now), -1)), now)


@given(pairs)
def test_each_cell_gains_who_comes_and_loses_who_goes(where: list[tuple[int, int]]) -> None:
    before, now = np.array(where, dtype=np.int64).reshape(-1, 2).T
    moves = moves_between(before, now)

    def members(of: np.ndarray) -> np.ndarray:
        return np.bincount(of[of >= 0], minlength=5)

    came, went = members(np.r_[moves.into, moves.target]), members(np.r_[moves.out_of, moves.source])
    np.testing.assert_array_equal(members(before) + came - went, members(now))


@given(pairs)
def test_the_way_back_swaps_entering_with_leaving_and_source_with_target(where: list[tuple[int, int]]) -> None:
    before, now = np.array(where, dtype=np.int64).reshape(-1, 2).T
    there, back = moves_between(before, now), moves_between(now, before)
    np.testing.assert_array_equal(there.entered, back.left)
    np.testing.assert_array_equal(there.into, back.out_of)
    np.testing.assert_array_equal(there.source, back.target)


def test_answers_about_different_nodes_are_refused() -> None:
    with pytest.raises(DataError, match="the same nodes"):
        moves_between([0, 1], [0])
