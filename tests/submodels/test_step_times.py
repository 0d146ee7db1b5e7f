"""Times of steps: what was measured counts, what was not follows from what was, and lies are not believed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.store.tree import tree_from_bytes, tree_to_bytes
from flower_edge.submodels.catalogue import mlp_catalogue
from flower_edge.submodels.step_times import StepTimes, believed_s, fitted_s

MODELS = mlp_catalogue([64, 32, 10], {"a": 1.0, "b": 0.5, "c": 0.25})


@settings(max_examples=40, deadline=None)
@given(
    fixed=st.floats(0.0, 10.0),
    slope=st.floats(1e-3, 10.0),
    costs=st.lists(st.floats(1.0, 1e3), min_size=2, max_size=5, unique=True),
    wanted=st.floats(1.0, 1e3),
)
def test_times_on_a_line_are_found_again(fixed: float, slope: float, costs: list[float], wanted: float) -> None:
    if max(costs) < 1.01 * min(costs):
        costs = [*costs, 2 * max(costs)]
    found = fitted_s([(cost * 1e6, fixed + slope * cost) for cost in costs], wanted * 1e6)
    assert found == pytest.approx(fixed + slope * wanted, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(1.0, 1e12), st.floats(1e-6, 1e4)), min_size=1, max_size=6), st.floats(1.0, 1e12))
def test_whatever_was_measured_a_prediction_is_finite_and_a_larger_model_is_not_quicker(
    measured: list[tuple[float, float]], flops: float
) -> None:
    small, large = fitted_s(measured, flops), fitted_s(measured, 2 * flops)
    assert small is not None
    assert large is not None
    assert 0.0 <= small <= large * (1 + 1e-9)
    assert math.isfinite(large)


def test_of_one_measurement_the_ratio_of_flops_counts() -> None:
    times = StepTimes().noted("7", "b", 0.1)
    found = times.predicted("7", "a", MODELS)
    assert found is not None
    assert found.how == "predicted"
    assert found.step_s == pytest.approx(0.1 * MODELS["a"].train_flops / MODELS["b"].train_flops)


def test_what_is_measured_is_taken_as_it_is_and_fades() -> None:
    times = StepTimes(weight=0.25).noted("7", "a", 1.0).noted("7", "a", 3.0)
    found = times.predicted("7", "a", MODELS)
    assert found is not None
    assert (found.step_s, found.how) == (1.5, "measured")


def test_a_load_slows_a_step_and_is_taken_out_of_a_measurement() -> None:
    times = StepTimes().noted("7", "a", 1.0, load=0.75)
    idle, busy = times.predicted("7", "a", MODELS), times.predicted("7", "a", MODELS, load=0.5)
    assert idle is not None
    assert busy is not None
    assert (idle.step_s, busy.step_s) == (0.25, 0.5)
    wholly = times.predicted("7", "a", MODELS, load=1.0)
    assert wholly is not None
    assert wholly.step_s == pytest.approx(5.0)


def test_nobody_measured_and_the_terminal_told_itself() -> None:
    told = StepTimes().predicted("7", "c", MODELS, told_s=0.4, told_of="a", load=0.5)
    # What it tells has its load in it already.
    assert told is not None
    assert told.how == "told"
    assert told.step_s == pytest.approx(0.4 * MODELS["c"].train_flops / MODELS["a"].train_flops)
    assert StepTimes().predicted("7", "c", MODELS) is None
    assert StepTimes().predicted("7", "c", MODELS, told_s=float("nan")) is None


@pytest.mark.parametrize("lie", [0.0, -1.0, math.nan, math.inf, 1e7, True, "0.1", None, [0.1], 1e-12])
def test_a_time_that_cannot_be_is_not_believed(lie: object) -> None:
    assert believed_s(lie, flops=1e6) is None
    assert believed_s(np.float32(0.5), flops=1e6) == 0.5


def test_times_go_to_a_checkpoint() -> None:
    times = StepTimes(batch=8, weight=0.3).noted("7", "a", 1.0).noted("8", "b", 0.5)
    assert StepTimes.from_tree(tree_from_bytes(tree_to_bytes(times.to_tree()))) == times
    assert times.without("7").idle_s == {"8": {"b": 0.5}}
    with pytest.raises(ConfigError, match="expected a finite number of seconds"):
        times.noted("7", "a", -1.0)
    with pytest.raises(ConfigError, match="batch"):
        StepTimes(batch=0)
    with pytest.raises(ConfigError, match="weight"):
        StepTimes(weight=0.0)
