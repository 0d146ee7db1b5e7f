"""Whole micro-credits: shares that add up to the pot, and a purse that adds up to the budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError, RewardError
from flower_edge.rewards.budget import Budget
from flower_edge.rewards.credits import MOST_MICRO, credits_of, micro_of
from flower_edge.rewards.shares import largest_remainder

POTS = st.integers(0, 10**9) | st.integers(0, 2**63 - 1) | st.integers(0, 10**40)
WEIGHTS = st.dictionaries(
    st.text(max_size=3), st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1.0, 0.1, 5e-324, 1e308])
)


@settings(max_examples=100)
@given(POTS, WEIGHTS)
def test_shares_add_up_to_the_pot_and_are_within_one_of_the_quota(pot: int, weights: dict[str, float]) -> None:
    shares = largest_remainder(pot, weights)
    positive = {key: Fraction(weight) for key, weight in weights.items() if weight > 0}
    assert list(shares) == list(weights)
    assert sum(shares.values()) == (pot if positive else 0)
    assert all(shares[key] == 0 for key in weights if key not in positive)
    for key, weight in positive.items():
        assert abs(shares[key] - pot * weight / sum(positive.values())) < 1


@settings(max_examples=60)
@given(POTS, WEIGHTS, st.floats(1e-300, 1e300), st.integers(2, 9))
def test_equal_weights_differ_by_one_at_most(pot: int, weights: dict[str, float], weight: float, equal: int) -> None:
    shares = largest_remainder(pot, weights | {f"equal-{number}": weight for number in range(equal)})
    same = [shares[f"equal-{number}"] for number in range(equal)]
    assert max(same) - min(same) <= 1
    assert same == sorted(same, reverse=True)  # whoever comes first by key gets what is over


@settings(max_examples=60)
@given(POTS, WEIGHTS, st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_changes_nothing(pot: int, weights: dict[str, float], random: object) -> None:
    mixed = list(weights.items())
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert largest_remainder(pot, dict(mixed)) == largest_remainder(pot, weights)


@settings(max_examples=60)
@given(POTS, WEIGHTS)
def test_who_weighs_more_never_gets_less(pot: int, weights: dict[str, float]) -> None:
    shares = largest_remainder(pot, weights)
    by_weight = sorted(weights, key=lambda key: (weights[key], shares[key]))
    assert [shares[key] for key in by_weight] == sorted(shares.values())


@given(st.integers(2**53, 2**62), st.integers(1, 1000))
def test_whole_weights_beyond_a_float_are_shared_out_as_they_are(large: int, small: int) -> None:
    weights = {"a": large, "b": small}
    assert largest_remainder(large + small, weights) == weights


@pytest.mark.parametrize(
    ("pot", "weights", "said"),
    [
        (1.0, {}, "a pot of 1.0"),
        (True, {}, "a pot of True"),
        (-1, {}, "a pot of -1"),
        (1, {"a": math.nan}, "a has weight nan"),
        (1, {"a": -math.inf}, "a has weight -inf"),
    ],
)
def test_pots_and_weights_that_are_none_are_refused(pot: int, weights: dict[str, float], said: str) -> None:
    with pytest.raises(RewardError, match=said):
        largest_remainder(pot, weights)


BUDGETS = st.one_of(
    st.builds(Budget, per_round=st.integers(0, 1000), run=st.none() | st.integers(0, 5000)),
    st.builds(Budget, run=st.integers(0, 5000), rounds=st.integers(1, 12)),
)


@settings(max_examples=100)
@given(BUDGETS, st.lists(st.floats(0.0, 1.0), max_size=15))
def test_paid_and_carried_are_what_was_granted_after_every_round(budget: Budget, parts: list[float]) -> None:
    purse = budget.start()
    for number, part in enumerate(parts, 1):
        pot = budget.pot(purse)
        assert pot == budget.grant(purse) + purse["carried"] >= 0
        before, purse = purse, budget.spent(purse, math.floor(pot * part))
        assert purse["rounds"] == number
        assert purse["paid"] + purse["carried"] == purse["granted"] == before["granted"] + budget.grant(before)
        if budget.run is not None:
            assert purse["granted"] <= budget.run


@settings(max_examples=60)
@given(st.integers(0, 10**12), st.integers(1, 50))
def test_a_run_s_budget_is_spread_evenly_and_spent_exactly(run: int, rounds: int) -> None:
    budget = Budget(run=run, rounds=rounds)
    purse, grants = budget.start(), []
    for _ in range(rounds):
        grants.append(budget.grant(purse))
        purse = budget.spent(purse, budget.pot(purse))
    assert purse["paid"] == run
    assert max(grants) - min(grants) <= 1
    assert budget.pot(purse) == 0


def test_a_round_that_pays_nobody_carries_all_of_it() -> None:
    budget = Budget(per_round=100)
    purse = budget.spent(budget.start(), sum(largest_remainder(100, {"a": -1.0, "b": 0.0}).values()))
    assert purse == {"rounds": 1, "granted": 100, "paid": 0, "carried": 100}
    assert budget.pot(purse) == 200


def test_what_is_carried_never_grows_beyond_what_a_book_can_hold() -> None:
    budget = Budget(per_round=MOST_MICRO)
    purse = budget.spent(budget.start(), 0)
    assert budget.pot(purse) == MOST_MICRO


@pytest.mark.parametrize("paid", [-1, 101, 50.0, True])
def test_more_than_the_pot_or_a_part_of_a_micro_credit_is_not_paid(paid: int) -> None:
    with pytest.raises(RewardError, match="of a pot of 100"):
        Budget(per_round=100).spent(Budget(per_round=100).start(), paid)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Budget(per_round=1.5), "per_round=1.5.: expected a whole number, not a float"),  # type: ignore[arg-type]
        (lambda: Budget(per_round=True), "not a bool"),
        (lambda: Budget(per_round=-1), "expected 0 to"),
        (lambda: Budget(run=5, rounds=0), "rounds=0.: expected 1 to"),
        (lambda: Budget(per_round=2**63), "expected 0 to 9223372036854775807"),
        (lambda: Budget(), "expected per_round, or"),
        (lambda: Budget(run=5), "or run and rounds"),
        (lambda: Budget(rounds=5), "or run and rounds"),
        (lambda: Budget(per_round=1, run=5, rounds=5), "or run and rounds"),
    ],
)
def test_a_budget_says_what_is_wrong_with_it(make: Callable[[], Budget], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


@settings(max_examples=60)
@given(st.integers(-MOST_MICRO, MOST_MICRO))
def test_micro_credits_and_credits_are_the_same_number(micro: int) -> None:
    assert micro_of(credits_of(micro)) == micro
    assert Fraction(credits_of(micro)) == Fraction(micro, 10**6)


@pytest.mark.parametrize("wrong", [0.5, True, None, "0.0000001", "many", "NaN", "Infinity", "1e30", Decimal("1e-9")])
def test_credits_that_are_not_exact_are_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match="credits: "):
        micro_of(wrong)  # type: ignore[arg-type]
