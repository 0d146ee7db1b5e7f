"""Standardisation by federated moments: what devices tell makes the constants of all data, and no data move."""

from __future__ import annotations

import json
import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import DataError, ProtocolError, SplitError
from flower_edge.splitting.moments import Moments, Scope
from flower_edge.splitting.standardise import Standard, StandardKind

SCOPES: list[Scope] = ["feature", "channel", "whole"]
AXES = {"feature": (0,), "channel": (0, 2, 3), "whole": (0, 1, 2, 3)}


def pictures(samples: int, seed: int = 0) -> np.ndarray:
    """[samples, 3, 4, 4]: channels far apart in place and spread."""
    rng = np.random.default_rng([samples, seed])
    return rng.normal(size=(samples, 3, 4, 4)) * [[[[1.0]], [[1e-3]], [[50.0]]]] + [[[[0.0]], [[1e4]], [[-7.0]]]]


def parts(x: np.ndarray, ends: list[int]) -> dict[int, np.ndarray]:
    return dict(enumerate(np.split(x, ends)))


# -- moments ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=5), st.sampled_from(SCOPES), st.integers(0, 9))
def test_merged_moments_are_those_of_all_samples_together(ends: list[int], scope: Scope, seed: int) -> None:
    x = pictures(60, seed)
    devices = {number: Moments.of(part, scope) for number, part in parts(x, sorted(ends)).items()}
    merged, axes = Moments.merged(devices), AXES[scope]
    assert merged.count * max(merged.mean.size, 1) == x.size
    scale = np.abs(x).max(axis=axes)
    np.testing.assert_allclose(merged.mean / scale, x.mean(axis=axes) / scale, rtol=0, atol=1e-14)
    np.testing.assert_allclose(merged.std, x.std(axis=axes), rtol=1e-9 if scope != "whole" else 1e-12)
    np.testing.assert_array_equal(merged.low, x.min(axis=axes))
    np.testing.assert_array_equal(merged.high, x.max(axis=axes))


def test_constants_fitted_by_moments_are_those_of_the_pooled_data_to_twelve_digits() -> None:
    rng = np.random.default_rng(1)
    x = rng.gamma(2.0, 3.0, size=(5000, 20))
    devices = {n: Moments.of(part, "feature") for n, part in parts(x, [17, 400, 401, 3000]).items()}
    for kind, shift, scale in (
        ("z-score", x.mean(axis=0), x.std(axis=0)),
        ("min-max", x.min(axis=0), x.max(axis=0) - x.min(axis=0)),
    ):
        fitted = Standard.fit(kind, Moments.merged(devices))  # type: ignore[arg-type]
        np.testing.assert_allclose(fitted.shift, shift, rtol=1e-12)
        np.testing.assert_allclose(fitted.scale, scale, rtol=1e-12)


def test_the_order_in_which_devices_answer_changes_no_digit() -> None:
    told = {number: Moments.of(pictures(5 + number, number)) for number in range(4)}
    texts = {
        json.dumps(Moments.merged({number: told[number] for number in order}).to_plain())
        for order in permutations(told)
    }
    assert len(texts) == 1


def test_a_mean_large_beside_the_spread_does_not_cancel() -> None:
    """Sums and sums of squares would leave no digit here: 1e18 has no room for the square of 1e-2."""
    rng = np.random.default_rng(2)
    x = 1e9 + 1e-2 * rng.normal(size=(1000, 1))
    merged = Moments.merged({n: Moments.of(part, "feature") for n, part in parts(x, [300, 301]).items()})
    np.testing.assert_allclose(merged.std, x.std(axis=0), rtol=1e-4)
    naive = np.mean(np.square(x)) - np.square(np.mean(x))
    assert abs(naive - x.var()) > x.var()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.sampled_from(SCOPES), st.sampled_from([np.float32, np.float64, np.uint8]))
def test_moments_come_back_from_json_bit_for_bit(samples: int, scope: Scope, dtype: Any) -> None:
    found = Moments.of(np.abs(pictures(samples)).astype(dtype), scope)
    again = Moments.from_plain(json.loads(json.dumps(found.to_plain())))
    assert json.dumps(again.to_plain()) == json.dumps(found.to_plain())
    assert again.mean.shape == found.mean.shape


def test_a_device_with_too_few_samples_tells_nothing() -> None:
    few = Moments.of(pictures(3), least_samples=4)
    assert few.to_plain() == {"scope": "channel", "count": 0, "shape": [3]}
    other = Moments.of(pictures(9))
    for merged in (few + other, other + few, Moments.merged({0: few, 1: other, 2: Moments.of(pictures(0))})):
        assert merged.to_plain() == other.to_plain()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_missing_is_named(bad: float) -> None:
    x = pictures(9)
    x[7, 1, 2, 3] = bad
    with pytest.raises(DataError, match=rf"sample 7, feature \(1, 2, 3\): {bad}, expected a finite"):
        Moments.of(x)


def test_moments_of_other_samples_are_not_added() -> None:
    one = Moments.of(pictures(3))
    for other in (Moments.of(pictures(3), "whole"), Moments.of(pictures(3)[:, :2])):
        with pytest.raises(DataError, match="expected both of the same kind"):
            one + other
    with pytest.raises(DataError, match="moments of no device"):
        Moments.merged({})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scope": "row"}, "scope 'row'"),
        ({"count": -1}, "count -1"),
        ({"count": 2.0}, "count 2.0"),
        ({"shape": [1 << 20]}, "shape"),
        ({"shape": [4]}, "mean: expected 4 numbers"),
        ({"shape": [1 << 16, 1 << 16]}, "use scope='channel'"),
        ({"mean": [0.0, math.nan, 0.0]}, "mean: expected finite"),
        ({"m2": [-1.0, 0.0, 0.0]}, "that no samples have: entry 0"),
        ({"m2": [1e200, 0.0, 0.0]}, "that no samples have: entry 0"),
        ({"low": [-9.0, -9.0, 9.0]}, "that no samples have: entry 2"),
        ({"high": "many"}, "high: expected 3 numbers"),
        ({"low": None}, "low: expected 3 numbers"),
        ({"low": [True, 0.0, 0.0]}, "low: expected finite"),
    ],
)
def test_moments_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    good = Moments.of(np.random.default_rng(0).normal(size=(9, 3))).to_plain()
    assert Moments.from_plain(good).count == 9
    with pytest.raises(ProtocolError, match=f"device 5 sent.*{message}"):
        Moments.from_plain({**good, **change}, sender="device 5")


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["scope", "count", "shape", "mean", "m2", "low", "high"]),
        st.sampled_from(["feature", "whole", 0, 3, [2], [], [0.0, 1.0], [1e308, -1e308], None, [[]], {}, -0.0, 2**60]),
    )
)
def test_any_plain_values_are_moments_or_a_protocol_error(values: dict[str, Any]) -> None:
    good = Moments.of(np.array([[0.0, 1.0], [2.0, 5.0]]), "feature").to_plain()
    try:
        found = Moments.from_plain({**good, **values})
    except ProtocolError:
        return
    assert np.isfinite(found.std).all()


# -- standardisation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
def test_after_z_score_means_are_zero_and_spreads_are_one(scope: Scope) -> None:
    x = pictures(50)
    out = Standard.fit("z-score", Moments.of(x, scope)).apply(x)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.mean(axis=AXES[scope], dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(axis=AXES[scope], dtype=np.float64), 1, rtol=1e-4)


@pytest.mark.parametrize("scope", SCOPES)
def test_after_min_max_values_lie_between_zero_and_one(scope: Scope) -> None:
    x = pictures(50)
    out = Standard.fit("min-max", Moments.of(x, scope)).apply(x)
    assert (out.min(axis=AXES[scope]) == 0).all()
    assert (out.max(axis=AXES[scope]) == 1).all()


@pytest.mark.parametrize("kind", ["z-score", "min-max"])
def test_a_constant_becomes_zero_even_where_rounding_moves_its_mean(kind: StandardKind) -> None:
    x = np.full((30, 2), 0.1)
    merged = Moments.merged({n: Moments.of(part, "feature") for n, part in parts(x, [7, 11]).items()})
    np.testing.assert_array_equal(Standard.fit(kind, merged).apply(x), np.zeros((30, 2), np.float32))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["z-score", "min-max", "log"]), st.sampled_from(SCOPES), st.integers(0, 20))
def test_where_there_is_an_inverse_it_gives_back_the_samples_to_float32s_digits(
    kind: StandardKind, scope: Scope, seed: int
) -> None:
    x = np.random.default_rng(seed).normal(size=(20, 3, 4, 4))
    standard = Standard(kind, scope).fitted(Moments.of(x, scope))
    np.testing.assert_allclose(standard.invert(standard.apply(x)), x, rtol=1e-5, atol=1e-5)


def test_log_keeps_signs_and_zero_and_shrinks_what_is_large() -> None:
    x = np.array([[-math.expm1(2), 0.0, math.expm1(3)]])
    np.testing.assert_allclose(Standard("log").apply(x), [[-2, 0, 3]], rtol=1e-6)


@pytest.mark.parametrize(("norm", "order"), [("l1", 1), ("l2", 2)])
def test_after_unit_norm_each_sample_has_length_one_and_zeros_stay(norm: Any, order: int) -> None:
    x = np.concatenate([pictures(6), 1e300 * np.ones((1, 3, 4, 4)), np.zeros((1, 3, 4, 4))])
    out = Standard("unit-norm", norm=norm).apply(x).reshape(8, -1)
    np.testing.assert_allclose(np.linalg.norm(out[:7].astype(np.float64), order, axis=1), 1, rtol=1e-6)
    assert not out[7].any()
    with pytest.raises(SplitError, match="has no inverse"):
        Standard("unit-norm").invert(out)


@pytest.mark.parametrize(
    "standard",
    [
        Standard(),
        Standard("min-max", "whole"),
        Standard("log"),
        Standard("unit-norm", norm="l1"),
        *(Standard.fit(kind, Moments.of(pictures(9), scope)) for kind in ("z-score", "min-max") for scope in SCOPES),  # type: ignore[arg-type]
    ],
    ids=lambda one: f"{one.kind}-{one.scope}-{len(one.scale)}",
)
def test_a_standard_out_of_its_own_json_is_the_same_standard(standard: Standard) -> None:
    again = Standard.from_config(json.loads(json.dumps(standard.config())))
    assert again == standard
    if not again.needs_moments:
        x = pictures(5)
        assert again.apply(x).tobytes() == standard.apply(x).tobytes()


def test_only_what_needs_constants_asks_devices_for_moments() -> None:
    x = pictures(9)
    assert Standard("log").moments(x) is None
    assert Standard("unit-norm").moments(x) is None
    told = Standard("z-score").moments(x, least_samples=9)
    assert told is not None
    assert told.count == 9 * 16
    assert Standard("z-score").fitted(told).moments(x) is None
    assert Standard("log").fitted(None) == Standard("log")


def test_the_wildest_moments_that_are_taken_merge_to_finite_constants() -> None:
    ends = {
        number: Moments.from_plain(
            {"scope": "whole", "count": (1 << 53) - 1, "shape": [], "mean": [x], "m2": [0.0], "low": [x], "high": [x]}
        )
        for number, x in enumerate((1e140, -1e140))
    }
    for kind in ("z-score", "min-max"):
        (scale,) = Standard(kind, "whole").fitted(Moments.merged(ends)).scale  # type: ignore[arg-type]
        assert np.isfinite(scale)


@pytest.mark.parametrize("standard", [Standard("log"), Standard("unit-norm"), Standard("unit-norm", norm="l1")])
def test_what_is_no_number_is_refused_and_no_samples_stay_none(standard: Standard) -> None:
    assert standard.apply(np.zeros((0, 3))).shape == (0, 3)
    for bad in (np.array([["a"]]), np.array([[None]]), np.float64(1.0)):
        with pytest.raises(DataError, match="expected numbers"):
            standard.apply(bad)
    with pytest.raises(DataError, match=r"sample 0, feature \(0,\): inf becomes"):
        standard.apply(np.array([[np.inf, np.inf]]))


def test_samples_handed_in_are_left_as_they_are() -> None:
    x = pictures(5)
    before = x.tobytes()
    for kind in ("z-score", "min-max", "log", "unit-norm"):
        Standard(kind).fitted(Moments.of(x)).apply(x)  # type: ignore[arg-type]
    assert x.tobytes() == before


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Standard().apply(pictures(2)), "has not been fitted"),
        (lambda: Standard().fitted(None), "none, expected moments by channel"),
        (lambda: Standard().fitted(Moments.of(pictures(0))), "none, expected moments by channel"),
        (lambda: Standard().fitted(Moments.of(pictures(2), "whole")), "moments by whole, expected"),
        (lambda: Standard.fit("z-score", Moments.of(pictures(2))).apply(pictures(2)[:, :2]), r"shape \(2, 4, 4\) for"),
        (
            lambda: Standard.fit("z-score", Moments.of(pictures(2), "feature")).apply(pictures(2)[:, 0]),
            r"shape \(4, 4\)",
        ),
        (lambda: Standard("log").apply(np.array([[1.0, np.nan]])), r"sample 0, feature \(1,\): nan"),
        (lambda: Moments.of(np.array(["a"])), "expected numbers"),
        (lambda: Moments.of(np.zeros(3)), r"shape \(3,\)"),
        (lambda: Moments.of(np.zeros((3, 1)), "rows"), "scope = 'rows'"),  # type: ignore[arg-type]
    ],
)
def test_data_that_do_not_fit_are_refused(made: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        made()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "whiten"}, "kind = 'whiten', expected one of 'z-score'"),
        ({"kind": ["z-score"]}, "kind = "),
        ({"scope": "row"}, "scope = 'row'"),
        ({"norm": "l3"}, "norm = 'l3'"),
        ({"version": 2}, "version 2, this side reads 1"),
        ({"code": "import os"}, "'code', which it does not have"),
        ({"shift": [0.0]}, "1 shifts and 3 scales"),
        ({"shape": [1 << 30]}, "shape"),
        ({"shape": [2.0]}, "shape = "),
        ({"scale": [1.0, 0.0, 1.0]}, "scale 0.0"),
        ({"scale": [1.0, math.nan, 1.0]}, "scale nan"),
        ({"shift": [math.inf, 0.0, 0.0]}, "shift inf"),
        ({"scale": "111"}, "scale = '111', expected a list"),
        ({"scale": [1.0] * ((1 << 16) + 1)}, "expected a list of numbers"),
        ({"kind": "log"}, "'log' with constants"),
    ],
)
def test_a_config_that_means_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    good = Standard.fit("z-score", Moments.of(pictures(9))).config()
    with pytest.raises(SplitError, match=message):
        Standard.from_config({**good, **change})
