"""The range coder by itself: near the entropy, the same bytes from both rooms, and an end that is told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.vector_codec_laws import by_path

from flower_edge.codecs.kernels import kernels, using

START = np.array([0, 1 << 40, 0], np.int64)


def written(members: np.ndarray, ones: np.ndarray, spots: np.ndarray, flags: np.ndarray, of: np.ndarray) -> bytes:
    room = kernels("ranges")
    out, state = np.empty(40_000, np.uint8), START.copy()
    assert room.write_spots(out, state, members, ones, spots)
    assert room.write_flags(out, state, flags, of)
    return bytes(out[: room.finish(out, state)])


@by_path
def test_what_was_written_is_read_in_any_groups(path: Any) -> None:
    @settings(max_examples=80)
    @given(st.integers(0, 2**32), st.lists(st.integers(0, 500), min_size=1, max_size=20))
    def holds(seed: int, sizes: list[int]) -> None:
        rng = np.random.default_rng(seed)
        members = np.array(sizes, np.int64)
        ones = np.array([rng.binomial(size, rng.random() ** 3) for size in sizes], np.int64)
        parts = [np.sort(rng.choice(size, one, replace=False)) for size, one in zip(sizes, ones, strict=True)]
        spots = np.concatenate(parts).astype(np.int64)
        of = rng.integers(0, 9, spots.size).astype(np.uint8)
        flags = (rng.random(spots.size) < of / 8).astype(np.uint8)
        with using("reference"):
            expected = written(members, ones, spots, flags, of)
        with using(path):
            room = kernels("ranges")
            assert written(members, ones, spots, flags, of) == expected
            given_bytes = np.frombuffer(expected, np.uint8)
            state = room.start_reading(given_bytes)
            found = room.read_spots(given_bytes, state, members, spots.size)
            assert found is not None
            np.testing.assert_array_equal(found[0], ones)
            np.testing.assert_array_equal(found[1], spots)
            np.testing.assert_array_equal(room.read_flags(given_bytes, state, of), flags)
            assert room.ended(given_bytes, state)

    holds()


@by_path
def test_runs_cost_a_thousandth_over_the_entropy_and_a_byte(path: Any) -> None:
    rng = np.random.default_rng(1)
    with using(path):
        for size, count in ((100_000, 1000), (4000, 1900), (50_000, 7), (3000, 2990)):
            spots = np.sort(rng.choice(size, count, replace=False)).astype(np.int64)
            nothing = np.empty(0, np.uint8)
            data = written(np.array([size]), np.array([count]), spots, nothing, nothing)
            entropy = (math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)) / math.log(2)
            assert 8 * len(data) <= 1.001 * entropy + 16


@by_path
def test_flags_cost_what_krichevsky_and_trofimov_say(path: Any) -> None:
    flags = (np.random.default_rng(2).random(5000) < 0.2).astype(np.uint8)
    ones, zeros = int(flags.sum()), int(flags.size - flags.sum())
    ideal = -(
        math.lgamma(ones + 0.5) + math.lgamma(zeros + 0.5) - 2 * math.lgamma(0.5) - math.lgamma(ones + zeros + 1)
    ) / math.log(2)
    none = np.empty(0, np.int64)
    with using(path):
        data = written(np.array([0]), np.array([0]), none, flags, np.zeros(flags.size, np.uint8))
    assert ideal <= 8 * len(data) <= 1.001 * ideal + 16


@by_path
def test_carries_go_back_through_any_number_of_full_bytes(path: Any) -> None:
    """Zeros of a chance near 1 push the low end up: without carries the bytes before would be wrong."""
    rng = np.random.default_rng(3)
    with using(path):
        room = kernels("ranges")
        for _ in range(60):
            flags = (rng.random(400) < rng.choice([0.001, 0.999])).astype(np.uint8)
            of = rng.integers(0, 2, 400).astype(np.uint8)
            none = np.empty(0, np.int64)
            data = np.frombuffer(written(np.array([0]), np.array([0]), none, flags, of), np.uint8)
            state = room.start_reading(data)
            np.testing.assert_array_equal(room.read_flags(data, state, of), flags)
            assert room.ended(data, state)


@by_path
def test_golden_bytes(path: Any) -> None:
    members, ones = np.array([4, 0, 60]), np.array([2, 0, 3])
    spots, flags = np.array([0, 3, 5, 6, 41]), np.array([1, 1, 0, 1, 1], np.uint8)
    with using(path):
        assert written(members, ones, spots, flags, np.zeros(5, np.uint8)).hex() == "d6243d60"
