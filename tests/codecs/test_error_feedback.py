"""Error feedback: nothing is lost, only late; the memory stays bounded; the receiver needs none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from laws.vector_codec_laws import MIXED, VectorCodecLaws, vectors

from flower_edge.codecs.block import Block
from flower_edge.codecs.by_layer import ByLayer
from flower_edge.codecs.by_size import BySize
from flower_edge.codecs.eden import Eden
from flower_edge.codecs.error_feedback import ErrorFeedback, stc
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.low_rank import LowRank
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.predicted import Predicted
from flower_edge.codecs.rate_controlled import RateControlled
from flower_edge.codecs.shared_support import SharedSupport
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.sparse import Sparse, dense
from flower_edge.codecs.top_k import TopK
from flower_edge.codecs.vector_codec import VectorCodec
from flower_edge.errors import CodecError


class TestStc(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return stc(0.1)


class TestFeedbackWithMomentumOverSigns(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return ErrorFeedback(Sign(), momentum=0.9, reset_after=2)


LEAVE_SOMETHING_OUT: list[VectorCodec] = [
    TopK(0.1, values=Sign()),
    TopK(0.1, values=Identity()),
    Sign(),
    Half("bf16"),
    Block(4, stochastic=False),
    LowRank(rank=1),
    Block(4),
    Eden(1),
    SharedSupport(0.1),
    Predicted(TopK(0.1)),
    BySize(Half(), Sign(), threshold=20),
    ByLayer((("conv*", Sign()),), default=TopK(0.2)),
    RateControlled((TopK(0.1), Sign()), budget_error=1.0),
]
over_each = pytest.mark.parametrize("inner", LEAVE_SOMETHING_OUT, ids=repr)


def sent(codec: VectorCodec, given: list[Floats], layout: Layout) -> tuple[list[Floats], Floats]:
    """What the other end makes of each payload, and what the sender still has."""
    own = other = codec.start(layout)
    out = []
    for round_, v in enumerate(given):
        data, own = codec.pack(v, layout, own, Moment(round_))
        update, other = codec.unpack(memoryview(data), layout, other, Moment(round_))
        out.append(dense(update))
    return out, own["memory"]


@over_each
def test_what_went_in_is_what_came_out_and_what_is_kept(inner: VectorCodec) -> None:
    given = [v for _ in range(4) for v in [*vectors(MIXED.size)][:5]]
    out, kept = sent(ErrorFeedback(inner), given, MIXED)
    total = np.sum(given, axis=0, dtype=np.float64)
    np.testing.assert_allclose(np.sum(out, axis=0, dtype=np.float64) + kept, total, atol=2e-4)


@pytest.mark.parametrize("inner", LEAVE_SOMETHING_OUT[:5], ids=repr)
def test_error_feedback_sends_everything_in_the_end(inner: VectorCodec) -> None:
    layout = Layout.flat(50)
    v = next(vectors(50))
    out, kept = sent(ErrorFeedback(inner), [v, *[np.zeros(50, np.float32)] * 1500], layout)
    np.testing.assert_allclose(np.sum(out, axis=0, dtype=np.float64), v, atol=1e-3)
    assert np.linalg.norm(kept) < 1e-3 < np.linalg.norm(v)


@pytest.mark.parametrize("inner", LEAVE_SOMETHING_OUT[:3], ids=repr)
def test_the_memory_stays_within_its_bound_over_a_thousand_rounds(inner: VectorCodec) -> None:
    layout, rng = Layout.flat(200), np.random.default_rng(0)
    codec = ErrorFeedback(inner)
    delta = inner.contraction(200)
    assert delta is not None
    bound = math.sqrt(1 - delta) / (1 - math.sqrt(1 - delta))
    state, longest = codec.start(layout), 0.0
    slope = np.linspace(-1, 1, 200)
    for round_ in range(1000):
        noise = rng.standard_t(2, 200) if round_ % 3 else slope  # the same direction again and again is the worst
        v = (noise / np.linalg.norm(noise)).astype(np.float32)
        _, state = codec.pack(v, layout, state, Moment(round_))
        longest = max(longest, float(np.linalg.norm(state["memory"])))
    assert 0.5 < longest <= bound * (1 + 1e-5)


def test_over_an_exact_codec_there_is_nothing_to_remember() -> None:
    given = [*vectors(MIXED.size)][:4]
    out, kept = sent(ErrorFeedback(Identity()), given, MIXED)
    assert [v.tobytes() for v in out] == [v.tobytes() for v in given]
    assert not kept.any()


def test_the_receiver_keeps_no_memory() -> None:
    codec, other = stc(0.1), stc(0.1).start(MIXED)
    data, _ = codec.pack(next(vectors(MIXED.size)), MIXED, codec.start(MIXED), Moment())
    _, other = codec.unpack(memoryview(data), MIXED, other, Moment())
    assert other["memory"].size == 0


# -- momentum --------------------------------------------------------------------------------------------------------


def test_with_exact_values_momentum_is_that_of_deep_gradient_compression() -> None:
    layout, rng = Layout.flat(40), np.random.default_rng(1)
    codec = ErrorFeedback(TopK(0.1, values=Identity()), momentum=0.9)
    state = codec.start(layout)
    u, m = np.zeros(40, np.float32), np.zeros(40, np.float32)
    for round_ in range(30):
        g = rng.normal(size=40).astype(np.float32)
        u = np.float32(0.9) * u + g  # Lin et al., algorithm 4
        m = u + m
        chosen = np.argsort(-np.abs(m))[:4]
        data, state = codec.pack(g, layout, state, Moment(round_))
        update, _ = codec.unpack(memoryview(data), layout, codec.start(layout), Moment(round_))
        assert isinstance(update, Sparse)
        assert update.indices.tolist() == sorted(chosen.tolist())
        np.testing.assert_allclose(update.values, m[update.indices], rtol=1e-5)
        u[chosen] = m[chosen] = 0
        np.testing.assert_allclose(state["velocity"], u, rtol=1e-4, atol=1e-5)


def test_without_momentum_there_is_no_velocity() -> None:
    _, state = stc(0.1).pack(next(vectors(MIXED.size)), MIXED, stc(0.1).start(MIXED), Moment())
    assert state["velocity"].size == 0


# -- rounds that were missed, messages that were lost ----------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize(("missed", "kept"), [(0, True), (1, True), (2, False), (7, False)])
def test_a_node_that_missed_rounds_begins_anew(missed: int, kept: bool, momentum: float) -> None:
    codec = ErrorFeedback(TopK(0.1), momentum=momentum, reset_after=2)
    one, *_, other = [*vectors(MIXED.size)][:5]
    _, state = codec.pack(one, MIXED, codec.start(MIXED), Moment(5))
    data, _ = codec.pack(other, MIXED, state, Moment(6 + missed))
    fresh, _ = codec.pack(other, MIXED, codec.start(MIXED), Moment(6 + missed))
    assert (data != fresh) == kept


@over_each
def test_what_a_lost_message_carried_is_still_to_be_sent(inner: VectorCodec) -> None:
    codec, given = ErrorFeedback(inner), [*vectors(MIXED.size)][:5]
    state, arrived = codec.start(MIXED), np.zeros(MIXED.size)
    for round_, v in enumerate(given):
        data, state = codec.pack(v, MIXED, state, Moment(round_))
        if round_ % 2:
            state = codec.give_back(state, data, MIXED, Moment(round_))
        else:
            arrived += dense(codec.unpack(memoryview(data), MIXED, codec.start(MIXED), Moment(round_))[0])
    np.testing.assert_allclose(arrived + state["memory"], np.sum(given, axis=0, dtype=np.float64), atol=2e-4)


def test_what_was_never_sent_can_be_given_back_to_a_node_that_lost_its_memory() -> None:
    codec, v = stc(0.1), next(vectors(MIXED.size))
    data, after = codec.pack(v, MIXED, codec.start(MIXED), Moment())
    restored = codec.give_back(codec.start(MIXED), data, MIXED, Moment())
    np.testing.assert_allclose(restored["memory"] + after["memory"], v, atol=1e-6)


# -- options ---------------------------------------------------------------------------------------------------------


def test_options_that_make_no_sense_are_refused_with_what_is_expected() -> None:
    for wrong in (None, 5, "top_k", TopK):
        with pytest.raises(CodecError, match=r"inner = .*codec of vectors"):
            ErrorFeedback(wrong)  # type: ignore[arg-type]
    for momentum in (1.0, -0.1, float("nan"), "0.9", True):
        with pytest.raises(CodecError, match=r"momentum = .*from 0\.0 to 0\.9999"):
            ErrorFeedback(Sign(), momentum=momentum)  # type: ignore[arg-type]
    for rounds in (0, 1.5, True):
        with pytest.raises(CodecError, match=r"reset_after = .*a whole number"):
            ErrorFeedback(Sign(), reset_after=rounds)  # type: ignore[arg-type]


def test_it_says_that_it_is_neither_unbiased_nor_linear() -> None:
    codec = ErrorFeedback(Identity())
    assert (codec.unbiased, codec.linear, codec.contraction(10)) == (False, False, None)
