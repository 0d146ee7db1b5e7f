"""Places that both ends draw alike: no byte says where, and the mean over rounds is the vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.vector_codec_laws import VectorCodecLaws, by_path

from flower_edge.codecs.half import Half
from flower_edge.codecs.kernels import kernels, using
from flower_edge.codecs.layout import Layout
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.random_k import RandomK
from flower_edge.errors import CodecError


class TestARandomQuarter(VectorCodecLaws):
    def make(self) -> RandomK:
        return RandomK(0.25, seed=5)


class TestARandomQuarterTheSameForAll(VectorCodecLaws):
    def make(self) -> RandomK:
        return RandomK(0.25, same=True)


@by_path
def test_one_place_is_drawn_from_each_run_and_runs_are_the_whole_vector(path: Any) -> None:
    @settings(max_examples=60)
    @given(st.integers(1, 5000), st.floats(0.0001, 1.0), st.integers(0, 2**64 - 1))
    def holds(size: int, share: float, key: int) -> None:
        count = max(1, round(share * size))
        with using(path):
            places, lengths = kernels("select").strata(key, count, size)
        begins = np.arange(count) * size // count
        assert lengths.sum() == size
        assert ((begins <= places) & (places < begins + lengths)).all()
        with using("reference"):
            np.testing.assert_array_equal(places, kernels("select").strata(key, count, size)[0])

    holds()


def test_every_place_is_drawn_as_often_as_any_other() -> None:
    seen = np.zeros(10)
    for round in range(4000):
        seen[RandomK(0.3).places(10, Moment(round))[0]] += 1 / RandomK(0.3).places(10, Moment(round))[1]
    # expected 4000 / length per draw, weighted by the length: 4000 x (1 / length)^2 x length = 4000 / length
    widths = np.repeat([3, 3, 4], [3, 3, 4])
    np.testing.assert_allclose(seen * widths**2 / 4000, 1.0, atol=0.12)


def test_nodes_draw_their_own_places_unless_they_are_to_be_the_same() -> None:
    own = [RandomK(0.1).places(1000, Moment(7, node))[0].tolist() for node in range(2)]
    same = [RandomK(0.1, same=True).places(1000, Moment(7, node))[0].tolist() for node in range(2)]
    assert own[0] != own[1]
    assert same[0] == same[1] != RandomK(0.1, same=True).places(1000, Moment(8))[0].tolist()


@by_path
def test_golden_bytes(path: Any) -> None:
    v = np.arange(1, 41, dtype=np.float32)
    with using(path):
        data, _ = RandomK(0.1, Half(), seed=3).pack(v, Layout.flat(40), {}, Moment(2, 1))
    assert data.hex() == "0047004d404ec050"


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_a_tenth_costs_four_bytes_for_each_number_kept_and_nothing_else(size: int) -> None:
    data, _ = RandomK(0.1).pack(np.ones(size, np.float32), Layout.flat(size), {}, Moment())
    assert len(data) == 4 * min(size, max(1, round(size / 10)))


def test_a_number_that_is_too_large_once_scaled_is_refused() -> None:
    """By the sender, who can name it; and by a receiver whose sender did not."""
    v, layout = np.full(100, 3e38, np.float32), Layout.flat(100)
    with pytest.raises(CodecError, match=r"times 10.* is beyond float32; has the training diverged"):
        RandomK(0.1).pack(v, layout, {}, Moment())
    data = v[:10].tobytes()
    with pytest.raises(CodecError, match="once it is scaled"):
        RandomK(0.1).unpack(memoryview(data), layout, {}, Moment())
    v[:] = 3e37 / 2
    data, _ = RandomK(0.1).pack(v, layout, {}, Moment())
    assert np.isfinite(RandomK(0.1).unpack(memoryview(data), layout, {}, Moment())[0].dense()).all()
