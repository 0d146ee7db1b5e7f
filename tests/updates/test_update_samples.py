"""Sampled coordinates are fair, and what is taken there is what plain indexing gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from update_cases import SPEC, cut, mask, rounds, update

from flower_edge.errors import ModelMismatch
from flower_edge.updates.manifest import part_manifest
from flower_edge.updates.regions import regions
from flower_edge.updates.sample import sample, take, take_all
from flower_edge.updates.update import Update


def dense(reply: Update) -> np.ndarray:
    """What the reply moved by in the flat model; NaN where it holds nothing."""
    held, start = mask(reply.manifest), cut(reply.base, reply.manifest)
    out = []
    for name, (shape, _) in SPEC.items():
        moved = np.full(shape, np.nan)
        if name in reply.arrays:
            ended = reply.arrays[name].astype(np.float64) - (0 if reply.difference else start[name])
            moved[held[name]] = ended.reshape(-1)
        out.append(moved.reshape(-1))
    return np.concatenate(out)


@settings(max_examples=30)
@given(rounds(), st.integers(0, 99), st.integers(0, 40))
def test_take_is_plain_indexing(replies: list[Update], seed: int, count: int) -> None:
    for region in regions(replies, least_holders=1):
        places = sample(region, count, np.random.default_rng(seed))
        members = [replies[place] for place in region.holders]
        expected = [dense(reply)[places] for reply in members]
        assert take_all(members, places) == pytest.approx(np.array(expected), rel=1e-5, abs=1e-5)
        assert all(
            np.array_equal(take(m, places), row) for m, row in zip(members, take_all(members, places), strict=True)
        )


@settings(max_examples=30)
@given(rounds(), st.integers(0, 99), st.integers(0, 40))
def test_a_sample_is_ascending_without_repetition_and_in_its_region(
    replies: list[Update], seed: int, count: int
) -> None:
    for region in regions(replies, least_holders=1):
        places = sample(region, count, np.random.default_rng(seed))
        assert len(places) == min(count, region.size)
        assert (np.diff(places) > 0).all()
        assert set(places.tolist()) <= set(sample(region, region.size, np.random.default_rng(0)).tolist())
        assert np.array_equal(places, sample(region, count, np.random.default_rng(seed)))


def test_every_coordinate_is_as_likely_as_the_others() -> None:
    base = {"a": np.zeros((3, 4)), "b": np.zeros(8)}
    part = part_manifest({n: (x.shape, "float64") for n, x in base.items()}, {"a": (np.array([0, 2]), None), "b": None})
    (region,) = regions([update(base, base, part)], least_holders=1)
    rng = np.random.default_rng(0)
    drawn = np.bincount(np.concatenate([sample(region, 4, rng) for _ in range(4000)]), minlength=20)
    assert drawn[4:8].tolist() == [0, 0, 0, 0]
    assert np.abs(np.delete(drawn, range(4, 8)) / 1000 - 1).max() < 0.12


def test_a_sample_of_a_large_region_repeats_for_a_seed_and_differs_for_another() -> None:
    base = {"w": np.zeros(1_000_000, np.float32)}
    (region,) = regions([update(base, base)] * 3)
    one, again, other = (sample(region, 1000, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_movement_beyond_float32_stays_finite_and_nan_stays_nan() -> None:
    base = {"w": np.array([-3e38, 0.0, 0.0, 0.0])}
    ends = {"w": np.array([3e38, 1e300, np.nan, -np.inf])}
    most = np.finfo(np.float32).max
    np.testing.assert_array_equal(take(update(base, ends), np.arange(4)), np.float32([most, most, np.nan, -np.inf]))
    narrow = update({"w": np.float32([-3e38])}, {"w": np.float32([3e38])})
    assert take(narrow, np.array([0])) == [most]


def test_another_order_in_memory_gives_the_same_numbers() -> None:
    end = np.arange(12.0).reshape(3, 4)
    reply = update({"w": np.zeros((3, 4))}, {"w": end})
    turned = Update("1", {"w": np.asfortranarray(end)}, reply.base, 1.0, reply.manifest)
    assert take(turned, np.arange(12)).tolist() == list(range(12))


def test_a_coordinate_that_the_reply_does_not_hold_is_refused() -> None:
    base = {"a": np.zeros(4), "b": np.zeros(2)}
    spec = {name: (array.shape, "float64") for name, array in base.items()}
    part = update(base, base, part_manifest(spec, {"a": (np.array([0, 2]),)}), node="5")
    for places, message in [
        ([1], "node 5 holds only a part of 'a'"),
        ([5], "node 5 was given no 'b'"),
        ([6], "of 6 num"),
    ]:
        with pytest.raises(ModelMismatch, match=message):
            take(part, np.array(places))
