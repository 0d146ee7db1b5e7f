"""The weighted mean of updates, sparse and dense, as one vector would give it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.vector_codec_laws import by_path

from flower_edge.codecs.aggregate import Aggregator
from flower_edge.codecs.kernels import using
from flower_edge.codecs.sparse import Sparse, Update, dense
from flower_edge.errors import CodecError


def some_updates(seed: int, size: int, count: int) -> list[tuple[Update, float]]:
    rng = np.random.default_rng(seed)
    updates: list[tuple[Update, float]] = []
    for _ in range(count):
        v = rng.normal(size=size).astype(np.float32)
        places = np.flatnonzero(rng.random(size) < 0.2)
        update: Update = v if rng.random() < 0.3 else Sparse(places, v[places], size)
        updates.append((update, float(rng.integers(1, 600))))
    return updates


def mean_of(updates: list[tuple[Update, float]], size: int) -> np.ndarray:
    aggregator = Aggregator(size)
    for update, weight in updates:
        aggregator.add(update, weight)
    return aggregator.mean()


@by_path
def test_the_mean_is_that_of_whole_vectors_in_float64(path: Any) -> None:
    @settings(max_examples=40)
    @given(st.integers(0, 2**32), st.integers(1, 2000), st.integers(1, 9))
    def holds(seed: int, size: int, count: int) -> None:
        updates = some_updates(seed, size, count)
        with using(path):
            mean = mean_of(updates, size)
        total = sum(weight for _, weight in updates)
        oracle = sum(weight / total * dense(update).astype(np.float64) for update, weight in updates)
        np.testing.assert_allclose(mean, oracle, rtol=1e-5, atol=1e-6)

    holds()


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_compiled_kernels_give_the_same_bits(seed: int) -> None:
    updates = some_updates(seed, 700, 5)
    with using("reference"):
        slow = mean_of(updates, 700)
    assert slow.tobytes() == mean_of(updates, 700).tobytes()


def test_another_order_changes_no_more_than_the_rounding() -> None:
    updates = some_updates(3, 5000, 40)
    np.testing.assert_allclose(mean_of(updates, 5000), mean_of(updates[::-1], 5000), rtol=1e-4, atol=3e-6)


@by_path
def test_a_hundred_sparse_updates_take_two_models_of_memory_at_most(path: Any) -> None:
    size = 1_000_000
    places = np.arange(0, size, 100)
    message = Sparse(places, np.ones(places.size, np.float32), size)
    with using(path):
        mean_of([(message, 1.0)], size)
        tracemalloc.start()
        try:
            mean = mean_of([(message, 2.0)] * 100, size)
            assert tracemalloc.get_traced_memory()[1] < 2 * 4 * size + 12 * places.size + 50_000
        finally:
            tracemalloc.stop()
    assert mean[::100].tolist() == [1.0] * places.size
    assert not mean[1::100].any()


@by_path
@pytest.mark.parametrize("places", [[3, 3], [4, 2], [-1, 2], [2, 10], [1, 2, 3]])
def test_places_out_of_order_or_range_are_refused_and_nothing_is_added(path: Any, places: list[int]) -> None:
    aggregator = Aggregator(10)
    with using(path):
        with pytest.raises(CodecError, match="strictly increasing below 10"):
            aggregator.add(Sparse(np.array(places), np.ones(2, np.float32), 10))
        with pytest.raises(CodecError, match="no updates"):
            aggregator.mean()


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf"), 1e39, 1e-60])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(CodecError, match="number of examples"):
        Aggregator(2).add(np.ones(2, np.float32), weight)


def test_an_update_of_another_model_is_refused() -> None:
    with pytest.raises(CodecError, match="3 numbers, expected 2"):
        Aggregator(2).add(np.ones(3, np.float32))
