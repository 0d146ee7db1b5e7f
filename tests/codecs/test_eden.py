"""Eden: a random rotation and few levels, and every law of a codec."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.vector_codec_laws import PATHS, VectorCodecLaws, same_update
from scipy.stats import norm

from flower_edge.codecs.eden import _LEVELS, Eden
from flower_edge.codecs.kernels import using
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.sparse import Sparse, dense
from flower_edge.errors import CodecError

by_path = pytest.mark.parametrize("path", PATHS)
#: What is left of the vector's energy, by bits: of the best levels for normal numbers, 1 / E[level^2] - 1.
NMSE = {1: 0.5708, 2: 0.1331, 3: 0.0358, 4: 0.0096}
SMALL = np.array([0.5, -1.25, 3, 0, -0.125, 2, 1e-3, -7, 0.25], np.float32)
#: A full tile, a lane, and less.
LONG = ((np.arange(70_000) * 7919 % 1009 - 504) / 256).astype(np.float32)


class TestOneBit(VectorCodecLaws):
    def make(self) -> Eden:
        return Eden()


class TestTwoBitsOfAQuarter(VectorCodecLaws):
    def make(self) -> Eden:
        return Eden(2, 0.25)


class TestFourBitsContractive(VectorCodecLaws):
    def make(self) -> Eden:
        return Eden(4, contractive=True)


def carried(codec: Eden, v: Floats, at: Moment) -> Floats:
    layout = Layout.flat(v.size)
    data, _ = codec.pack(v, layout, {}, at)
    return dense(codec.unpack(memoryview(data), layout, {}, at)[0])


def left_out(codec: Eden, v: Floats, at: Moment) -> float:
    """Share of the vector's energy."""
    error = carried(codec, v, at).astype(np.float64) - v
    return float(error @ error / np.square(v, dtype=np.float64).sum())


@by_path
@pytest.mark.parametrize(
    ("codec", "small", "zeros", "one", "long"),
    [
        (Eden(), "437c6c1e58c7d2241de3", "00000000000000000000", "9a77000022221111cccc", "3b1fadec2bc9c6c1"),
        (
            Eden(3),
            "007c6c1e58c7d2241de3fb62178b0b01c00c22320015d444a8b0",
            "0000000000000000000000000000000000000000000000000000",
            "4f77000022221111cccccccc77777777cccc0000444444440000",
            "40ae5118680ec4be",
        ),
        (Eden(1, 0.25), "557a05051c1c0a0a9292", "00000000000000000000", "9a77000022221111cccc", "d1e51d6dbe34903f"),
        (
            Eden(2, contractive=True),
            "ff7b6c1e58c7d2241de32a320015d444a8b0",
            "000000000000000000000000000000000000",
            "cf76000022221111cccccccc77777777cccc",
            "cb016838aa2a72ed",
        ),
    ],
    ids=str,
)
def test_golden_bytes(path: Any, codec: Eden, small: str, zeros: str, one: str, long: str) -> None:
    at = Moment(3, 2)
    with using(path):
        for v, expected in ((SMALL, small), (0 * SMALL, zeros), (np.float32([-0.3]), one), (SMALL[:0], "")):
            assert codec.pack(v, Layout.flat(v.size), {}, at)[0].hex() == expected
        data, _ = codec.pack(LONG, Layout.flat(LONG.size), {}, at)
        assert hashlib.sha256(data).hexdigest()[:16] == long


@pytest.mark.skipif(len(PATHS) == 1, reason="Numba is not installed")
@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 5000) | st.sampled_from([65_536, 69_632, 140_000]),
    st.integers(1, 4),
    st.sampled_from([1e-44, 1e-38, 1e-6, 1.0, 1e30, 3e38]),
    st.sampled_from(["normal", "few", "heavy", "zeros"]),
)
def test_both_paths_give_the_same_bits_for_any_size_and_magnitude(
    size: int, bits: int, magnitude: float, kind: str
) -> None:
    rng = np.random.default_rng([size, bits])
    v = rng.normal(size=size)
    if kind == "few":
        v *= rng.random(size) < 0.01
    elif kind == "heavy":
        v = rng.standard_t(1.1, size)
    elif kind == "zeros":
        v *= -0.0
    v = (np.clip(v / max(np.abs(v).max(initial=0), 1), -1, 1) * magnitude).astype(np.float32)
    layout, at, codec = Layout.flat(size), Moment(1, 4), Eden(bits)
    found = []
    for path in PATHS:
        with using(path):  # type: ignore[arg-type]
            data, _ = codec.pack(v, layout, {}, at)
            found.append((data, codec.unpack(memoryview(data), layout, {}, at)[0]))
    assert found[0][0] == found[1][0]
    assert same_update(found[0][1], found[1][1])
    assert np.isfinite(dense(found[0][1])).all()


@by_path
@pytest.mark.parametrize("bits", NMSE)
def test_what_is_left_out_is_what_theory_says_whatever_the_vector(path: Any, bits: int) -> None:
    rng = np.random.default_rng(0)
    few = np.where(rng.random(70_000) < 0.01, rng.normal(size=70_000), 0).astype(np.float32)
    with using(path):
        for v in (rng.normal(size=70_000).astype(np.float32), few, LONG**3):
            assert left_out(Eden(bits), v, Moment()) == pytest.approx(NMSE[bits], rel=0.04)
            least = NMSE[bits] / (1 + NMSE[bits])
            assert left_out(Eden(bits, contractive=True), v, Moment()) == pytest.approx(least, rel=0.04)


@pytest.mark.parametrize("bits", NMSE)
def test_levels_are_the_centroids_of_a_normals_cells_and_theory_is_what_they_leave_out(bits: int) -> None:
    levels = np.array(_LEVELS[bits])
    edges = np.array([0.0, *(levels[1:] + levels[:-1]) / 2, np.inf])
    inside = np.diff(norm.cdf(edges))
    np.testing.assert_allclose(-np.diff(norm.pdf(edges)) / inside, levels, rtol=1e-9)
    energy = 2 * float((inside * levels**2).sum())
    assert 1 / energy - 1 == pytest.approx(NMSE[bits], rel=0.01)  # with the scale that is right on average


def test_a_random_quarter_costs_a_quarter_and_adds_the_energy_of_what_it_skips() -> None:
    v = np.random.default_rng(0).normal(size=90_000).astype(np.float32)
    layout = Layout.flat(v.size)
    whole, quarter = (Eden(1, f).pack(v, layout, {}, Moment())[0] for f in (1.0, 0.25))
    assert len(quarter) == pytest.approx(len(whole) / 4, rel=0.01)
    assert left_out(Eden(1, 0.25), v, Moment()) == pytest.approx(4 * (1 + NMSE[1]) - 1, rel=0.04)


def test_nodes_and_rounds_draw_quarters_of_their_own() -> None:
    v = np.ones(1000, np.float32)
    layout, codec, places = Layout.flat(1000), Eden(1, 0.25), []
    for at in (Moment(0, 0), Moment(0, 1), Moment(1, 0)):
        update, _ = codec.unpack(memoryview(codec.pack(v, layout, {}, at)[0]), layout, {}, at)
        assert isinstance(update, Sparse)
        assert update.indices.size == 250
        places.append(update.indices)
    assert all(0.1 < np.isin(places[i], places[j]).mean() < 0.4 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_at_one_bit_a_vector_costs_its_bits_and_at_most_half_a_percent_more() -> None:
    for size in (22_914, 91_658, 1_000_000):
        v = np.ones(size, np.float32)
        assert len(Eden().pack(v, Layout.flat(size), {}, Moment())[0]) <= 1.005 * size / 8 + 24


@pytest.mark.parametrize("v", [SMALL, np.ones(9), np.array([1, 0.5]), np.eye(1, 4096, 7) + np.eye(1, 4096, 3000) / 2])
def test_of_few_numbers_the_small_ones_are_right_on_average_too(v: np.ndarray) -> None:
    """One plain rotation loses them: its signs are those of the largest number."""
    v = v.reshape(-1).astype(np.float32)
    errors = np.array([carried(Eden(), v, Moment(i)).astype(np.float64) - v for i in range(600)])
    spread = errors.std(axis=0, ddof=1) / np.sqrt(len(errors))
    assert (np.abs(errors.mean(axis=0)) <= 5 * spread + 0.01 * np.linalg.norm(v)).all()


@by_path
def test_a_scale_that_would_decode_to_infinity_is_refused(path: Any) -> None:
    layout, at = Layout.flat(64), Moment()
    with using(path):
        for bits, most in ((1, 0xF2FF), (4, 0xF0FF)):
            codes = np.zeros(8 * bits, np.uint8).tobytes()
            update, _ = Eden(bits).unpack(memoryview(most.to_bytes(2, "little") + codes), layout, {}, at)
            assert np.isfinite(dense(update)).all()
            with pytest.raises(CodecError, match=r"a scale of code 0xf[13]00"):
                Eden(bits).unpack(memoryview((most + 1).to_bytes(2, "little") + codes), layout, {}, at)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 5}, "bits = 5: expected a whole number from 1 to 4"),
        ({"bits": 1.0}, "bits = 1.0"),
        ({"fraction": 0.0}, "fraction = 0.0: expected more than 0"),
        ({"fraction": 2}, "fraction = 2"),
        ({"seed": -1}, "seed = -1"),
        ({"contractive": 1}, "contractive = 1: expected True or False"),
    ],
)
def test_an_option_that_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        Eden(**options)
