"""Factors, claims and scores: what raises a reward, until where, and what a node can say to raise it (nothing)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError, RewardError
from flower_edge.rewards.claims import Claim, Credited, Measured, credited, others_examples_per_s
from flower_edge.rewards.enrolment import Enrolment
from flower_edge.rewards.factors import Frequency, Recency, Shape, Size
from flower_edge.rewards.rule import RewardRule
from flower_edge.rewards.shares import largest_remainder

DAY_S = 86_400.0
POT = 10**15
SHAPES: st.SearchStrategy[Shape] = st.sampled_from(["log", "linear"])
# Whatever may come over a wire where a number should be.
TOLD = st.one_of(
    st.none(), st.floats(), st.integers(-(10**30), 10**30), st.sampled_from([10**400, True, 10**18, -5, math.nan])
)
ENROLLED = st.one_of(
    st.none(),
    st.builds(
        Enrolment,
        most_examples=st.none() | st.integers(1, 10**6),
        freshest_age_s=st.none() | st.floats(0.0, 100 * DAY_S),
        most_examples_per_s=st.none() | st.floats(0.1, 1e4),
    ),
)
MEASURED = st.builds(
    Measured, duration_s=st.none() | st.floats(0.01, 1e4), examples_per_s=st.none() | st.floats(0.1, 1e4)
)
RULES = st.builds(
    RewardRule,
    size=st.none() | st.builds(Size, shape=SHAPES, most=st.none() | st.integers(1, 1000)),
    recency=st.none() | st.builds(Recency, half_life_s=st.floats(1.0, 30 * DAY_S), least=st.floats(0.0, 1.0)),
    frequency=st.none() | st.builds(Frequency, shape=SHAPES),
)


def paid(rule: RewardRule, mine: Mapping[str, float]) -> int:
    """Micro-credits of a node next to one that is always the same."""
    known = Enrolment(most_examples=500, freshest_age_s=0.0)
    other = rule.scored(Claim(100, DAY_S), known, contribution=1.0, accepted=5).score
    node = Enrolment(most_examples=int(mine["examples"]), freshest_age_s=0.0)
    told = Claim(mine["examples"], mine["age_s"])
    score = rule.scored(told, node, contribution=mine["contribution"], accepted=int(mine["accepted"])).score
    return largest_remainder(POT, {"me": score, "other": other})["me"]


@settings(max_examples=60)
@given(st.integers(1, 10**6), st.integers(1, 10**5), SHAPES, st.none() | st.integers(1, 10**6))
def test_a_credit_rises_strictly_in_data_size_until_the_cap(n: int, more: int, shape: Shape, cap: int | None) -> None:
    rule = RewardRule(size=Size(shape, most=cap))
    mine = {"examples": n, "age_s": DAY_S, "accepted": 5, "contribution": 1.0}
    before, after = paid(rule, mine), paid(rule, mine | {"examples": n + more})
    assert after > before if cap is None or n < cap else after == before


@settings(max_examples=60)
@given(st.floats(0.0, 20 * DAY_S), st.floats(60.0, 20 * DAY_S), st.sampled_from([0.0, DAY_S]), st.floats(0.0, 0.5))
def test_a_credit_rises_strictly_in_freshness_until_the_cap(
    age_s: float, older_s: float, fresh_s: float, least: float
) -> None:
    recency = Recency(half_life_s=5 * DAY_S, fresh_s=fresh_s, least=least)
    rule, mine = RewardRule(recency=recency), {"examples": 100, "accepted": 5, "contribution": 1.0}
    fresh, old = paid(rule, mine | {"age_s": age_s}), paid(rule, mine | {"age_s": age_s + older_s})
    assert fresh >= old
    if age_s + older_s - fresh_s > 60.0 and recency.of(age_s) > least + 1e-6:
        assert fresh > old
    if age_s + older_s <= fresh_s or recency.of(age_s) == least:
        assert fresh == old


@settings(max_examples=60)
@given(st.integers(1, 20), st.integers(1, 12), SHAPES, st.integers(1, 10))
def test_a_credit_rises_strictly_in_frequency_until_the_cap(k: int, more: int, shape: Shape, cap: int) -> None:
    rule = RewardRule(frequency=Frequency(window=10, shape=shape, most=cap))
    mine = {"examples": 100, "age_s": DAY_S, "accepted": k, "contribution": 1.0}
    before, after = paid(rule, mine), paid(rule, mine | {"accepted": k + more})
    assert after > before if k < cap else after == before


@settings(max_examples=40)
@given(st.floats(0.001, 1e6), st.floats(0.01, 1e6))
def test_a_credit_rises_strictly_in_contribution_and_is_nothing_below_zero(worth: float, more: float) -> None:
    rule, mine = RewardRule(), {"examples": 100, "age_s": DAY_S, "accepted": 5}
    assert paid(rule, mine | {"contribution": worth + more}) > paid(rule, mine | {"contribution": worth})
    assert paid(rule, mine | {"contribution": -worth}) == paid(rule, mine | {"contribution": 0.0}) == 0


@settings(max_examples=100)
@given(RULES, TOLD, TOLD, ENROLLED, MEASURED)
def test_nothing_a_node_tells_earns_more_than_what_is_known_of_it(
    rule: RewardRule, examples: float | None, age_s: float | None, known: Enrolment | None, seen: Measured
) -> None:
    most = known.most_examples if known and known.most_examples is not None else (rule.size or Size()).unknown
    unknown_s = (rule.recency or Recency()).unknown_age_s
    freshest_s = known.freshest_age_s if known and known.freshest_age_s is not None else unknown_s
    told = rule.scored(Claim(examples, age_s), known, contribution=1.0, measured=seen)
    truth = rule.scored(Claim(most, freshest_s), known, contribution=1.0, measured=seen)
    assert told.score <= truth.score
    assert 0.0 <= told.credited.examples <= most
    assert told.credited.age_s >= freshest_s


@settings(max_examples=60)
@given(RULES, st.integers(1, 10**18), st.integers(1, 10**18), st.floats(0.0, 1.0), st.floats(1.01, 100.0))
def test_without_an_enrolment_all_tell_in_vain(
    rule: RewardRule, few: int, many: int, fresher: float, older: float
) -> None:
    age_s = (rule.recency or Recency()).unknown_age_s
    neutral = rule.scored(Claim(few, None), None, contribution=1.0).score
    assert neutral > 0.0
    assert [rule.scored(Claim(n, fresher * age_s), None, contribution=1.0).score for n in (few, many)] == [neutral] * 2
    assert rule.scored(Claim(few, older * age_s), None, contribution=1.0).score <= neutral
    assert rule.scored(Claim(0, age_s), None, contribution=1.0).score == (0.0 if rule.size else neutral)


@settings(max_examples=100)
@given(TOLD, st.floats(0.01, 1e4), st.floats(0.0, 1e4), ENROLLED)
def test_being_slow_never_counts_as_more_than_what_was_enrolled(
    told: float | None, duration_s: float, slower_s: float, known: Enrolment | None
) -> None:
    unknown = Credited(1.0, DAY_S)
    slow = credited(Claim(told), known, Measured(duration_s + slower_s, 10.0), unknown)
    assert slow.examples <= credited(Claim(told), known, Measured(), unknown).examples


def test_who_answers_too_fast_for_what_it_tells_is_credited_what_it_could_have_trained() -> None:
    rule, known = RewardRule(size=Size("linear"), recency=None, frequency=None), Enrolment(1000, 0.0, 100.0)
    quick = rule.scored(Claim(1000), known, contribution=1.0, measured=Measured(duration_s=2.0))
    honest = rule.scored(Claim(1000), known, contribution=1.0, measured=Measured(duration_s=10.0))
    assert (quick.score, honest.score) == (200.0, 1000.0)


@settings(max_examples=50)
@given(st.floats(0.1, 100.0), st.floats(0.1, 100.0))
def test_the_others_rate_is_not_changed_by_the_node_itself(mine_s: float, again_s: float) -> None:
    enrolled = {name: Enrolment(most_examples=100) for name in "abcd"}
    others = {"b": 10.0, "c": 20.0, "d": 40.0}
    rates = {others_examples_per_s("a", enrolled, others | {"a": time_s}) for time_s in (mine_s, again_s)}
    assert rates == {3.0 * 5.0}


def test_of_two_others_nothing_is_concluded() -> None:
    enrolled = {name: Enrolment(most_examples=100) for name in "abc"}
    assert others_examples_per_s("a", enrolled, {"a": 1.0, "b": 1.0, "c": 1.0, "stranger": 1.0, "d": 0.0}) is None
    assert others_examples_per_s("a", None, {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}) is None


def test_data_are_never_fresher_than_enrolled_and_untold_is_unknown() -> None:
    unknown, known = Credited(1.0, age_s=500.0), Enrolment(freshest_age_s=100.0)
    ages_s = {told: credited(Claim(1, told), known, Measured(), unknown).age_s for told in (0.0, 100.0, 300.0, None)}
    assert ages_s == {0.0: 100.0, 100.0: 100.0, 300.0: 300.0, None: 500.0}
    assert credited(Claim(1, math.nan), known, Measured(), unknown).age_s == 500.0
    assert credited(Claim(1, math.inf), known, Measured(), unknown).age_s == math.inf


def test_constants_before_a_factor_change_no_share() -> None:
    weights = {"a": 0.3, "b": 0.5, "c": 0.11}
    assert largest_remainder(10**9, weights) == largest_remainder(10**9, {key: 4.0 * w for key, w in weights.items()})


def test_the_score_is_what_it_was_made_of() -> None:
    rule = RewardRule(Size("linear"), Recency(half_life_s=DAY_S), Frequency())
    found = rule.scored(Claim(40, DAY_S), Enrolment(50, 0.0), contribution=0.25, accepted=3)
    assert (found.size, found.recency, found.frequency, found.contribution) == (40.0, 0.5, 3.0, 0.25)
    assert found.score == 40.0 * 0.5 * 3.0 * 0.25
    bare = RewardRule(None, None, None).scored(Claim(), None, contribution=0.25)
    assert (bare.size, bare.recency, bare.frequency, bare.score) == (1.0, 1.0, 1.0, 0.25)


@given(st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_contribution_that_is_no_number_is_refused(contribution: float) -> None:
    assume(not math.isfinite(contribution))
    with pytest.raises(RewardError, match="a contribution of"):
        RewardRule().scored(Claim(1), None, contribution=contribution)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Size("square"), "Size.shape='square'.: expected 'log' or 'linear'"),  # type: ignore[arg-type]
        (lambda: Size(most=0), "most=0"),
        (lambda: Size(unknown=0), "unknown=0"),
        (lambda: Recency(half_life_s=0.0), "half_life_s=0.0"),
        (lambda: Recency(fresh_s=-1.0), "fresh_s=-1.0"),
        (lambda: Recency(least=1.5), "least=1.5"),
        (lambda: Recency(unknown_s=math.inf), "unknown_s=inf"),
        (lambda: Frequency(window=0), "window=0"),
        (lambda: Frequency(window=5, most=6), "most=6.: expected 1 to 5"),
        (lambda: Frequency(shape="exp"), "shape='exp'"),  # type: ignore[arg-type]
    ],
)
def test_factors_say_what_is_wrong_with_them(make: object, said: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=said):
        make()
