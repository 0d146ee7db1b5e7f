"""Correlated: dithers that nodes share, and every law of a codec."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from laws.vector_codec_laws import PATHS, VectorCodecLaws

from flower_edge.codecs.correlated import Correlated
from flower_edge.codecs.kernels import using
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.sparse import dense
from flower_edge.errors import CodecError

by_path = pytest.mark.parametrize("path", PATHS)
NODES = 8


class TestTwoBits(VectorCodecLaws):
    def make(self) -> Correlated:
        return Correlated(2, nodes=3)


def carried(codec: Correlated, v: Floats, at: Moment) -> Floats:
    layout = Layout.flat(v.size)
    data, _ = codec.pack(v, layout, {}, at)
    return dense(codec.unpack(memoryview(data), layout, {}, at)[0])


def error_of_mean(codec: Correlated, vectors: list[Floats], rounds: int = 20) -> float:
    """Mean square, of the mean over nodes."""
    total = 0.0
    for r in range(rounds):
        decoded = [carried(codec, v, Moment(r, i)) for i, v in enumerate(vectors)]
        total += float(np.mean((np.mean(decoded, axis=0) - np.mean(vectors, axis=0)) ** 2))
    return total / rounds


@by_path
@pytest.mark.parametrize(
    ("codec", "small", "one", "long"),
    [
        (Correlated(), "c0816e00", "347d00", "57581a360a3296d9"),
        (Correlated(2, 3), "c08159012600", "347d0000", "5e474c60c62d2284"),
    ],
    ids=str,
)
def test_golden_bytes(path: Any, codec: Correlated, small: str, one: str, long: str) -> None:
    given = np.array([0.5, -1.25, 3, 0, -0.125, 2, 1e-3, -7, 0.25], np.float32)
    at = Moment(3, 2)
    with using(path):
        for v, expected in ((given, small), (np.float32([-0.3]), one), (given[:0], "")):
            assert codec.pack(v, Layout.flat(v.size), {}, at)[0].hex() == expected
        v = ((np.arange(70_000) * 7919 % 1009 - 504) / 256).astype(np.float32)
        data, _ = codec.pack(v, Layout.flat(v.size), {}, at)
        assert hashlib.sha256(data).hexdigest()[:16] == long


@pytest.mark.parametrize("bits", [1, 2])
def test_where_nodes_agree_their_mean_is_off_by_far_less_than_with_dithers_of_their_own(bits: int) -> None:
    rng = np.random.default_rng(0)
    common = rng.uniform(-1, 1, 1024)
    shared, own = Correlated(bits, NODES), Correlated(bits, nodes=1)
    for spread, gain in ((0.0, 4.0), (0.03, 3.0), (0.3, 1.3)):
        vectors = [(common + spread * rng.normal(size=1024)).astype(np.float32) for _ in range(NODES)]
        assert error_of_mean(own, vectors) > gain * error_of_mean(shared, vectors)


def test_even_where_nodes_have_nothing_in_common_sharing_more_than_halves_the_error() -> None:
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=2048).astype(np.float32) for _ in range(NODES)]
    assert error_of_mean(Correlated(1, 1), vectors) > 2 * error_of_mean(Correlated(1, NODES), vectors)


def test_each_message_alone_is_as_noisy_as_with_a_dither_of_its_own() -> None:
    v = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    shared, own = (
        np.mean([(carried(Correlated(1, nodes), v, Moment(r)) - v) ** 2 for r in range(5)]) for nodes in (NODES, 1)
    )
    assert shared == pytest.approx(own, rel=0.05)


def test_of_equal_numbers_exactly_as_many_round_up_as_should() -> None:
    v = np.tile(np.array([1, 0.75, 0.5, 0.25, 0, -0.25, -1], np.float32), 30)
    total = sum(carried(Correlated(1, NODES), v, Moment(5, i)) for i in range(NODES))
    np.testing.assert_allclose(total, NODES * v, atol=1e-6)


def test_a_node_beyond_those_counted_takes_the_place_of_another_with_a_draw_of_its_own() -> None:
    v = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    one, other = (carried(Correlated(1, 4), v, Moment(0, node)) for node in (1, 5))
    assert 0.01 < (one != other).mean() < 0.3  # dithers within a quarter of each other


def test_bits_beyond_the_last_number_are_refused() -> None:
    layout, codec = Layout.flat(9), Correlated()
    data = bytearray(codec.pack(np.ones(9, np.float32), layout, {}, Moment())[0])
    data[-1] |= 2
    with pytest.raises(CodecError, match="bits beyond the last number"):
        codec.unpack(memoryview(bytes(data)), layout, {}, Moment())


@pytest.mark.parametrize("options", [{"bits": 3}, {"nodes": 0}, {"nodes": 70_000}, {"seed": -1}])
def test_an_option_that_means_nothing_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(CodecError, match="expected a whole number"):
        Correlated(**options)
