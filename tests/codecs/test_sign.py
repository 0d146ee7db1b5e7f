"""Sign: one bit per number and one scale, and every law of a codec."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.vector_codec_laws import PATHS, VectorCodecLaws

from flower_edge.codecs.kernels import using
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.sparse import dense
from flower_edge.errors import CodecError

by_path = pytest.mark.parametrize("path", PATHS)


class TestSign(VectorCodecLaws):
    def make(self) -> Sign:
        return Sign()


def packed(v: Floats) -> bytes:
    return Sign().pack(v, Layout.flat(v.size), {}, Moment())[0]


@by_path
def test_golden_bytes(path: Any) -> None:
    small = np.array([0.5, -1.25, 3, 0, -0.125, 2, 1e-3, -7, 0.25], np.float32)
    with using(path):
        assert packed(small).hex() == "927f9200"
        assert packed(0 * small).hex() == "00000000"
        assert packed(np.float32([-0.3])).hex() == "337d01"
        assert packed(small[:0]) == b""
        long = (np.arange(70_000, dtype=np.int64) * 7919 % 1009 - 504).astype(np.float32)
        assert packed(long)[:6].hex() == "f986713c0ec7"


@by_path
def test_the_scale_is_the_mean_magnitude_to_nine_bits_also_where_float32_could_not_add_it_up(path: Any) -> None:
    with using(path):
        for size, magnitude in ((3_000_000, 1 / 3), (5000, 3e38)):
            v = np.full(size, magnitude, np.float32)
            v[::2] *= -1
            update, _ = Sign().unpack(memoryview(packed(v)), Layout.flat(size), {}, Moment())
            assert (np.sign(dense(update)) == np.sign(v)).all()
            np.testing.assert_allclose(np.abs(dense(update)), magnitude, rtol=2**-9)


@pytest.mark.skipif(len(PATHS) == 1, reason="Numba is not installed")
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5000), st.sampled_from([1e-44, 1e-6, 1.0, 1e30]))
def test_both_paths_give_the_same_bits_for_any_size_and_magnitude(size: int, magnitude: float) -> None:
    v = (np.random.default_rng(size).normal(size=size) * magnitude).astype(np.float32)
    found = []
    for path in PATHS:
        with using(path):  # type: ignore[arg-type]
            update, _ = Sign().unpack(memoryview(packed(v)), Layout.flat(size), {}, Moment())
            found.append((packed(v), dense(update).tobytes()))
    assert found[0] == found[1]


def test_of_a_normal_vector_two_over_pi_of_the_energy_arrive() -> None:
    v = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    update, _ = Sign().unpack(memoryview(packed(v)), Layout.flat(v.size), {}, Moment())
    error = dense(update) - v
    assert float(error @ error / (v @ v)) == pytest.approx(1 - 2 / np.pi, rel=0.02)


def test_zero_and_minus_zero_count_as_positive() -> None:
    v = np.array([-0.0, 0.0, 3.0], np.float32)
    update, _ = Sign().unpack(memoryview(packed(v)), Layout.flat(3), {}, Moment())
    assert dense(update).tolist() == [1.0, 1.0, 1.0]


def test_a_bit_beyond_the_last_sign_is_refused() -> None:
    data = bytearray(packed(np.ones(9, np.float32)))
    data[-1] |= 2
    with pytest.raises(CodecError, match="bits beyond the last sign"):
        Sign().unpack(memoryview(bytes(data)), Layout.flat(9), {}, Moment())
