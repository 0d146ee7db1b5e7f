"""Prediction from the last aggregate: what everybody expects costs nothing, and what is wrong about it never hurts."""

from __future__ import annotations

import numpy as np
import pytest
from laws.vector_codec_laws import MIXED, VectorCodecLaws, vectors

from flower_edge.codecs.error_feedback import ErrorFeedback
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.moment import Moment, Public
from flower_edge.codecs.predicted import Predicted
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.sparse import Sparse, dense
from flower_edge.codecs.top_k import TopK
from flower_edge.codecs.vector_codec import VectorCodec
from flower_edge.errors import CodecError


class TestPredicted(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return Predicted(TopK(0.1))


class TestPredictedHalves(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return Predicted(Half(), decay=0.5)


class TestPredictedWithErrorFeedback(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return ErrorFeedback(Predicted(Sign()))


def carried(codec: VectorCodec, v: Floats, *aggregates: Floats) -> tuple[bytes, Floats]:
    layout, at = Layout.flat(v.size), Moment(1, 0, Public(aggregates))
    data, _ = codec.pack(v, layout, codec.start(layout), at)
    return data, dense(codec.unpack(memoryview(data), layout, codec.start(layout), at)[0])


def test_what_everybody_expects_arrives_whole_however_few_bytes_there_are() -> None:
    v = next(vectors(300))
    data, out = carried(Predicted(TopK(0.01)), v, v.copy())
    assert data[0] == 1
    assert len(data) < 20
    np.testing.assert_array_equal(out, v)


def test_only_the_newest_aggregate_counts_and_by_its_decay() -> None:
    rng = np.random.default_rng(0)
    v, old = rng.normal(size=(2, 300)).astype(np.float32)
    _, out = carried(Predicted(TopK(0.01), decay=0.5), v, 2 * v, old)
    np.testing.assert_allclose(out, v, rtol=1e-6)


def test_the_nearer_the_aggregate_the_smaller_the_error_at_equal_bytes() -> None:
    rng = np.random.default_rng(1)
    v = rng.normal(size=2000).astype(np.float32)
    lost = []
    for noise in (0.1, 0.3, 0.6):
        near = v + noise * rng.normal(size=2000).astype(np.float32)
        lost.append(np.sum((carried(Predicted(Sign()), v, near)[1] - v) ** 2))
    plain = np.sum((carried(Sign(), v)[1] - v) ** 2)
    assert 0 < lost[0] < lost[1] < lost[2] < plain


def test_an_aggregate_that_points_elsewhere_costs_one_byte_and_nothing_else() -> None:
    rng = np.random.default_rng(2)
    v, other = rng.normal(size=(2, 300)).astype(np.float32)
    for aggregate in (other, -v, 1e30 * v):
        data, out = carried(Predicted(TopK(0.1)), v, aggregate)
        alone, expected = carried(TopK(0.1), v, aggregate)
        assert data == b"\0" + alone
        np.testing.assert_array_equal(out, expected)


def test_without_an_aggregate_the_update_stays_sparse() -> None:
    codec, layout, v = Predicted(TopK(0.1)), Layout.flat(300), next(vectors(300))
    data, _ = codec.pack(v, layout, codec.start(layout), Moment())
    assert isinstance(codec.unpack(memoryview(data), layout, codec.start(layout), Moment())[0], Sparse)


def test_the_aggregate_that_both_ends_have_is_left_as_it_is() -> None:
    v = next(vectors(300))
    aggregate = v.copy()
    for inner in (TopK(0.1), Half()):
        carried(Predicted(inner), v, aggregate)
        assert aggregate.tobytes() == v.tobytes()


def test_a_receiver_without_the_aggregate_says_so() -> None:
    codec, layout, v = Predicted(Half()), Layout.flat(300), next(vectors(300))
    data, _ = carried(codec, v, v)
    with pytest.raises(CodecError, match="a difference from an aggregate that this side has not"):
        codec.unpack(memoryview(data), layout, codec.start(layout), Moment())


def test_an_aggregate_of_another_model_is_refused() -> None:
    with pytest.raises(CodecError, match=r"an aggregate of shape \(299,\), expected \(300,\)"):
        carried(Predicted(Half()), next(vectors(300)), next(vectors(299)))


def test_a_difference_that_leaves_the_finite_numbers_is_refused() -> None:
    most = np.full(4, np.finfo(np.float32).max, np.float32)
    data = b"\1" + most.astype("<f4").tobytes()
    layout, at = Layout.flat(4), Moment(0, 0, Public((most,)))
    with pytest.raises(CodecError, match="not finite"):
        Predicted(Identity()).unpack(memoryview(data), layout, {}, at)


def test_it_is_unbiased_if_the_inner_codec_is_and_never_linear() -> None:
    assert Predicted(Identity()).unbiased
    assert not Predicted(Sign()).unbiased
    assert not Predicted(Identity()).linear


@pytest.mark.parametrize("decay", [0.0, 1.5, -1, "1", float("nan")])
def test_a_decay_that_makes_no_sense_is_refused(decay: float) -> None:
    with pytest.raises(CodecError, match=r"decay = .*from 1e-06 to 1\.0"):
        Predicted(Half(), decay=decay)


def test_it_reads_arrays_in_the_order_of_the_model() -> None:
    codec, v = Predicted(Half()), next(vectors(MIXED.size))
    at = Moment(2, 0, Public((v,)))
    data, _ = codec.pack(v, MIXED, codec.start(MIXED), at)
    np.testing.assert_array_equal(dense(codec.unpack(memoryview(data), MIXED, {}, at)[0]), v)
