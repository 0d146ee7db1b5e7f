"""Codecs at a cut by name: what they cost is what is predicted, what they lose is within what they say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.codecs.block import Block
from flower_edge.codecs.codec import from_config
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.top_k import TopK
from flower_edge.errors import CodecError, SplitError
from flower_edge.splitting.cut_codecs import CUT_CODECS, bits_per_value, carried, cut_codec, error_bound

NAMES = [*CUT_CODECS, "top1", "top10", "top99"]
DIRECTIONS: list[Any] = ["up", "down"]


def relu(*shape: int) -> np.ndarray:
    return np.maximum(np.random.default_rng(3).normal(size=shape), 0).astype(np.float32)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_config_that_goes_through_json(name: str, direction: Any) -> None:
    config = cut_codec(name, direction, seed=7)
    if config is None:
        assert name == "none"
        return
    assert from_config(json.loads(json.dumps(config))).config() == config


def test_gradients_are_rounded_at_random_and_tensors_to_the_nearest() -> None:
    for name in ("int8", "int4", "int2"):
        up, down = cut_codec(name, "up"), cut_codec(name, "down")
        assert up is not None
        assert down is not None
        assert (up["stochastic"], down["stochastic"]) == (False, True)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("values", [1, 7, 300, 50_000])
def test_the_bits_predicted_are_those_sent(name: str, direction: Any, values: int) -> None:
    config = cut_codec(name, direction)
    v = np.random.default_rng(5).normal(size=values).astype(np.float32)
    sent = 8 * carried(config, v)[1] / values
    assert bits_per_value(config, values) == pytest.approx(sent, rel=0.01)


def test_fewer_bits_cost_fewer_bits() -> None:
    for direction in DIRECTIONS:
        costs = [bits_per_value(cut_codec(name, direction), 8192) for name in ("none", "fp16", "int8", "int4", "int2")]
        assert costs == sorted(costs, reverse=True)
    assert [bits_per_value(cut_codec(name, "up"), 8192) for name in ("int8", "int4", "int2")] == [8.5, 4.5, 3.0]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.sampled_from(DIRECTIONS),
    st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=150),
    st.integers(0, 9),
)
def test_no_number_is_off_by_more_than_the_bound(name: str, direction: Any, values: list[float], round: int) -> None:
    v = np.array(values, np.float32)
    config = cut_codec(name, direction)
    bound = error_bound(config, v)
    assert bound is not None
    out, _ = carried(config, v, Moment(round))
    last_digit = np.maximum(np.abs(v.astype(np.float64)) * 2.0**-23, 2.0**-126)
    assert (np.abs(out.astype(np.float64) - v) <= bound.astype(np.float64) * (1 + 1e-6) + last_digit).all()


def test_bounds_have_the_tensors_shape_and_fall_with_the_bits() -> None:
    x = relu(4, 3, 5, 5)
    bounds = [error_bound(cut_codec(name, "up"), x) for name in ("none", "fp16", "int8", "int4", "int2")]
    sizes = [float(bound.max()) for bound in bounds if bound is not None and bound.shape == x.shape]
    assert len(sizes) == 5
    assert sizes == sorted(sizes)
    assert sizes[0] == 0


def test_where_nothing_is_known_of_the_error_there_is_no_bound() -> None:
    assert error_bound(Sign().config(), relu(9)) is None
    assert error_bound(TopK(0.5).config(), relu(9)) is None
    assert error_bound(Identity().config(), relu(9)).tolist() == [0] * 9  # type: ignore[union-attr]
    half = error_bound(Half().config(), np.array([1e6, 1], np.float32))
    assert half is not None
    assert half[0] > 9e5
    assert error_bound(Block(8).config(), relu(0)).shape == (0,)  # type: ignore[union-attr]


def test_top_k_leaves_out_all_but_the_largest() -> None:
    x = np.random.default_rng(0).permutation(np.arange(1, 1001)).astype(np.float32).reshape(10, 100)
    out, size = carried(cut_codec("top10", "up"), x)
    assert out.shape == x.shape
    assert ((out > 0) == (x > 900)).all()
    assert size < 1000 / 8 + 100 + 30


@pytest.mark.parametrize("name", ["int3", "top0", "top100", "top05", "", "INT8"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(SplitError, match=r"expected one of none, fp16.*top1 to top99"):
        cut_codec(name, "up")


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(SplitError, match="direction = 'left'"):
        cut_codec("int8", "left")  # type: ignore[arg-type]
    with pytest.raises(SplitError, match="values = 0"):
        bits_per_value(None, 0)
    with pytest.raises(CodecError, match="remembers"):
        bits_per_value({"kind": "error_feedback", "inner": {"kind": "sign"}}, 100)
