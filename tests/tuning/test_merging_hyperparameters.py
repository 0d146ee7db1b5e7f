"""Merging hyperparameters: laws of every kind, what is left out, and what one report of many can do."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.tuning import Choice, Count, Kind, LogScale, Merged, Report, Value, merge

LOG = LogScale(1e-4, 10.0)
COUNT = Count(1, 63, step=2)
CHOICE = Choice(("ce", "mse", "hinge"))
KINDS: tuple[Kind, ...] = (LOG, COUNT, CHOICE)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"by_score": "no"},
    "rank": {},
    "softmax": {"by_score": "softmax", "temperature": 0.1},
    "trimmed": {"trim": 0.2},
    "uncapped": {"most_weight": 1e12, "by_score": "no"},
}


def values_of(kind: Kind) -> st.SearchStrategy[Value]:
    if isinstance(kind, LogScale):
        return st.floats(kind.low, kind.high)
    if isinstance(kind, Count):
        return st.integers(0, (kind.high - kind.low) // kind.step).map(lambda n: kind.low + n * kind.step)
    return st.sampled_from(kind.options)


weights = st.floats(1e-3, 1e9)
scores = st.none() | st.floats(-1e3, 1e3)
kinds = st.sampled_from(KINDS)
options = st.sampled_from(sorted(OPTIONS)).map(OPTIONS.__getitem__)


@st.composite
def told(draw: st.DrawFn, kind: Kind, least: int = 1) -> list[Report]:
    return draw(st.lists(st.builds(Report, values_of(kind), weights, scores), min_size=least, max_size=9))


@settings(max_examples=30, deadline=None)
@given(st.data(), kinds, options)
def test_equal_reports_come_out_exactly_as_they_are(data: st.DataObject, kind: Kind, by: dict[str, Any]) -> None:
    value = data.draw(values_of(kind))
    reports = data.draw(st.lists(st.builds(Report, st.just(value), weights, scores), min_size=1, max_size=9))
    assert merge(kind, reports, **by) == Merged(value, len(reports), {})


@settings(max_examples=40, deadline=None)
@given(st.data(), kinds, options)
def test_the_result_lies_within_the_reports_and_is_of_the_kind(
    data: st.DataObject, kind: Kind, by: dict[str, Any]
) -> None:
    reports = data.draw(told(kind))
    value = merge(kind, reports, **by).value
    assert not kind.problem(value)
    all_values: list[Any] = [report.value for report in reports]
    if isinstance(kind, LogScale):
        assert min(all_values) <= value <= max(all_values)  # type: ignore[operator]
    else:
        assert value in all_values


@settings(max_examples=40, deadline=None)
@given(st.data(), kinds, options, st.randoms(use_true_random=False))
def test_the_order_of_the_reports_leaves_no_trace(
    data: st.DataObject, kind: Kind, by: dict[str, Any], chance: random.Random
) -> None:
    reports = data.draw(told(kind))
    shuffled = list(reports)
    chance.shuffle(shuffled)
    assert merge(kind, shuffled, **by) == merge(kind, reports, **by)


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from([LOG, COUNT]), st.integers(3, 9), st.booleans())
def test_one_of_three_or_more_cannot_move_a_median_or_a_trimmed_mean_out_of_the_range_of_the_others(
    data: st.DataObject, kind: Kind, number: int, claims_much: bool
) -> None:
    honest = [Report(data.draw(values_of(kind)), 10.0) for _ in range(number - 1)]
    liar = Report(data.draw(values_of(kind)), 1e12 if claims_much else 10.0, 1e9)
    # Capped at the others' weight, whatever it claims; the boast of a score counts for nobody who told none.
    value = merge(kind, [*honest, liar], trim=0.34, most_weight=1.0).value
    range_of: list[Any] = [report.value for report in honest]
    assert min(range_of) <= value <= max(range_of)  # type: ignore[operator]


@settings(max_examples=30, deadline=None)
@given(st.data(), st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=9))
def test_without_trimming_one_report_moves_a_mean_by_its_share_of_the_weight_and_no_more(
    data: st.DataObject, others: list[float]
) -> None:
    honest = [Report(value) for value in others]
    before = merge(LOG, honest).value
    after = merge(LOG, [*honest, Report(data.draw(values_of(LOG)))]).value
    moved = abs(math.log(after) - math.log(before))  # type: ignore[arg-type]
    assert moved <= math.log(LOG.high / LOG.low) / (len(others) + 1) + 1e-9


@pytest.mark.parametrize(
    ("kind", "bad", "reason"),
    [
        (LOG, Report(True), "type"),
        (LOG, Report("0.1"), "type"),
        (LOG, Report(None), "type"),
        (LOG, Report(math.nan), "out of bounds"),
        (LOG, Report(math.inf), "out of bounds"),
        (LOG, Report(0.0), "out of bounds"),
        (LOG, Report(10**400), "out of bounds"),
        (COUNT, Report(3.0), "type"),
        (COUNT, Report(True), "type"),
        (COUNT, Report(4), "out of bounds"),
        (COUNT, Report(65), "out of bounds"),
        (CHOICE, Report(0), "type"),
        (CHOICE, Report("l2"), "out of bounds"),
        (CHOICE, Report("ce", weight=0.0), "weight"),
        (CHOICE, Report("ce", weight=-3.0), "weight"),
        (CHOICE, Report("ce", weight=math.nan), "weight"),
        (CHOICE, Report("ce", weight=1e300), "weight"),
        (CHOICE, Report("ce", weight="7"), "weight"),
        (CHOICE, Report("ce", score=math.nan), "score"),
        (CHOICE, Report("ce", score=True), "score"),
        (CHOICE, Report("ce", score="best"), "score"),
    ],
    ids=str,
)
def test_what_is_no_report_is_left_out_and_counted(kind: Kind, bad: Report, reason: str) -> None:
    good = {LOG: 0.5, COUNT: 5, CHOICE: "mse"}[kind]
    assert merge(kind, [bad, Report(good), bad]) == Merged(good, 1, {reason: 2})
    assert merge(kind, [bad]) == Merged(None, 0, {reason: 1})


def test_a_geometric_mean_weighs_by_examples() -> None:
    value = merge(LOG, [Report(0.01, 1.0), Report(1.0, 3.0)]).value
    assert value == pytest.approx(0.01 ** (1 / 4))


def test_a_median_is_where_half_of_the_weight_is_reached() -> None:
    assert merge(COUNT, [Report(1, 2.0), Report(5, 1.0), Report(63, 1.0)]).value == 1
    assert merge(COUNT, [Report(1, 1.0), Report(5, 1.0), Report(63, 2.5)]).value == 63
    assert merge(COUNT, [Report(1), Report(63)]).value == 1


def test_nobody_weighs_more_than_a_few_times_the_median() -> None:
    crowd = [Report(0.1, 10.0)] * 5
    moved = merge(LOG, [*crowd, Report(10.0, 1e12)]).value
    assert moved == pytest.approx(0.1 ** (5 / 9) * 10.0 ** (4 / 9))
    assert merge(LOG, [*crowd, Report(10.0, 1e12)], most_weight=1e15).value == pytest.approx(10.0)


def test_by_rank_a_boast_is_worth_no_more_than_being_first() -> None:
    def vote(best: float) -> Value | None:
        return merge(CHOICE, [Report("mse", score=best), *[Report("ce", score=s) for s in (0.5, 0.6)]]).value

    assert vote(0.7) == vote(1e9) == "ce"  # 1 against 1/3 + 2/3, and ce is listed first
    assert merge(CHOICE, [Report("mse", score=1e9), Report("ce"), Report("ce")], by_score="softmax").value == "ce"


def test_a_vote_goes_by_score_where_scores_are_told_and_by_weight_where_not() -> None:
    reports = [Report("ce", score=0.1), Report("ce", score=0.2), Report("hinge", score=0.9), Report("hinge", score=0.8)]
    assert merge(CHOICE, reports).value == "hinge"
    assert merge(CHOICE, reports, by_score="no").value == "ce"
    assert merge(CHOICE, [Report("ce"), Report("hinge", 3.0)]).value == "hinge"


def test_a_softmax_with_a_low_temperature_takes_the_best() -> None:
    reports = [Report(0.001, score=0.5), Report(0.1, score=0.9), Report(5.0, score=0.2)]
    assert merge(LOG, reports, by_score="softmax", temperature=1e-3).value == pytest.approx(0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"by_score": "loss"},
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"trim": 0.5},
        {"trim": -0.1},
        {"trim": True},
        {"most_weight": 0.5},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        merge(LOG, [], **wrong)


def test_neighbours_stay_within_the_bounds_and_are_never_the_value_itself() -> None:
    rng = np.random.default_rng(0)
    for kind in (LOG, COUNT, Count(4, 128), Count(0, 3), Count(1, 10, step=4), LogScale(0.1, 0.15), CHOICE):
        value: Value = kind.options[0] if isinstance(kind, Choice) else kind.low
        for _ in range(200):
            near = kind.neighbours(value)
            assert near
            assert value not in near
            assert not any(kind.problem(other) for other in near)
            value = near[int(rng.integers(len(near)))]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LogScale(0.0, 1.0), "0 < low < high"),
        (lambda: LogScale(1.0, 0.1), "0 < low < high"),
        (lambda: LogScale(0.1, math.inf), "high=inf"),
        (lambda: LogScale(0.1, 1.0, step=1.0), "factor above 1"),
        (lambda: LogScale(True, 2.0), "low=True"),
        (lambda: Count(1.0, 5), "low=1.0"),  # type: ignore[arg-type]
        (lambda: Count(5, 1), "low < high"),
        (lambda: Count(1, 5, step=0), "step of 1 or more"),
        (lambda: Count(1, 5, step=9), "1 is the only value"),
        (lambda: Count(0, 2**64), "64 bits"),
        (lambda: Choice(["ce", "mse"]), "tuple"),  # type: ignore[arg-type]
        (lambda: Choice(("ce",)), "two or more"),
        (lambda: Choice(("ce", "ce")), "different"),
        (lambda: Choice(("ce", "x" * 300)), "longer"),
    ],
)
def test_a_kind_that_is_none_is_refused_with_what_came(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
