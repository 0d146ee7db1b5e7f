"""Exact Shapley values, leave-one-out, and the game they are asked of."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.contribution.exact import exact_shapley
from flower_edge.contribution.game import Game, Value
from flower_edge.contribution.leave_one_out import leave_one_out
from flower_edge.errors import RewardError


def table(worth: dict[frozenset[int], float]) -> Value:
    return lambda coalition: worth[coalition]


def coalitions(players: int) -> list[frozenset[int]]:
    return [frozenset(s) for size in range(players + 1) for s in itertools.combinations(range(players), size)]


@st.composite
def games(draw: st.DrawFn, least: int = 0, most: int = 5) -> tuple[Value, int]:
    players = draw(st.integers(least, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1e-9, 1.0, 1.0, 10.0]))
    return table({s: float(rng.normal() * scale) for s in coalitions(players)}), players


def by_orders(value: Value, players: int) -> list[float]:
    """The definition by orders, with none of the code under test."""
    found = [[] for _ in range(players)]  # type: list[list[float]]
    for order in itertools.permutations(range(players)):
        for place, player in enumerate(order):
            found[player].append(value(frozenset(order[: place + 1])) - value(frozenset(order[:place])))
    return [math.fsum(added) / len(added) for added in found]


@settings(max_examples=60)
@given(games())
def test_values_are_the_mean_over_all_orders_and_share_out_the_total(game: tuple[Value, int]) -> None:
    value, players = game
    found = exact_shapley(value, players)
    np.testing.assert_allclose(found.values, by_orders(value, players), rtol=0, atol=1e-12)
    assert found.total == value(frozenset(range(players))) - value(frozenset())
    assert abs(math.fsum(found.values) - found.total) <= min(1e-12, found.sum_error_bound)
    assert found.evaluations == 2**players


@settings(max_examples=40)
@given(games(least=2), st.data())
def test_equal_players_are_equal_to_the_last_bit(game: tuple[Value, int], data: st.DataObject) -> None:
    value, players = game
    i, j = data.draw(st.permutations(range(players)))[:2]
    # What a coalition is worth does not depend on which of the two is in it.
    equal = lambda s: value((s - {j}) | {i} if j in s and i not in s else s)  # noqa: E731
    found = exact_shapley(equal, players).values
    assert found[i] == found[j]


@settings(max_examples=40)
@given(games(least=1), st.data())
def test_a_player_that_changes_nothing_has_exactly_zero(game: tuple[Value, int], data: st.DataObject) -> None:
    value, players = game
    null = data.draw(st.integers(0, players - 1))
    found = exact_shapley(lambda s: value(s - {null}), players)
    assert found.values[null] == 0.0


@settings(max_examples=30)
@given(games(least=1), st.data())
def test_values_do_not_depend_on_how_players_are_numbered(game: tuple[Value, int], data: st.DataObject) -> None:
    value, players = game
    name = data.draw(st.permutations(range(players)))
    renamed = exact_shapley(lambda s: value(frozenset(name[player] for player in s)), players).values
    assert tuple(renamed) == tuple(exact_shapley(value, players).values[name[player]] for player in range(players))


def test_seven_with_a_veto_share_as_in_the_textbook() -> None:
    # One left glove and six right ones: the left one is worth 6/7, each right one 1/42.
    found = exact_shapley(lambda s: float(0 in s and len(s) > 1), players=7)
    np.testing.assert_allclose(found.values, [6 / 7] + [1 / 42] * 6, rtol=1e-15)


def test_coalitions_come_one_player_apart() -> None:
    asked: list[frozenset[int]] = []
    exact_shapley(lambda s: asked.append(s) or 0.0, players=5)
    assert len(asked) == 32
    assert all(len(before ^ after) == 1 for before, after in itertools.pairwise(asked))


def test_twelve_players_are_the_most_and_the_error_says_what_to_use() -> None:
    with pytest.raises(RewardError, match=r"13 players have 8\.19e\+03 coalitions.*truncated_shapley"):
        exact_shapley(lambda s: 0.0, players=13)
    assert len(exact_shapley(lambda s: float(len(s)), players=12).values) == 12


@settings(max_examples=30)
@given(games(least=1))
def test_leave_one_out_is_the_last_step_of_every_order(game: tuple[Value, int]) -> None:
    value, players = game
    everybody = frozenset(range(players))
    found = leave_one_out(value, players)
    assert list(found.values) == [value(everybody) - value(everybody - {player}) for player in range(players)]
    assert abs(math.fsum(found.values) - found.total) <= found.sum_error_bound
    assert found.evaluations == len({everybody, frozenset(), *(everybody - {player} for player in range(players))})


def test_of_players_that_are_alike_only_their_number_counts() -> None:
    asked: list[frozenset[int]] = []

    def value(coalition: frozenset[int]) -> float:
        asked.append(coalition)
        # A merge whose last bit depends on the order: without `alike` the two would differ.
        return sum(0.1 * (player + 1) for player in coalition) + 1e-17 * (3 in coalition)

    found = exact_shapley(value, 4, alike=[(1, 3)])
    assert found.values[1] == found.values[3]
    assert found.evaluations == len(asked) == 2 * 2 * 3
    assert not any(3 in coalition and 1 not in coalition for coalition in asked)


@pytest.mark.parametrize("alike", [[(0, 5)], [(0, 1), (1, 2)], [(0, 0)]])
def test_groups_of_nobody_or_of_one_twice_are_refused(alike: list[tuple[int, ...]]) -> None:
    with pytest.raises(RewardError, match="players 0 to 2 in one group"):
        Game(lambda s: 0.0, 3, alike=alike)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_worth_that_is_no_number_is_an_error_or_counts_as_the_floor(bad: float) -> None:
    broken = lambda s: bad if 1 in s else 1.0  # noqa: E731
    with pytest.raises(RewardError, match=r"coalition \[0, 1\] is worth .* floor="):
        exact_shapley(broken, players=2)
    found = exact_shapley(broken, players=2, floor=-3.0)
    assert found.values == (0.0, -4.0)


def test_a_floor_keeps_one_terrible_merge_from_drowning_the_rest() -> None:
    found = exact_shapley(lambda s: -1e200 if 1 in s else float(len(s)), players=2, floor=-2.0)
    assert found.values == (0.5, -2.5)


def test_a_floor_that_is_no_number_is_refused() -> None:
    with pytest.raises(RewardError, match="floor=nan"):
        Game(lambda s: 0.0, 1, floor=math.nan)


def test_nobody_at_all_is_a_game_too() -> None:
    assert exact_shapley(lambda s: 5.0, players=0).values == leave_one_out(lambda s: 5.0, players=0).values == ()
    with pytest.raises(RewardError, match="-1 players"):
        Game(lambda s: 0.0, -1)
