"""Sums over replies agree with the plain formula, and hostile numbers do not fool them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from update_cases import cut, rounds, update

from flower_edge.updates.regions import regions
from flower_edge.updates.sums import CHUNK, finite, squared_norm
from flower_edge.updates.update import Update, moving

FLOATS = hnp.floating_dtypes(endianness="?") | hnp.complex_number_dtypes()


@settings(max_examples=30)
@given(hnp.arrays(FLOATS | hnp.integer_dtypes() | hnp.boolean_dtypes(), hnp.array_shapes(min_dims=0, max_side=4)))
def test_finite_is_what_numpy_says_of_every_number(array: np.ndarray) -> None:
    assert finite(array) == bool(np.isfinite(array).all())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, CHUNK - 1, CHUNK, 2 * CHUNK + 6])
def test_one_bad_number_anywhere_is_found(dtype: str, bad: float, place: int) -> None:
    array = np.ones(2 * CHUNK + 7, dtype)
    assert finite(array)
    array[place] = bad
    assert not finite(array)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_largest_number_of_a_dtype_is_finite(dtype: str) -> None:
    most = np.finfo(dtype).max
    assert finite(np.array([most, -most, 0], dtype))


def plain(reply: Update) -> float:
    start = cut(reply.base, reply.manifest)
    total = 0.0
    for name in moving(reply.manifest):
        moved = reply.arrays[name].astype(np.float64) - (0 if reply.difference else start[name])
        total += float((moved**2).sum())
    return total


@settings(max_examples=30)
@given(rounds())
def test_a_norm_is_the_plain_formula_and_the_sum_of_its_regions(replies: list[Update]) -> None:
    split = regions(replies, least_holders=1)
    for place, reply in enumerate(replies):
        assert squared_norm(reply) == pytest.approx(plain(reply), rel=1e-5)
        own = [squared_norm(reply, region) for region in split if place in region.holders]
        assert math.fsum(own) == pytest.approx(squared_norm(reply), rel=1e-5)


def two(base: np.ndarray, end: np.ndarray) -> Update:
    return update({"w": base}, {"w": end})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int32", "uint8"])
def test_every_dtype_over_several_chunks(dtype: str) -> None:
    size = 2 * CHUNK + 5
    assert squared_norm(two(np.full(size, 1, dtype), np.full(size, 3, dtype))) == pytest.approx(4.0 * size)


def test_numbers_that_overflow_float32_have_a_norm() -> None:
    most = np.float32(3e38)
    assert squared_norm(two(np.array([-most]), np.array([most]))) == pytest.approx(3.6e77)


def test_numbers_that_vanish_in_float32_have_a_norm() -> None:
    assert squared_norm(two(np.float32([0]), np.float32([1e-30]))) == pytest.approx(1e-60)
    assert squared_norm(two(np.float32([2]), np.float32([2]))) == 0.0


def test_a_small_unsigned_number_does_not_wrap_around() -> None:
    assert squared_norm(two(np.uint8([3]), np.uint8([1]))) == 4.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_number_makes_a_bad_norm_and_no_warning(bad: float) -> None:
    assert not math.isfinite(squared_norm(two(np.zeros(3), np.array([1.0, bad, 2.0]))))
    assert not math.isfinite(squared_norm(two(np.zeros(3, np.float32), np.float32([1, bad, 2]))))


def test_another_order_in_memory_is_the_same_norm() -> None:
    end = np.arange(12.0).reshape(3, 4)
    assert squared_norm(two(np.ones((3, 4)), np.asfortranarray(end))) == squared_norm(two(np.ones((3, 4)), end))


def test_counters_of_batches_do_not_count() -> None:
    base = {"w": np.float32([0]), "batches": np.array(0)}
    assert squared_norm(update(base, {"w": np.float32([2]), "batches": np.array(10**6)})) == 4.0


@settings(max_examples=30)
@given(st.integers(0, 99))
def test_a_difference_is_its_own_movement(seed: int) -> None:
    rng = np.random.default_rng(seed)
    base, end = {"w": rng.normal(size=7)}, {"w": rng.normal(size=7)}
    assert squared_norm(update(base, end, difference=True)) == pytest.approx(squared_norm(update(base, end)))
