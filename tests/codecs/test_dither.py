"""Random bits by counting, 16-bit scales, and keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.vector_codec_laws import PATHS

from flower_edge.codecs.draws import key_of
from flower_edge.codecs.kernels import kernels, using
from flower_edge.codecs.scales import LARGEST, nearest, read_scales, rounded_at_random, to_float, upwards
from flower_edge.errors import CodecError

by_path = pytest.mark.parametrize("path", PATHS)
positive = st.lists(st.floats(0, 2.0**127, width=32), min_size=1, max_size=30).map(lambda v: np.array(v, np.float32))


@by_path
def test_golden_words(path: Any) -> None:
    with using(path):
        room = kernels("dither")
        assert room.words(0x0123456789ABCDEF, 5, 3).tolist() == [1616298377, 4236259637, 1045387825]
        assert room.words(1, 0xFFFFFFFF, 2).tolist() == room.words(0, 0, 2).tolist()  # the counter wraps
        assert room.uniform16(9, 5).tolist() == room.words(9, 0, 3).astype("<u4").view("<u2")[:5].tolist()
        assert room.words(7, 0, 0).size == room.uniform16(7, 0).size == 0


@pytest.mark.skipif(len(PATHS) == 1, reason="Numba is not installed")
@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 3000))
def test_both_paths_draw_the_same_words(key: int, begin: int, count: int) -> None:
    with using("reference"):
        one = kernels("dither").words(key, begin, count)
    with using("fast"):
        np.testing.assert_array_equal(kernels("dither").words(key, begin, count), one, strict=True)


@by_path
def test_words_look_drawn_each_bit_and_each_pair_of_streams(path: Any) -> None:
    count = 1 << 16
    with using(path):
        streams = [kernels("dither").words(key_of([seed, 4, node]), 0, count) for seed in (0, 1) for node in range(4)]
    for words in streams:
        share = np.unpackbits(words.view(np.uint8)).reshape(count, 32).mean(axis=0)
        assert np.abs(share - 0.5).max() < 5 * 0.5 / np.sqrt(count)
    uniform = np.array([words / 2**32 - 0.5 for words in streams])
    related = np.corrcoef(np.vstack([uniform, uniform[:, np.r_[1:count, 0]]]))
    assert np.abs(related - np.eye(len(related))).max() < 5 / np.sqrt(count)


def test_a_key_depends_on_every_part_and_on_their_order() -> None:
    parts = [[0, 1, 2], [1, 1, 2], [0, 2, 2], [0, 1, 3], [2, 1, 0], [0, 1, 2, 1]]
    assert len({key_of(part) for part in parts}) == len(parts)
    assert key_of([0, 1, 2]) == 0x2AA1712FE781FA02


@given(positive)
def test_scales_are_within_their_nine_bits_and_none_below_if_upwards(x: np.ndarray) -> None:
    for codes, least, most in ((nearest(x), 1 - 2**-9, 1 + 2**-9), (upwards(x), 1, 1 + 2**-8)):
        found = to_float(codes).astype(np.float64)
        usual = (x >= np.finfo(np.float32).tiny) & (codes < LARGEST)
        assert (found[usual] >= least * x[usual]).all()
        assert (found[usual] <= most * x[usual]).all()
        assert np.isfinite(found).all()


@given(positive)
def test_rounded_at_random_the_mean_over_all_dithers_is_the_number(x: np.ndarray) -> None:
    x = np.minimum(x, np.float32(1e38))
    every = np.arange(0, 1 << 16, 1 << 4, dtype=np.uint16)
    for number in x:
        codes = rounded_at_random(np.full(every.size, number, np.float32), every)
        mean = to_float(codes).astype(np.float64).mean()
        assert mean == pytest.approx(float(number), rel=2**-18, abs=1e-40)


def test_scales_over_the_most_are_refused() -> None:
    data = memoryview(b"\x01\x02\xff\xfe")
    assert read_scales(data, 2).tolist() == [0x201, 0xFEFF]
    assert read_scales(data, 0, most=1).size == 0
    with pytest.raises(CodecError, match="a scale of code 0xfeff, expected at most 0xf000"):
        read_scales(data, 2, most=0xF000)
    with pytest.raises(CodecError, match="a scale of code 0xff00"):
        read_scales(memoryview(b"\x00\xff"), 1)
