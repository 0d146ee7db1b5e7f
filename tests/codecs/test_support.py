"""Supports: what places cost, and that only places come back, whatever bytes come in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.vector_codec_laws import by_path

from flower_edge.codecs.contexts import Contexts
from flower_edge.codecs.kernels import kernels, using
from flower_edge.codecs.layout import Layout
from flower_edge.codecs.moment import Public
from flower_edge.codecs.support import pack_plain, pack_seen, unpack_plain, unpack_seen
from flower_edge.errors import CodecError

supports = st.tuples(st.integers(0, 3000), st.floats(0, 1), st.integers(0, 2**32)).map(
    lambda s: (np.flatnonzero(np.random.default_rng(s[2]).random(s[0]) < s[1] ** 3), s[0])
)


def entropy_bits(count: int, size: int) -> float:
    """log2 of in how many ways `count` of `size` places can be named."""
    return (math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)) / math.log(2)


def moved(layout: Layout, seed: int = 0) -> tuple[np.ndarray, Contexts]:
    """An aggregate with hot rows and columns, an update that is like it, and what is known."""
    rng = np.random.default_rng(seed)
    heat = np.concatenate(
        [
            np.exp(rng.normal(size=(*shape[:1], *[1] * (len(shape) - 1))) * np.ones(shape)).reshape(-1)
            for shape in layout.shapes
        ]
    )
    before, now = (rng.normal(size=layout.size) * heat for _ in range(2))
    contexts = Contexts.of(Public((before.astype(np.float32),)), layout)
    assert contexts is not None
    return (now + 0.3 * before).astype(np.float32), contexts


@by_path
@pytest.mark.parametrize("coder", ["rice", "bitmap", "auto"])
def test_places_come_back_and_what_follows_them_is_left(path: Any, coder: Any) -> None:
    @settings(max_examples=60)
    @given(supports)
    def holds(drawn: tuple[np.ndarray, int]) -> None:
        places, size = drawn
        with using("reference"):
            expected = pack_plain(places, size, coder)
        with using(path):
            assert pack_plain(places, size, coder) == expected
            kind, low, data = expected
            again, rest = unpack_plain(memoryview(data + b"values"), kind, low, places.size, size)
        np.testing.assert_array_equal(again, places)
        assert bytes(rest) == b"values"

    holds()


def test_gaps_cost_at_most_four_hundredths_of_a_bit_over_the_entropy() -> None:
    places = np.sort(np.random.default_rng(0).choice(2_000_000, 20_000, replace=False))
    _, _, data = pack_plain(places, 2_000_000, "rice")
    assert 8 * len(data) / 20_000 <= entropy_bits(20_000, 2_000_000) / 20_000 + 0.04


@by_path
def test_golden_bytes(path: Any) -> None:
    places = np.array([0, 3, 4, 17, 40])
    with using(path):
        assert [pack_plain(places, 41, coder)[1:] for coder in ("rice", "bitmap")] == [
            (2, bytes.fromhex("081e41")),
            (0, bytes.fromhex("190002000001")),
        ]


@by_path
def test_by_context_places_and_signs_come_back_in_equal_bytes(path: Any) -> None:
    layouts = [Layout.flat(1), Layout.flat(40), Layout(("w", "b"), ((30, 50), (30,))), Layout(("c",), ((9, 4, 3, 3),))]

    @settings(max_examples=40)
    @given(st.sampled_from(layouts), st.integers(0, 2**32), st.floats(0, 1))
    def holds(layout: Layout, seed: int, share: float) -> None:
        v, contexts = moved(layout, seed)
        places = np.sort(np.argsort(-np.abs(v))[: max(1, round(share * v.size))])
        negative = (v[places] < 0).astype(np.uint8)
        with using("reference"):
            expected = pack_seen(places, contexts, negative, None)
        assert expected is not None
        with using(path):
            assert pack_seen(places, contexts, negative, None) == expected
            assert pack_seen(places, contexts, negative, len(expected)) == expected
            again, signs = unpack_seen(memoryview(expected), places.size, contexts, signs=True)
        np.testing.assert_array_equal(again, places)
        np.testing.assert_array_equal(signs, negative)

    holds()


@by_path
def test_groups_are_the_same_with_and_without_compiled_kernels_and_hot_ones_come_first(path: Any) -> None:
    rng = np.random.default_rng(6)
    layout = Layout(("w", "b", "one"), ((300, 250), (300,), ()))
    for factor in (1.0, 1e-20, 1e34):
        public = Public(tuple((factor * rng.standard_t(2, layout.size)).astype(np.float32) for _ in range(5)))
        with using("reference"):
            expected = Contexts.of(public, layout)
        with using(path):
            found = Contexts.of(public, layout)
        assert found is not None
        assert expected is not None
        np.testing.assert_array_equal(found.groups, expected.groups)
        np.testing.assert_array_equal(found.members, np.bincount(found.groups, minlength=found.members.size))
        heat = [np.abs(public.aggregates[0])[found.groups == group].mean() for group in (1, 8, 16)]
        assert heat == sorted(heat, reverse=True)


def test_nothing_is_known_where_nothing_moved_or_something_is_not_finite() -> None:
    layout = Layout.flat(3)
    for known in ((), (np.zeros(3, np.float32),), (np.array([1, np.nan, 0], np.float32),)):
        assert Contexts.of(Public(known), layout) is None
    with pytest.raises(CodecError, match=r"4,.*vector of 3 numbers"):
        Contexts.of(Public((np.ones(4, np.float32),)), layout)


def test_context_costs_less_than_an_adaptive_code_in_sixteen_contexts_of_the_last_aggregate() -> None:
    layout = Layout(("w",), ((300, 300),))
    v, contexts = moved(layout, 3)
    places = np.sort(np.argsort(-np.abs(v))[:900])
    rank = np.argsort(np.argsort(np.abs(contexts.newest)))
    ideal = 0.0
    for group in range(16):
        inside = rank * 16 // v.size == group
        ones, zeros = int(inside[places].sum()), int(inside.sum() - inside[places].sum())
        ideal -= (
            math.lgamma(ones + 0.5) + math.lgamma(zeros + 0.5) - 2 * math.lgamma(0.5) - math.lgamma(ones + zeros + 1)
        ) / math.log(2)
    data = pack_seen(places, contexts, None, None)
    assert data is not None
    assert 8 * len(data) < ideal
    assert 8 * len(data) < 0.9 * 8 * len(pack_plain(places, v.size, "rice")[2])


@by_path
def test_any_bytes_are_places_in_order_and_range_or_a_codec_error(path: Any) -> None:
    rng = np.random.default_rng(8)
    layout = Layout(("w",), ((20, 15),))
    v, contexts = moved(layout, 1)
    true = np.sort(np.argsort(-np.abs(v))[:30])
    by_context = pack_seen(true, contexts, None, None)
    assert by_context is not None
    read = 0
    with using(path):
        for i in range(1500):
            source = [rng.bytes(int(rng.integers(0, 60))), bytes(40), b"\xff" * 40, by_context][i % 4]
            bad = bytearray(source)
            for _ in range(int(rng.integers(0, 4)) if bad else 0):
                bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
            try:
                if i % 2:
                    places, _ = unpack_seen(memoryview(bytes(bad)), 30, contexts, signs=bool(i % 3))
                    count = 30
                else:
                    count = int(rng.choice([0, 1, 30, 300]))
                    kind, low = int(rng.integers(3)), int(rng.integers(32))
                    places, _ = unpack_plain(memoryview(bytes(bad)), kind, low, count, 300)
            except CodecError:
                continue
            read += 1
            assert places.size == count
            assert (np.diff(places) > 0).all()
            assert not count or (places[0] >= 0 and places[-1] < 300)
    assert read > 20


def test_a_message_longer_than_it_may_be_is_not_written_to_its_end() -> None:
    layout = Layout.flat(3000)
    v, contexts = moved(layout)
    places = np.sort(np.argsort(-np.abs(v))[:300])
    whole = pack_seen(places, contexts, None, None)
    assert whole is not None
    assert pack_seen(places, contexts, None, len(whole) - 6) is None
    full = np.array([5 << 32, 1 << 33, 0])
    assert kernels("ranges").finish(np.empty(0, np.uint8), full) == -1
