"""Sampled Shapley values: the bound of their sum, their distance to the exact ones, and what they cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.contribution.exact import exact_shapley
from flower_edge.contribution.game import Value
from flower_edge.contribution.truncated import Sampling, shapley, truncated_shapley
from flower_edge.errors import RewardError


def random_game(seed: int, scale: float = 1.0) -> Value:
    """A value for every coalition without a table of them: any number of players."""

    def value(coalition: frozenset[int]) -> float:
        return float(np.random.default_rng([seed, *sorted(coalition)]).normal() * scale)

    return value


def learning(quality: list[float]) -> Value:
    """Like a merge: what is good adds up with falling returns, and what is bad takes away."""

    def value(coalition: frozenset[int]) -> float:
        return math.tanh(sum(quality[player] for player in coalition))

    return value


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 7),
    st.sampled_from([1e-6, 1e-3, 1.0, 1e6]),
    st.sampled_from([0.0, 1e-3, 0.5, 5.0]),
    st.sampled_from([0.0, 0.5]),
    st.integers(1, 12),
)
def test_the_sum_is_within_its_stated_bound(
    seed: int, players: int, scale: float, within: float, between: float, orders: int
) -> None:
    stop = Sampling(within=within, between=between, least=1, most=orders)
    value = random_game(seed, scale)
    found = truncated_shapley(value, players, np.random.default_rng(seed), sampling=stop)
    assert found.total == value(frozenset(range(players))) - value(frozenset())
    assert abs(math.fsum(found.values) - found.total) <= found.sum_error_bound
    assert found.sum_error_bound <= max(within, between) + 1e-12 * max(1.0, scale)
    assert found.permutations <= orders


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_without_truncation_nothing_of_the_sum_is_lost(seed: int, players: int) -> None:
    stop = Sampling(within=0.0, between=0.0, least=1, most=players)
    found = truncated_shapley(random_game(seed), players, np.random.default_rng(seed), sampling=stop)
    assert abs(math.fsum(found.values) - found.total) < 1e-12
    assert found.truncated == 0


@pytest.mark.parametrize("seed", range(5))
def test_sampled_values_are_near_the_exact_ones(seed: int) -> None:
    quality = np.random.default_rng(seed).uniform(-0.1, 0.4, size=8).tolist()
    exact = np.array(exact_shapley(learning(quality), 8).values)
    found = truncated_shapley(learning(quality), 8, np.random.default_rng(seed + 100))
    errors = np.abs(np.array(found.values) - exact)
    assert found.converged
    # Four standard errors, and what truncation may cut off of each.
    assert np.all(errors <= 4.0 * np.array(found.standard_errors) + Sampling().within)
    assert errors.max() < 0.15 * np.abs(exact).max()
    more = Sampling(within=0.0, least=4000, most=4000)
    settled = truncated_shapley(learning(quality), 8, np.random.default_rng(seed), sampling=more)
    assert np.abs(np.array(settled.values) - exact).max() < 0.02 * np.abs(exact).max()


def test_guided_orders_let_each_player_come_first_equally_often() -> None:
    firsts: list[int] = []

    def value(coalition: frozenset[int]) -> float:
        if len(coalition) == 1:
            firsts.extend(coalition)
        return float(len(coalition))

    truncated_shapley(value, 5, np.random.default_rng(0), sampling=Sampling(within=0.0, least=5, most=5))
    assert sorted(firsts) == [0, 1, 2, 3, 4]


def test_a_round_that_moved_nothing_takes_two_evaluations() -> None:
    found = truncated_shapley(lambda s: 0.0005 * bool(s), 20, np.random.default_rng(0))
    assert (found.values, found.evaluations, found.permutations) == ((0.0,) * 20, 2, 0)
    assert found.sum_error_bound == found.total == 0.0005


def test_truncation_saves_evaluations_where_a_few_do_all() -> None:
    few = lambda s: float(0 in s)  # noqa: E731
    whole = Sampling(within=0.0, least=40, most=40)
    asked = truncated_shapley(few, 20, np.random.default_rng(0), sampling=whole)
    saved = truncated_shapley(few, 20, np.random.default_rng(0), sampling=Sampling(least=40, most=40))
    assert asked.values == saved.values == (1.0, *[0.0] * 19)
    assert saved.evaluations < 0.7 * asked.evaluations
    assert saved.truncated > 30


def test_an_order_ends_once_less_than_within_is_left_and_no_sooner() -> None:
    found = truncated_shapley(lambda s: len(s) / 8, 8, np.random.default_rng(0), sampling=Sampling(within=0.26))
    assert found.sum_error_bound == pytest.approx(0.25)
    assert found.truncated == found.permutations
    assert max(map(len, seen_by(8, within=0.25))) == 8 - 1
    assert max(map(len, seen_by(8, within=0.26))) == 8 - 2


def seen_by(players: int, within: float) -> list[frozenset[int]]:
    """The coalitions that were asked for, but for all of them, which is always."""
    seen: list[frozenset[int]] = []
    value = lambda s: seen.append(s) or len(s) / players  # noqa: E731
    truncated_shapley(value, players, np.random.default_rng(0), sampling=Sampling(within=within))
    return [coalition for coalition in seen if len(coalition) < players]


def test_a_noisy_game_ends_at_its_limit_and_says_so() -> None:
    found = truncated_shapley(random_game(1), 10, np.random.default_rng(0), sampling=Sampling(most=34))
    assert (found.permutations, found.converged) == (34, False)
    assert min(found.standard_errors) > 0.01


def test_a_player_with_nothing_to_give_does_not_keep_sampling_going() -> None:
    found = truncated_shapley(lambda s: float(len(s - {3})), 10, np.random.default_rng(0))
    assert found.converged
    assert found.permutations == 30
    assert found.values[3] == 0.0


def test_players_that_are_alike_are_equal_although_sampled() -> None:
    quality = [0.3, 0.1, 0.2, 0.2, -0.1, 0.05, 0.2, 0.15, 0.1]
    found = truncated_shapley(learning(quality), 9, np.random.default_rng(2), alike=[(2, 3, 6), (1, 8)])
    assert found.values[2] == found.values[3] == found.values[6]
    assert found.values[1] == found.values[8] != found.values[2]
    assert abs(math.fsum(found.values) - found.total) <= found.sum_error_bound


def test_the_same_seed_gives_the_same_values() -> None:
    first, again, other = (truncated_shapley(random_game(1), 9, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first == again
    assert first.values != other.values


def test_few_players_are_exact_and_more_are_sampled() -> None:
    rng = np.random.default_rng(0)
    assert shapley(random_game(1), 8, rng) == exact_shapley(random_game(1), 8)
    assert shapley(lambda s: float(len(s)), 9, rng).method == "truncated"
    assert shapley(lambda s: float(len(s)), 9, rng, exact_up_to=9).evaluations == 512


def test_exact_values_are_not_cut_off_in_a_round_whose_sum_is_nothing() -> None:
    cancels = lambda s: 1.0 * (0 in s) - 1.0 * (1 in s)  # noqa: E731
    assert shapley(cancels, 2, np.random.default_rng(0)).values == (1.0, -1.0)
    assert truncated_shapley(cancels, 2, np.random.default_rng(0)).values == (0.0, 0.0)


@pytest.mark.parametrize(
    "wrong", [{"within": -1.0}, {"between": math.nan}, {"change": math.inf}, {"least": 0}, {"most": 5}, {"last": 0}]
)
def test_settings_out_of_range_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(RewardError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]
