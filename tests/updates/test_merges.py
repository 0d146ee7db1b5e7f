"""Merges of subsets are FedAvg's mean, coordinate by coordinate, however they are put together."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from hypothesis import given, settings
from hypothesis import strategies as st
from update_cases import SPEC, cut, mask, model, rounds, update

from flower_edge.errors import ConfigError, ModelMismatch
from flower_edge.updates import merges as module
from flower_edge.updates.ends import Ends
from flower_edge.updates.manifest import part_manifest, whole_manifest
from flower_edge.updates.merges import Merges, Running
from flower_edge.updates.update import Update
from flower_edge.wire import arrays_of, record_of

SUBSETS = st.lists(st.integers(0, 4), unique=True)


def large(base: Mapping[str, np.ndarray], replies: Sequence[Update], patch: pytest.MonkeyPatch) -> Merges:
    """Merges as they are for replies that are too large to be kept side by side."""
    patch.setattr(module, "_MOST_KEPT", -1)
    return Merges(base, replies)


def plain(base: Mapping[str, np.ndarray], replies: Sequence[Update]) -> dict[str, np.ndarray]:
    """The mean over those that hold a coordinate, with NaN for what is not held."""
    out = {}
    for name, array in base.items():
        top, bottom = np.zeros(array.shape), np.zeros(array.shape)
        for reply in replies:
            held = mask(reply.manifest)[name]
            if name in reply.arrays:
                end = reply.arrays[name] + (cut(reply.base, reply.manifest)[name] if reply.difference else 0.0)
                top[held] += reply.weight * np.asarray(end, np.float64).reshape(-1)
                bottom[held] += reply.weight
        mean = np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), array)
        out[name] = (np.rint(mean) if array.dtype.kind == "i" else mean).astype(array.dtype)
    return out


def assert_close(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], rel: float = 1e-6) -> None:
    assert list(one) == list(other)
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        assert array.shape == other[name].shape
        atol = 1 if array.dtype.kind == "i" else 1e-5
        np.testing.assert_allclose(array, other[name], rtol=rel, atol=atol)


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return all(one[n].dtype == other[n].dtype and one[n].tobytes() == other[n].tobytes() for n in one | other)


@settings(max_examples=30)
@given(rounds(), SUBSETS)
def test_a_merge_is_the_weighted_mean_over_those_that_hold_a_coordinate(replies: list[Update], some: list[int]) -> None:
    base, members = replies[0].base, [place for place in some if place < len(replies)]
    expected = plain(base, [replies[place] for place in members])
    assert_close(Merges(base, replies).of(members), expected)
    with pytest.MonkeyPatch.context() as patch:
        assert_close(large(base, replies, patch).of(members), expected)


@settings(max_examples=30)
@given(rounds(), SUBSETS, st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_matter_in_any_bit(replies: list[Update], some: list[int], random) -> None:  # type: ignore[no-untyped-def]
    merges, members = Merges(replies[0].base, replies), [place for place in some if place < len(replies)]
    shuffled = random.sample(members, len(members)) + members
    assert same(merges.of(members), merges.of(shuffled))


@settings(max_examples=30)
@given(rounds(differences=False), st.lists(st.integers(0, 4), max_size=12))
def test_a_running_merge_is_the_merge_of_those_that_are_in_it(replies: list[Update], steps: list[int]) -> None:
    merges = Merges(replies[0].base, replies)
    running, members = merges.running(), set[int]()
    for place in steps:
        if place < len(replies):
            (running.without if place in members else running.add)(place)
            members ^= {place}
            if max(reply.weight for reply in replies) < 1e17:
                assert_close(running.model(), merges.of(members))
    assert running.members == members
    for place in sorted(members):
        running.without(place)
    assert same(running.model(), replies[0].base)


@settings(max_examples=30)
@given(rounds())
def test_a_merge_of_nobody_is_the_base_bit_for_bit(replies: list[Update]) -> None:
    base, merges = replies[0].base, Merges(replies[0].base, replies)
    for nobody in (merges.of([]), merges.running().model()):
        assert same(nobody, base)
        assert not any(np.shares_memory(nobody[name], base[name]) for name in base)


@settings(max_examples=30)
@given(rounds())
def test_a_reply_that_weighs_nothing_changes_nothing(replies: list[Update]) -> None:
    merges = Merges(replies[0].base, replies)
    heavy = [place for place, reply in enumerate(replies) if reply.weight]
    assert same(merges.of(range(len(replies))), merges.of(heavy))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("is_large", [False, True])
def test_whole_replies_merge_as_flower_merges_them(dtype: str, is_large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    spec = {"w": ((70_000,), dtype), "b": ((3, 2), dtype)}
    base = model(rng, spec)
    replies = [update(base, model(rng, spec), weight=float(weight)) for weight in (3, 10, 1)]
    content = [
        RecordDict({"arrays": record_of(reply.arrays), "metrics": MetricRecord({"n": reply.weight})})
        for reply in replies
    ]
    flower = arrays_of(aggregate_arrayrecords(content, "n"))
    ours = (large(base, replies, monkeypatch) if is_large else Merges(base, replies)).of(range(3))
    for name, array in ours.items():
        assert array.dtype == dtype
        np.testing.assert_allclose(array, flower[name], rtol=1e-6, atol=0.03 if dtype == "float16" else 1e-5)


def test_counters_are_rounded_and_keep_their_dtype() -> None:
    base = {"n": np.array(0), "flag": np.array(False)}
    ends = [{"n": np.array(n), "flag": np.array(flag)} for n, flag in ((1, True), (2, True), (2, False))]
    merged = Merges(base, [update(base, end) for end in ends]).of(range(3))
    assert merged == {"n": np.array(2), "flag": np.array(True)}
    assert [array.dtype for array in merged.values()] == [np.int64, np.bool_]


def test_a_counter_that_became_a_float_merges_with_whole_numbers_sent_back() -> None:
    base = {"n": np.array(1.5)}
    manifest = whole_manifest({"n": ((), "float64")}, {"n": ((), "int64")})
    replies = [Update(str(n), {"n": np.array(n)}, base, 1.0, manifest) for n in (2, 3)]
    assert Merges(base, replies).of([0, 1]) == {"n": np.array(2.5)}


def test_huge_weights_and_huge_numbers_stay_finite() -> None:
    base = {"w": np.zeros(2)}
    replies = [update(base, {"w": np.full(2, 1e300)}, weight=1e18) for _ in range(3)]
    assert Merges(base, replies).of(range(3))["w"] == pytest.approx([1e300, 1e300])


def test_a_reply_that_is_not_a_member_cannot_spoil_a_merge() -> None:
    base = {"w": np.zeros(2, np.float32)}
    replies = [update(base, {"w": np.float32([1, 2])}), update(base, {"w": np.float32([np.nan, np.inf])})]
    assert Merges(base, replies).of([0])["w"].tolist() == [1, 2]


def test_large_replies_are_merged_without_a_second_model(monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"w": np.zeros((1000, 1000), np.float32)}
    merges = large(base, [update(base, {"w": np.full((1000, 1000), n, np.float32)}) for n in range(5)], monkeypatch)
    tracemalloc.start()
    merged = merges.of(range(5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert merged["w"][0, 0] == 2.0
    assert peak < 1.6 * base["w"].nbytes


def test_another_order_in_memory_is_the_same_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"w": np.zeros((3, 4), np.float32)}
    end = np.arange(12, dtype=np.float32).reshape(3, 4)
    turned = Update("1", {"w": np.asfortranarray(end)}, base, 1.0, whole_manifest({"w": ((3, 4), "float32")}))
    for merges in (Merges(base, [turned]), large(base, [turned], monkeypatch)):
        assert np.array_equal(merges.of([0])["w"], end)


@pytest.mark.parametrize("weight", [-5.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    base = {"w": np.zeros(2)}
    with pytest.raises(ConfigError, match="node 3: weight"):
        Merges(base, [update(base, base, weight=weight, node="3")])


def test_a_reply_of_another_model_is_named() -> None:
    base, manifest = {"w": np.zeros(2)}, whole_manifest({"w": ((2,), "float64")})
    other = {"w": np.zeros(3)}
    for wrong in (
        update(other, other, node="3"),
        Update("3", {}, base, 1.0, manifest),
        Update("3", other, base, 1.0, manifest),
    ):
        with pytest.raises(ModelMismatch, match="node 3: array 'w'"):
            Merges(base, [wrong])


def test_a_running_merge_knows_who_is_in_it() -> None:
    base = {"w": np.zeros(2)}
    running = Running(Ends(base, [update(base, base)]))
    with pytest.raises(ConfigError, match="reply 0 is not in the merge"):
        running.without(0)
    running.add(0)
    with pytest.raises(ConfigError, match="reply 0 is in the merge already"):
        running.add(0)


def test_a_piece_leaves_the_rest_of_the_model_as_it_was() -> None:
    rng = np.random.default_rng(0)
    base, end = model(rng), model(rng)
    merged = Merges(base, [update(base, end, part_manifest(SPEC, {"b": None}))]).of([0])
    assert np.array_equal(merged["b"], end["b"])
    assert same({n: merged[n] for n in "acn"}, {n: base[n] for n in "acn"})


def test_idle_replies_weigh_in_with_the_base_s_own_numbers() -> None:
    whole = {"w": ((4,), "float64")}
    base = {"w": np.array([1.0, 2.0, 3.0, 4.0])}
    full, half = whole_manifest(whole), part_manifest(whole, {"w": (np.array([0, 1]),)})
    updates = [
        Update("a", {"w": np.full(4, 9.0)}, base, 1.0, full),
        Update("b", {"w": np.array([5.0, 5.0])}, base, 3.0, half),
    ]
    merges = Merges(base, updates)
    np.testing.assert_allclose(merges.of([0], idle=[1])["w"], [3.0, 3.75, 9.0, 9.0])
    np.testing.assert_allclose(merges.of([1], idle=[0])["w"], [4.0, 4.25, 3.0, 4.0])
    assert merges.of([0, 1], idle=[0])["w"].tobytes() == merges.of([0, 1])["w"].tobytes()
    assert merges.of([], idle=[0, 1])["w"].tobytes() == base["w"].tobytes()
    running = merges.running()
    running.add(0)
    np.testing.assert_allclose(running.model(idle=[0, 1])["w"], [3.0, 3.75, 9.0, 9.0])


def test_a_large_merge_grown_member_by_member_is_that_of_all_at_once() -> None:
    rng, size = np.random.default_rng(5), 800_000
    base = {"w": rng.normal(size=size).astype(np.float32), "n": np.array([3, 7])}
    manifest = whole_manifest({"w": ((size,), "float32"), "n": ((2,), "int64")})
    sent = [{"w": base["w"] + np.float32(i), "n": np.array([i, 7])} for i in (1, 2, 9)]
    merges = Merges(base, [Update(str(i), arrays, base, 1.0 + i, manifest) for i, arrays in enumerate(sent)])
    assert not merges.kept
    running = merges.running()
    for member in range(3):
        running.add(member)
        for idle in ((), range(3)):
            grown, at_once = running.model(idle), merges.of(range(member + 1), idle)
            np.testing.assert_allclose(grown["w"], at_once["w"], rtol=1e-6, atol=1e-6)
            assert (grown["n"] == at_once["n"]).all()
