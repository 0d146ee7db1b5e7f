"""Limits end a training at the first one that is reached, and say which."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.rules import Rule
from flower_edge.store import tree_from_bytes, tree_to_bytes
from flower_edge.termination import Limits, NoImprovement, Score, Spent

VALUES = st.lists(st.floats(-10, 10), max_size=12)


def test_no_limit_ends_nothing() -> None:
    assert Limits().reached(Spent(10**9, 1e9, 1e9, 1e9, {"accuracy": 1.0}), {"load": 1.0}) is None


@pytest.mark.parametrize(
    ("limits", "below", "at", "words"),
    [
        (Limits(rounds=5), Spent(rounds=4), Spent(rounds=5), "5 of 5 rounds are done"),
        (Limits(wall_s=60.0), Spent(wall_s=59.9), Spent(wall_s=60.0), "60 s of real time are used"),
        (Limits(virtual_s=60.0), Spent(virtual_s=59.9), Spent(virtual_s=61.0), "61 s of virtual time .* is 60 s"),
        (Limits(virtual_s=60.0), Spent(virtual_s=None), Spent(virtual_s=60.0), "virtual"),
        (Limits(trained_s=9.0), Spent(trained_s=8.0), Spent(trained_s=9.5), "9.5 s of training"),
        (Limits(score=Score("a", 0.9)), Spent(last={"a": 0.89}), Spent(last={"a": 0.9}), "a = 0.9 >= 0.9"),
        (Limits(score=Score("l", 0.1, False)), Spent(last={"l": 0.2}), Spent(last={"l": 0.1}), "l = 0.1 <= 0.1"),
        (Limits(no_improvement=NoImprovement("a", 3)), Spent(stale=2), Spent(stale=3), "not improved for 3"),
    ],
)
def test_a_limit_is_reached_at_its_value_and_not_before(limits: Limits, below: Spent, at: Spent, words: str) -> None:
    assert limits.reached(below) is None
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(limits.reached(at))


def test_a_rule_is_asked_only_where_there_are_conditions_and_the_unknown_ends_nothing() -> None:
    limits = Limits(when=Rule("load > 0.9"))
    assert limits.reached(Spent()) is None
    assert limits.reached(Spent(), {}) is None
    assert limits.reached(Spent(), {"load": 0.5, "battery": 0.0}) is None
    assert limits.reached(Spent(), {"load": 0.95}) == "load > 0.9 holds: load = 0.95"


def test_a_missing_metric_or_one_that_is_no_number_reaches_nothing() -> None:
    limits = Limits(score=Score("accuracy", -math.pi), no_improvement=NoImprovement("accuracy", 1))
    assert limits.reached(limits.scored(Spent(), {"loss": 9.0})) is None
    assert limits.scored(Spent(), {"loss": 9.0}).stale == 0
    nan = limits.scored(Spent(), {"accuracy": math.nan})
    assert not Score("accuracy", 0.0).reached(nan.last)
    assert nan.stale == 1


@given(VALUES, st.floats(0, 1), st.booleans())
def test_the_best_value_is_kept_and_stale_counts_the_evaluations_since(
    values: list[float], delta: float, higher: bool
) -> None:
    limits = Limits(no_improvement=NoImprovement("m", 3, delta, higher))
    spent = Spent()
    for value in values:
        spent = limits.scored(spent, {"m": value})
    sign = 1.0 if higher else -1.0
    best, stale = None, 0
    for value in values:
        if best is None or sign * (value - best) > delta:
            best, stale = value, 0
        else:
            stale += 1
    assert (spent.best, spent.stale) == (best, stale)
    assert (limits.reached(spent) is not None) == (stale >= 3)


@given(VALUES)
def test_more_of_anything_never_takes_a_reason_back(values: list[float]) -> None:
    limits = Limits(rounds=5, wall_s=5.0, virtual_s=5.0, trained_s=5.0)
    spent, ended = Spent(virtual_s=0.0), False
    for value in map(abs, values):
        spent = replace(
            spent,
            rounds=spent.rounds + 1,
            wall_s=spent.wall_s + value,
            virtual_s=(spent.virtual_s or 0.0) + value,
            trained_s=spent.trained_s + value,
        )
        now = limits.reached(spent) is not None
        assert now or not ended
        ended = now


def test_what_was_spent_survives_a_checkpoint() -> None:
    spent = Limits(no_improvement=NoImprovement("a", 2)).scored(Spent(3, 1.5, None, 2.5), {"a": 0.25, "b": math.nan})
    saved = tree_from_bytes(tree_to_bytes(spent.to_tree()))
    assert repr(Spent.from_tree(saved)) == repr(spent)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Limits(rounds=0), r"rounds=0.*more than 0"),
        (lambda: Limits(virtual_s=-1.0), r"virtual_s=-1\.0"),
        (lambda: Limits(wall_s=math.nan), r"wall_s=nan"),
        (lambda: Limits(when="load > 1"), r"write when=Rule\('load > 1'\)"),
        (lambda: Score("a", math.nan), "finite"),
        (lambda: NoImprovement("a", 0), "at least 1"),
        (lambda: NoImprovement("a", 2, -0.1), "0 or more"),
    ],
)
def test_a_limit_that_means_nothing_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
