"""Regions: every coordinate that someone holds is in one, and its holders are those that hold it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from update_cases import SPEC, mask, model, rounds, update

from flower_edge.errors import ModelMismatch
from flower_edge.updates.manifest import part_manifest, whole_manifest
from flower_edge.updates.regions import Region, regions
from flower_edge.updates.sample import sample
from flower_edge.updates.update import Update, moving

RNG = np.random.default_rng(0)


def coordinates(region: Region) -> list[int]:
    return sample(region, region.size, RNG).tolist()


def flat(reply: Update) -> np.ndarray:
    """Bool by place in the flat model: what the reply holds of the arrays that are compared."""
    held = mask(reply.manifest)
    counted = moving(reply.manifest)
    return np.concatenate([(held[name] & (name in counted)).reshape(-1) for name in SPEC])


@settings(max_examples=30)
@given(rounds())
def test_regions_partition_what_replies_hold_by_who_holds_it(replies: list[Update]) -> None:
    held = np.array([flat(reply) for reply in replies])
    expected: dict[tuple[int, ...], list[int]] = {}
    for place in np.flatnonzero(held.any(axis=0)):
        expected.setdefault(tuple(np.flatnonzero(held[:, place]).tolist()), []).append(int(place))
    found = regions(replies, least_holders=1)
    assert {region.holders: coordinates(region) for region in found} == expected
    assert len(found) == len(expected)
    assert all(region.size == len(expected[region.holders]) for region in found)


@settings(max_examples=30)
@given(rounds())
def test_the_largest_region_comes_first_and_small_companies_are_left_out(replies: list[Update]) -> None:
    everything, most = regions(replies, least_holders=1), regions(replies)
    assert [r.size for r in everything] == sorted((r.size for r in everything), reverse=True)
    assert [r.holders for r in most] == [r.holders for r in everything if len(r.holders) >= 3]


def test_whole_replies_have_one_region_and_nothing_of_the_models_size_is_allocated() -> None:
    base = {"w": np.zeros((1000, 1000), np.float32), "b": np.zeros(1000, np.float32)}
    replies = [update(base, base, node=str(key)) for key in range(20)]
    tracemalloc.start()
    (region,) = regions(replies)
    assert len(sample(region, 100, RNG)) == 100
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert region.holders == tuple(range(20))
    assert region.size == 1_001_000
    assert peak < 200_000


def test_prefixes_share_the_smallest_width() -> None:
    spec = {"w": ((8, 8), "float32")}
    base = model(RNG, spec)
    parts = [part_manifest(spec, {"w": (np.arange(width), np.arange(width))}) for width in (8, 4, 2)]
    found = regions([update(base, base, part) for part in parts], least_holders=1)
    assert [(region.holders, region.size) for region in found] == [((0,), 48), ((0, 1), 12), ((0, 1, 2), 4)]


def test_no_replies_have_no_regions() -> None:
    assert regions([]) == []


def test_a_reply_to_another_model_is_named() -> None:
    one, other = {"w": np.zeros(2)}, {"w": np.zeros(3)}
    with pytest.raises(ModelMismatch, match="node 9: array 'w'"):
        regions([update(one, one), update(other, other, whole_manifest({"w": ((3,), "float64")}), node="9")])
