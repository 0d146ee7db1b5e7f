"""Block: whole numbers of a few bits, each block with a step, and every law of a codec."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.vector_codec_laws import PATHS, VectorCodecLaws

from flower_edge.codecs.block import Block
from flower_edge.codecs.kernels import using
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.sparse import dense
from flower_edge.errors import CodecError

by_path = pytest.mark.parametrize("path", PATHS)
SMALL = np.array([0.5, -1.25, 3, 0, -0.125, 2, 1e-3, -7, 0.25], np.float32)
LONG = ((np.arange(70_000) * 7919 % 1009 - 504) / 256).astype(np.float32)


class TestEightBits(VectorCodecLaws):
    def make(self) -> Block:
        return Block()


class TestFourBitsToTheNearest(VectorCodecLaws):
    def make(self) -> Block:
        return Block(4, 32, stochastic=False)


def carried(codec: Block, v: Floats, at: Moment = Moment()) -> Floats:  # noqa: B008
    layout = Layout.flat(v.size)
    data, _ = codec.pack(v, layout, {}, at)
    return dense(codec.unpack(memoryview(data), layout, {}, at)[0])


@by_path
@pytest.mark.parametrize(
    ("codec", "small", "zeros", "one", "long"),
    [
        (Block(), "c47a8868b57f7da37f0083", "00007f7f7f7f7f7f7f7f7f", "367600", "6acb74b3fb4b272e"),
        (Block(4), "007f97760a7777", "00007777777777", "607a70", "0b0d4f441d6efcc1"),
        (
            Block(8, 16, stochastic=False),
            "c47a8868b57f7da37f0084",
            "00007f7f7f7f7f7f7f7f7f",
            "367600",
            "c30879369d9afc91",
        ),
        (Block(4, 16, stochastic=False), "007f98760a7777", "00007777777777", "607a70", "4010b21f6ed6efd6"),
    ],
    ids=str,
)
def test_golden_bytes(path: Any, codec: Block, small: str, zeros: str, one: str, long: str) -> None:
    at = Moment(3, 2)
    with using(path):
        for v, expected in ((SMALL, small), (0 * SMALL, zeros), (np.float32([-0.3]), one), (SMALL[:0], "")):
            assert codec.pack(v, Layout.flat(v.size), {}, at)[0].hex() == expected
        data, _ = codec.pack(LONG, Layout.flat(LONG.size), {}, at)
        assert hashlib.sha256(data).hexdigest()[:16] == long


@pytest.mark.skipif(len(PATHS) == 1, reason="Numba is not installed")
@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 5000) | st.just(70_001),
    st.sampled_from([4, 8]),
    st.booleans(),
    st.sampled_from([16, 256, 4096]),
    st.sampled_from([1e-44, 1e-38, 1e-6, 1.0, 1e30, 3.4e38]),
)
def test_both_paths_give_the_same_bits_for_any_size_and_magnitude(
    size: int, bits: int, stochastic: bool, block: int, magnitude: float
) -> None:
    v = np.random.default_rng([size, bits]).standard_t(2, size)
    v = (v / max(np.abs(v).max(initial=0), 1) * magnitude).astype(np.float32)
    layout, at, codec = Layout.flat(size), Moment(1, 4), Block(bits, block, stochastic)
    found = []
    for path in PATHS:
        with using(path):  # type: ignore[arg-type]
            data, _ = codec.pack(v, layout, {}, at)
            found.append((data, dense(codec.unpack(memoryview(data), layout, {}, at)[0])))
    assert found[0][0] == found[1][0]
    assert found[0][1].tobytes() == found[1][1].tobytes()
    assert np.isfinite(found[0][1]).all()


@by_path
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), max_size=70).map(lambda v: np.array(v, np.float32)),
    st.sampled_from([4, 8]),
)
def test_no_number_moves_by_more_than_half_a_step_or_a_step_if_at_random(path: Any, v: Floats, bits: int) -> None:
    with using(path):
        for stochastic in (False, True):
            moved = np.abs(carried(Block(bits, 16, stochastic), v).astype(np.float64) - v)
            for begin in range(0, v.size, 16):
                largest = float(np.abs(v[begin : begin + 16]).max())
                step = max(largest / (2 ** (bits - 1) - 1) * (1 + 2**-8), 2.0**-126)
                assert (moved[begin : begin + 16] <= step * (1.0001 if stochastic else 0.5001)).all()


@by_path
def test_the_worst_block_there_is_meets_the_bound_and_comes_close(path: Any) -> None:
    """One number at full range, all others just under half a step: they lose all they have."""
    for bits, levels in ((8, 127), (4, 7)):
        v = np.full(256, 0.499, np.float32)
        v[17] = levels
        with using(path):
            error = carried(Block(bits, stochastic=False), v).astype(np.float64) - v
        lost = float(error @ error / np.square(v, dtype=np.float64).sum())
        bound = Block(bits, stochastic=False).contraction(256)
        assert bound is not None
        assert 0.9 * (1 - bound) < lost <= 1 - bound


def test_a_block_costs_two_bytes_and_its_numbers_their_bits() -> None:
    v = np.ones(91_658, np.float32)
    sizes = [len(Block(bits).pack(v, Layout.flat(v.size), {}, Moment())[0]) for bits in (8, 4)]
    assert sizes == [91_658 + 2 * 359, 91_658 // 2 + 2 * 359]


def test_nodes_and_rounds_round_differently() -> None:
    v = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    first, *others = [carried(Block(4), v, at) for at in (Moment(0, 0), Moment(0, 1), Moment(1, 0))]
    assert all(0.2 < (first != other).mean() < 0.8 for other in others)


@by_path
def test_a_step_that_would_decode_to_infinity_is_refused(path: Any) -> None:
    layout, at = Layout.flat(1), Moment()
    with using(path):
        for bits, most in ((8, 0xF7FF), (4, 0xFBFF)):
            update, _ = Block(bits).unpack(memoryview(most.to_bytes(2, "little") + b"\xff"), layout, {}, at)
            assert np.isfinite(dense(update)).all()
            with pytest.raises(CodecError, match=r"a scale of code 0xf[8c]00"):
                Block(bits).unpack(memoryview((most + 1).to_bytes(2, "little") + b"\xff"), layout, {}, at)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 2}, "bits = 2: expected 8 or 4.*Eden"),
        ({"bits": 8.0}, "bits = 8.0"),
        ({"block": 100}, "block = 100: expected a power of two"),
        ({"block": 1 << 17}, "block = 131072"),
        ({"stochastic": 1}, "stochastic = 1: expected True or False"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_an_option_that_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        Block(**options)
