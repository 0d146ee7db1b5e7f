"""Goals from text, floors of any metric in their own direction, and goals that cannot be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import FringeError
from flower_edge.fringe.goals import Amount, Goals, seconds_of
from flower_edge.fringe.links import Link
from flower_edge.fringe.metrics import METRICS, Metric

LINKS = [Link(10e6, 0.010), Link(20e6, 0.005)]
SIZES = [65_560, 32_792]


@pytest.mark.parametrize(
    ("text", "left"), [("20x", 5_000.0), ("95%", 5_000.0), ("95 kB", 5_000.0), (20, 5_000.0), (0.95, 5_000.0)]
)
def test_factor_share_and_amount_say_the_same(text: str | float, left: float) -> None:
    assert Goals(drop=0, bandwidth=text).most_bytes(100_000) == pytest.approx(left)


@pytest.mark.parametrize("text", ["20", "x", "95 parsecs", "", "1.2.3x", "100%", "1x", "0 kB", True, "-5%"])
def test_text_that_is_no_reduction_is_refused(text: str) -> None:
    with pytest.raises(FringeError, match="expected"):
        Goals(drop=0, bandwidth=text)


@pytest.mark.parametrize("metric", ["accuracy", "recall", "precision"])
def test_a_drop_of_a_share_in_points_is_refused_and_one_of_a_loss_may_be_any(metric: str) -> None:
    assert all(0.0 <= METRICS[metric].of(np.eye(3)[[0, right]], np.array([0, 1])) <= 1.0 for right in (1, 2))
    with pytest.raises(FringeError, match=rf"drop = 1: {metric} is a share of 1, so 0\.01 is one point"):
        Goals(drop=1, metric=metric, bandwidth="20x")
    assert Goals(floor=1, metric=metric, bandwidth="20x").worst(0.9) == 1
    assert Goals(drop=2, metric="loss", bandwidth="20x").worst(1.0) == 3.0


def test_latency_is_an_amount_or_a_reduction() -> None:
    assert Goals(drop=0, latency_s="17 ms").most_seconds(0.08) == pytest.approx(0.017)
    assert Goals(drop=0, reduction="79%").most_seconds(0.1) == pytest.approx(0.021)
    assert Goals(drop=0, reduction="60 ms").most_seconds(0.08) == pytest.approx(0.020)
    assert Goals(drop=0, reduction="79%", latency_s=0.01).most_seconds(0.1) == pytest.approx(0.010)
    for wrong in ("17", "17 kB", 0, -1.0, math.nan, True):
        with pytest.raises(FringeError, match=r"^latency = .*: expected a time above 0 with its unit"):
            seconds_of(wrong)


def test_a_goal_that_delays_forbid_is_refused_with_what_can_be_had() -> None:
    with pytest.raises(FringeError, match=r"81\.4 %"):
        Goals(drop=0.01, reduction="82%").refuse_impossible(SIZES, LINKS)
    with pytest.raises(FringeError, match=r"15\.00 ms"):
        Goals(drop=0.01, latency_s="15 ms").refuse_impossible(SIZES, LINKS)
    assert Goals(drop=0.01, reduction="81%").refuse_impossible(SIZES, LINKS).fraction == pytest.approx(0.814, abs=1e-3)


def test_bytes_below_the_heads_of_frames_are_refused() -> None:
    with pytest.raises(FringeError, match="heads of frames alone take 48"):
        Goals(drop=0.01, bandwidth="99.99%").refuse_impossible(SIZES, LINKS)
    with pytest.raises(FringeError, match="less than"):
        Goals(drop=0.01, bandwidth="1 MB").refuse_impossible(SIZES, LINKS)


def test_a_floor_that_does_not_hold_now_is_refused() -> None:
    with pytest.raises(FringeError, match=r"floor of 0\.95"):
        Goals(floor=0.95, bandwidth=2).refuse_impossible(SIZES, LINKS, score=0.9)
    with pytest.raises(FringeError, match="floor"):
        Goals(floor=0.2, metric="loss", bandwidth=2).refuse_impossible(SIZES, LINKS, score=0.3)


def test_goals_of_nothing_or_two_floors_are_refused() -> None:
    for wrong in ({"drop": 0.01}, {"bandwidth": 2}, {"bandwidth": 2, "drop": 0.1, "floor": 0.9}):
        with pytest.raises(FringeError, match=r"give|expected"):
            Goals(**wrong)
    with pytest.raises(FringeError, match="metric"):
        Goals(drop=0.1, bandwidth=2, metric="acuracy")
    with pytest.raises(FringeError, match="drop"):
        Goals(drop=-0.1, bandwidth=2)


@settings(max_examples=40)
@given(st.sampled_from(list(METRICS)), st.floats(0, 10), st.floats(0, 1, exclude_max=True), st.floats(0.001, 1))
def test_a_drop_allows_what_it_says_and_no_more_in_either_direction(
    name: str, before: float, drop: float, more: float
) -> None:
    goals = Goals(drop=drop, metric=name, bandwidth=2)
    worse = -1 if METRICS[name].larger_is_better else 1
    assert goals.holds(before + worse * drop, before)
    assert not goals.holds(before + worse * (drop + more), before)
    assert goals.holds(before - worse * more, before)
    assert not goals.holds(math.nan, before)


def test_config_goes_through_plain_values() -> None:
    for goals in (
        Goals(drop=0.01, bandwidth="20x", latency_s="17 ms"),
        Goals(floor=0.3, metric="loss", reduction="60 ms", bandwidth="60 kB"),
    ):
        assert Goals.from_config(goals.config()) == goals
    own = Metric("hits", lambda outputs, labels: 0.5)
    assert Goals.from_config(Goals(drop=0.1, bandwidth=2, metric=own).config(), own).judge is own
    with pytest.raises(FringeError, match="goals of"):
        Goals.from_config({"flor": 1})
    assert Amount.parse(Amount("share", 0.5), {}, "bandwidth") == Amount("share", 0.5)


def test_metrics_by_hand() -> None:
    outputs = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    labels = np.array([0, 0, 1, 1])
    assert METRICS["accuracy"].of(outputs, labels) == 0.75
    assert METRICS["recall"].of(outputs, labels) == 0.75  # (1 + 1/2) / 2
    assert METRICS["precision"].of(outputs, labels) == pytest.approx((2 / 3 + 1) / 2)
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert METRICS["loss"].of(outputs, labels) == pytest.approx((3 * right + wrong) / 4)
    assert METRICS["error"].of(np.array([[1.0], [3.0]]), np.array([0, 0])) == 5.0
    assert METRICS["precision"].of(outputs[:2], np.array([0, 1])) == 0.25  # class 1 is never named
    with pytest.raises(FringeError, match="outputs for"):
        METRICS["accuracy"].of(outputs, labels[:2])
