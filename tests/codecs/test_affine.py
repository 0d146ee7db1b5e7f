"""Affine: whole numbers of a few bits between a lowest one and steps upwards, and every law of a codec."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.vector_codec_laws import VectorCodecLaws

from flower_edge.codecs.affine import Affine
from flower_edge.codecs.block import Block
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.sparse import dense
from flower_edge.errors import CodecError

LARGEST = float(np.finfo(np.float32).max)
SMALL = np.array([0.5, -1.25, 3, 0, -0.125, 2, 1e-3, -7, 0.25], np.float32)
LONG = ((np.arange(70_000) * 7919 % 1009 - 504) / 256).astype(np.float32)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


class TestFourBitsToTheNearest(VectorCodecLaws):
    def make(self) -> Affine:
        return Affine(4, 32)


class TestTwoBitsAtRandom(VectorCodecLaws):
    def make(self) -> Affine:
        return Affine(2, 8, stochastic=True)


def carried(codec: Affine | Block, v: Floats, at: Moment = Moment()) -> Floats:  # noqa: B008
    layout = Layout.flat(v.size)
    data, _ = codec.pack(v, layout, {}, at)
    return dense(codec.unpack(memoryview(data), layout, {}, at)[0])


def digit(v: Floats) -> np.ndarray:
    """The last digit of float32, which is all there is where steps are less than that."""
    return np.maximum(np.abs(v.astype(np.float64)) * 2.0**-23, 2.0**-149)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(finite | st.floats(0, 8, width=32), max_size=70).map(lambda v: np.array(v, np.float32)),
    st.sampled_from([2, 4, 8]),
    st.booleans(),
    st.sampled_from([8, 64]),
)
def test_no_number_moves_further_than_the_bound_over_the_whole_range_of_float32(
    v: Floats, bits: int, stochastic: bool, block: int
) -> None:
    codec = Affine(bits, block, stochastic)
    out = carried(codec, v)
    assert np.isfinite(out).all()
    moved = np.abs(out.astype(np.float64) - v)
    assert (moved <= codec.bound(v).astype(np.float64) * (1 + 1e-6) + digit(out)).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=64).map(
        lambda v: np.array(v, np.float32)
    ),
    st.sampled_from([2, 4, 8]),
)
def test_the_bound_is_half_the_range_over_the_levels_but_for_the_rounding_of_scales(v: Floats, bits: int) -> None:
    low, high = float(v.min()), float(v.max())
    step = (high - low + abs(low) * 2**-7) / (2**bits - 1) * (1 + 2**-8)
    assert (Affine(bits).bound(v) <= max(step, 2.0**-126) / 2 * (1 + 1e-6)).all()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    "values",
    [
        [0.0],
        [-0.0, 0.0],
        [1.001] * 9,
        [-1.001] * 9,
        [LARGEST] * 3,
        [-LARGEST] * 3,
        [-LARGEST, LARGEST, 0],
        [1e-45, 0],
        [-1e-45],
    ],
)
def test_constants_and_the_ends_of_the_range_stay_finite_and_close(bits: int, values: list[float]) -> None:
    v = np.array(values, np.float32)
    codec = Affine(bits)
    out = carried(codec, v)
    assert (np.abs(out.astype(np.float64) - v) <= codec.bound(v).astype(np.float64) * (1 + 1e-6) + digit(v)).all()


@settings(max_examples=40, deadline=None)
@given(finite, st.integers(1, 40), st.sampled_from([2, 4, 8]))
def test_a_constant_block_moves_by_less_than_a_thousandth(value: float, size: int, bits: int) -> None:
    v = np.full(size, value, np.float32)
    np.testing.assert_allclose(carried(Affine(bits), v), v, rtol=1e-3, atol=2.0**-126)


def test_what_lies_on_a_step_is_carried_exactly_also_at_random() -> None:
    v = np.array([-3, -2, 0, 12, 7, 1, 5, -1], np.float32)
    for stochastic in (False, True):
        np.testing.assert_array_equal(carried(Affine(4, 8, stochastic), v), v)


def test_behind_a_relu_it_loses_a_quarter_of_what_a_symmetric_range_loses() -> None:
    v = np.maximum(np.random.default_rng(0).normal(size=20_000), 0).astype(np.float32)
    lost = [float(np.square(carried(codec, v) - v).sum()) for codec in (Affine(4, 256), Block(4, 256, False))]
    assert lost[0] < 0.3 * lost[1]


@pytest.mark.parametrize(
    ("codec", "small", "zeros", "one", "long"),
    [
        (Affine(8), "e0c0427abf92feb2afe5b200b8", "00" * 13, "9abe9c6cff", "091b4e9fc3688ec5"),
        (Affine(4, 16, True), "e0c0567eebb80fbb0a", "00" * 9, "9abeb5700f", "35232c18795a7a11"),
        (Affine(2, 8), "e0c0803eab8000002a0a0f", "00" * 11, "9abe127303", "3890bdb01005375d"),
    ],
    ids=str,
)
def test_golden_bytes(codec: Affine, small: str, zeros: str, one: str, long: str) -> None:
    at = Moment(3, 2)
    for v, expected in ((SMALL, small), (0 * SMALL, zeros), (np.float32([-0.3]), one), (SMALL[:0], "")):
        assert codec.pack(v, Layout.flat(v.size), {}, at)[0].hex() == expected
    data, _ = codec.pack(LONG, Layout.flat(LONG.size), {}, at)
    assert hashlib.sha256(data).hexdigest()[:16] == long


def test_a_block_costs_four_bytes_and_its_numbers_their_bits() -> None:
    v = np.ones(10_001, np.float32)
    sizes = [len(Affine(bits).pack(v, Layout.flat(v.size), {}, Moment())[0]) for bits in (8, 4, 2)]
    assert sizes == [10_001 + 4 * 157, 5_001 + 4 * 157, 2_501 + 4 * 157]


def test_nodes_and_rounds_round_differently() -> None:
    v = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    codec = Affine(4, stochastic=True)
    first, *others = [carried(codec, v, at) for at in (Moment(0, 0), Moment(0, 1), Moment(1, 0))]
    assert all(0.2 < (first != other).mean() < 0.8 for other in others)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("807f 0000 00", "a lowest number of code 0x7f80"),
        ("81ff 0000 00", "a lowest number of code 0xff81"),
        ("0000 00ff 00", "a scale of code 0xff00"),
        ("0000 0000", "4 bytes for 1 values of 2 bits in blocks of 64, expected 5"),
    ],
)
def test_scales_that_are_no_numbers_are_refused(data: str, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        Affine(2).unpack(memoryview(bytes.fromhex(data)), Layout.flat(1), {}, Moment())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 3}, "bits = 3: expected 8, 4 or 2"),
        ({"bits": 4.0}, "bits = 4.0"),
        ({"block": 4}, "block = 4: expected a power of two"),
        ({"block": 1 << 17}, "block = 131072"),
        ({"stochastic": 1}, "stochastic = 1: expected True or False"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_an_option_that_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        Affine(**options)
