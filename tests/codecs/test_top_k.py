"""The largest numbers of a vector: which they are, what they cost, and what comes back."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from laws.vector_codec_laws import MIXED, VectorCodecLaws, by_path, vectors

from flower_edge.codecs.block import Block
from flower_edge.codecs.error_feedback import ErrorFeedback
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.kernels import kernels, using
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.moment import Moment, Public
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.sparse import Sparse
from flower_edge.codecs.support import CONTEXT
from flower_edge.codecs.top_k import TopK
from flower_edge.errors import CodecError

NOW = Moment()


class TestLargestTwentiethAsSigns(VectorCodecLaws):
    def make(self) -> TopK:
        return TopK(0.05)


class TestLargestTwentiethByContext(VectorCodecLaws):
    def make(self) -> TopK:
        return TopK(0.05, support="context")

    @by_path
    def test_bytes_too_many_or_too_few_are_refused(self, path: Any) -> None:
        """But for those whose number tells nothing: any bytes are the code of some support. The envelope's check sum is
        what finds a cut; here, that none is read as the update that was sent."""
        with using(path):
            for at, v in product(self.moments(MIXED), [*vectors(MIXED.size)][:4]):
                data, update = sent(self.make(), v, at, MIXED)
                for wrong in (data[:-1], b"", data + b"\0", data + b"\x80", data + data):
                    try:
                        other, _ = self.make().unpack(memoryview(wrong), MIXED, {}, at)
                    except CodecError:
                        continue
                    assert not np.array_equal(other.dense(), update.dense())


class TestLargestThirdExactByBitmap(VectorCodecLaws):
    def make(self) -> TopK:
        return TopK(1 / 3, Identity(), "bitmap")


class TestLargestTwentiethInEightBitsByContext(VectorCodecLaws):
    def make(self) -> TopK:
        return TopK(0.05, Block(8, stochastic=False), "context")


class TestEveryNumberByItsGap(VectorCodecLaws):
    def make(self) -> TopK:
        return TopK(1.0, Identity(), "rice")


def largest_by_sorting(v: Floats, k: int) -> np.ndarray:
    order = np.argsort(-np.abs(v), kind="stable")[:k]
    return np.sort(order[v[order] != 0])


def sent(codec: TopK, v: Floats, at: Moment = NOW, layout: Layout | None = None) -> tuple[bytes, Sparse]:
    layout = layout or Layout.flat(v.size)
    data, _ = codec.pack(v, layout, {}, at)
    update, _ = codec.unpack(memoryview(data), layout, {}, at)
    return data, update


@by_path
def test_exactly_the_k_largest_are_kept_with_ties_by_the_lower_place_and_no_zeros(path: Any) -> None:
    halves = hnp.arrays(np.int8, st.integers(0, 3000), elements=st.integers(-3, 3)).map(lambda a: a.astype(np.float32))
    spread = st.tuples(st.integers(0, 2**32), st.integers(0, 3000), st.sampled_from([1.0, 1e-42, 1e30])).map(
        lambda s: (s[2] * np.random.default_rng(s[0]).normal(size=s[1])).astype(np.float32)
    )

    @settings(max_examples=60)
    @given(halves | spread, st.floats(0.001, 1.0))
    def holds(v: Floats, share: float) -> None:
        k = min(v.size, max(1, round(share * v.size)))
        with using(path):
            places, kept = kernels("select").largest(v, k)
            np.testing.assert_array_equal(places, largest_by_sorting(v, k))
            np.testing.assert_array_equal(kept, v[places])
            whole, places, kept = kernels("select").add_and_find(v, v[::-1].copy(), k)
            alone, first, known = kernels("select").add_and_find(v, None, k)
        np.testing.assert_array_equal(whole, v + v[::-1])
        np.testing.assert_array_equal(places, largest_by_sorting(whole, k))
        np.testing.assert_array_equal(kept, whole[places])
        np.testing.assert_array_equal(alone, v)
        np.testing.assert_array_equal(first, largest_by_sorting(v, k))
        np.testing.assert_array_equal(known, v[first])

    holds()


@by_path
@pytest.mark.parametrize("kind", ["normal", "mostly zero", "two values", "one row holds all"])
def test_a_sampled_threshold_changes_no_choice(path: Any, kind: str) -> None:
    v = np.random.default_rng(1).normal(size=200_003).astype(np.float32)
    if kind == "mostly zero":
        v[np.arange(v.size) % 50 != 0] = 0
    if kind == "two values":
        v = np.where(v > 1.5, np.float32(2), np.float32(-1))
    if kind == "one row holds all":
        v[1000:] *= np.float32(1e-6)
    with using(path):
        for k in (1, 300, 2000, 5000, 100_000, 200_003):
            places, kept = kernels("select").largest(v, k)
            np.testing.assert_array_equal(places, largest_by_sorting(v, k))
            np.testing.assert_array_equal(kept, v[places])


@by_path
def test_golden_bytes(path: Any) -> None:
    v = np.random.default_rng(7).normal(size=60).astype(np.float32)
    known = Moment(public=Public((np.abs(v),)))
    with using(path):
        rice = sent(TopK(0.1, support="rice"), v)[0].hex()
        bitmap = sent(TopK(0.1, support="bitmap"), v)[0].hex()
        context = sent(TopK(0.1, support="context"), v, known)[0].hex()
        exact = sent(TopK(0.05, Identity()), v)[0].hex()
        zeros = sent(TopK(0.1), np.zeros(60, np.float32))[0].hex()
    assert rice == "10d60e1b03e47f1f"
    assert bitmap == "010000144400200200e47f1f"
    assert context == "03e47faa7f40"
    assert exact == "18ba99445bf3bf971221c0d3060040"
    assert zeros == "0400"


def test_one_in_a_hundred_of_a_hundred_thousand_costs_nine_bits_each_and_three_bytes() -> None:
    data, _ = sent(TopK(0.01), np.random.default_rng(0).normal(size=100_000).astype(np.float32))
    assert len(data) <= 3 + (8.12 + 1) * 1000 / 8 + 1


def test_all_numbers_cost_no_byte_for_their_places() -> None:
    v = np.arange(1, 9, dtype=np.float32)
    data, update = sent(TopK(1.0, Identity()), v)
    assert len(data) == 1 + 4 * v.size
    np.testing.assert_array_equal(update.dense(), v)


def test_numbers_that_are_zero_are_not_sent_and_the_count_says_so() -> None:
    v = np.zeros(1000, np.float32)
    v[[3, 900]] = 1, -1
    data, update = sent(TopK(0.05, Identity()), v)
    assert update.indices.tolist() == [3, 900]
    assert len(data) < 1 + 1 + 2 * 8 + 3


def test_auto_is_never_longer_than_any_coder_by_itself() -> None:
    rng = np.random.default_rng(2)
    for share in (0.003, 0.1, 0.4, 0.9):
        v = rng.normal(size=2000).astype(np.float32)
        for close in (0.0, 1.0, 30.0):
            at = Moment(public=Public(((close * np.abs(v) + np.abs(rng.normal(size=2000))).astype(np.float32),)))
            auto = sent(TopK(share), v, at)[0]
            for support in ("rice", "bitmap", "context"):
                assert len(auto) <= len(sent(TopK(share, support=support), v, at)[0])


@by_path
def test_a_process_that_takes_tiny_numbers_for_zero_sends_and_reads_the_same_bytes(path: Any) -> None:
    """`torch.set_flush_denormal` is for the whole thread, and whoever trains with it encodes with it."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    v = (rng.normal(size=3000) * rng.choice([0.0, 1e-42, 1e-3], size=3000)).astype(np.float32)
    few = np.where(np.arange(3000) < 5, np.float32(1e-42), np.float32(0))
    at = Moment(public=Public((v[::-1].copy(), np.roll(v, 1), (1e-30 * v).astype(np.float32))))
    codec, layout = TopK(0.3, support="context"), Layout(("w",), ((60, 50),))
    with using(path):
        expected = [codec.pack(x, layout, {}, at)[0] for x in (v, few)]
        update, _ = codec.unpack(memoryview(expected[0]), layout, {}, at)
        if not torch.set_flush_denormal(True):
            pytest.skip("this processor cannot")
        try:
            at = Moment(public=Public(at.public.aggregates))
            assert [codec.pack(x, layout, {}, at)[0] for x in (v, few)] == expected
            again, _ = codec.unpack(memoryview(expected[0]), layout, {}, at)
        finally:
            torch.set_flush_denormal(False)
    assert again.values.tobytes() == update.values.tobytes()
    np.testing.assert_array_equal(again.indices, update.indices)


def test_feeding_back_takes_the_same_places_as_packing_the_sum() -> None:
    rng = np.random.default_rng(4)
    v, memory = (rng.normal(size=200_000).astype(np.float32) for _ in range(2))
    layout = Layout.flat(v.size)
    data, left, _ = TopK(0.01).feed(v, memory, layout, {}, NOW)
    assert data == TopK(0.01).pack(v + memory, layout, {}, NOW)[0]
    places = largest_by_sorting(v + memory, 2000)
    untouched = np.ones(v.size, bool)
    untouched[places] = False
    np.testing.assert_array_equal(left[untouched], (v + memory)[untouched])
    assert np.abs(left[places]).sum() < np.abs((v + memory)[places]).sum() / 3


@by_path
@pytest.mark.parametrize("size", [1, 99, 101])
def test_a_memory_of_another_model_is_refused(path: Any, size: int) -> None:
    with using(path), pytest.raises(CodecError, match=f"{size} that were left out, expected 100 of each"):
        TopK(0.1).feed(np.ones(100, np.float32), np.ones(size, np.float32), Layout.flat(100), {}, NOW)


def test_a_support_by_context_is_not_read_without_what_the_sender_knew() -> None:
    v = np.random.default_rng(5).normal(size=1000).astype(np.float32)
    data, _ = TopK(0.05, support="context").pack(v, Layout.flat(1000), {}, Moment(public=Public((v,))))
    with pytest.raises(CodecError, match=r"not known here; decode with the Moment"):
        TopK(0.05, support="context").unpack(memoryview(data), Layout.flat(1000), {}, NOW)


@pytest.mark.parametrize("values", [Sign(), Block(8, stochastic=False), Identity()], ids=lambda codec: codec.kind)
def test_where_aggregates_are_known_a_support_is_by_context_whatever_codes_the_values(values: Any) -> None:
    v = np.random.default_rng(0).standard_t(2, 2000).astype(np.float32)
    layout, at = Layout.flat(v.size), Moment(public=Public((v,)))
    by_context, alone = (TopK(0.05, values, support).pack(v, layout, {}, at)[0] for support in ("context", "rice"))
    assert by_context[0] & 3 == CONTEXT
    assert len(by_context) < len(alone)
    found, _ = TopK(0.05, values, "context").unpack(memoryview(by_context), layout, {}, at)
    other, _ = TopK(0.05, values, "rice").unpack(memoryview(alone), layout, {}, at)
    np.testing.assert_array_equal(found.dense(), other.dense())


def test_without_aggregates_a_support_by_context_is_sent_as_the_shortest_other() -> None:
    v = np.random.default_rng(5).normal(size=1000).astype(np.float32)
    assert sent(TopK(0.05, support="context"), v)[0] == sent(TopK(0.05), v)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0}, "more than 0"),
        ({"fraction": 1.5}, "from 0"),
        ({"support": "ricce"}, "'rice'"),
        ({"values": Identity}, "write its parentheses"),
        ({"values": ErrorFeedback(Identity())}, "wrap the whole instead"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_what_does(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        TopK(**options)
