"""Low rank: as good as PyTorch's PowerSGD, and decoded the same on every machine."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from laws.vector_codec_laws import MIXED, VectorCodecLaws, vectors
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import _orthogonalize

from flower_edge.codecs.error_feedback import ErrorFeedback
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.low_rank import LowRank
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.sparse import dense
from flower_edge.codecs.top_k import TopK
from flower_edge.codecs.vector_codec import State, VectorCodec
from flower_edge.errors import CodecError


class TestLowRank(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return LowRank(rank=2)


class TestLowRankWithErrorFeedback(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return ErrorFeedback(LowRank(rank=1, values=Half("bf16")))


class TestLowRankOfSparseFactors(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return LowRank(rank=2, values=TopK(0.5), seed=3)


def step(codec: LowRank, v: Floats, layout: Layout, state: State) -> tuple[Floats, State, bytes]:
    data, state = codec.pack(v, layout, state, Moment())
    return dense(codec.unpack(memoryview(data), layout, codec.start(layout), Moment())[0]), state, data


def test_a_matrix_of_low_rank_arrives_whole() -> None:
    rng = np.random.default_rng(0)
    v = (rng.normal(size=(60, 3)) @ rng.normal(size=(3, 50))).astype(np.float32).reshape(-1)
    codec, layout = LowRank(rank=3, values=Identity()), Layout(("w",), ((60, 5, 10),))
    out, _, data = step(codec, v, layout, codec.start(layout))
    np.testing.assert_allclose(out, v, atol=1e-5)
    assert len(data) == 1 + 4 * 3 * (60 + 50)


def test_the_receiver_multiplies_number_by_number() -> None:
    rng = np.random.default_rng(1)
    p, q = rng.normal(size=(7, 2)).astype(np.float32), rng.normal(size=(9, 2)).astype(np.float32)
    codec, layout = LowRank(rank=2, values=Identity()), Layout(("w",), ((7, 9),))
    out, _ = codec.unpack(memoryview(b"\xff" + p.tobytes() + q.tobytes()), layout, codec.start(layout), Moment())
    by_hand = [[p[i, 0] * (q[j, 0] / 2) + p[i, 1] * (q[j, 1] / 2) for j in range(9)] for i in range(7)]
    assert out.tobytes() == np.array(by_hand, np.float32).tobytes()


def test_only_what_becomes_smaller_is_factored() -> None:
    layout = Layout(("w", "thin", "bias", "none"), ((20, 20), (3, 100), (50,), (0, 4)))
    codec, v = LowRank(rank=3, values=Identity()), next(vectors(750))
    out, _, data = step(codec, v, layout, codec.start(layout))
    assert len(data) == 1 + 2 + 4 * (3 * 40 + 300 + 50)
    np.testing.assert_array_equal(out[400:], v[400:])


def test_values_are_scaled_so_that_halves_hold_them_whatever_the_gradients_size() -> None:
    rng = np.random.default_rng(2)
    v = (rng.normal(size=(40, 2)) @ rng.normal(size=(2, 40))).astype(np.float32).reshape(-1)
    codec, layout = LowRank(rank=2, values=Half()), Layout(("w",), ((40, 40),))
    for scale in (1e-20, 1e-9, 1.0, 1e12):
        given = v * np.float32(scale)
        out, _, _ = step(codec, given, layout, codec.start(layout))
        assert np.linalg.norm(out / scale - v) < 2e-3 * np.linalg.norm(v)


def test_after_a_round_without_change_it_finds_its_way_again() -> None:
    rng = np.random.default_rng(3)
    v = (rng.normal(size=(30, 1)) @ rng.normal(size=(1, 30))).astype(np.float32).reshape(-1)
    codec, layout = LowRank(rank=1, values=Identity()), Layout(("w",), ((30, 30),))
    state = codec.start(layout)
    for given in (v, np.zeros(900, np.float32), v):
        out, state, _ = step(codec, given, layout, state)
    np.testing.assert_allclose(out, v, atol=1e-5)


def test_the_start_from_the_last_round_makes_each_round_more_exact() -> None:
    rng = np.random.default_rng(4)
    v = (rng.normal(size=(80, 80)) @ np.diag(0.9 ** np.arange(80)) @ rng.normal(size=(80, 80))).astype(np.float32)
    codec, layout = LowRank(rank=4, values=Identity()), Layout(("w",), ((80, 80),))
    state, lost = codec.start(layout), []
    for _ in range(8):
        out, state, _ = step(codec, v.reshape(-1), layout, state)
        lost.append(float(np.linalg.norm(out.reshape(80, 80) - v)))
    best = np.sqrt(np.sum(np.linalg.svd(v, compute_uv=False)[4:] ** 2))
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(lost))
    assert lost[-1] < 1.02 * best < lost[0]


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_with_error_feedback_it_is_as_good_as_pytorchs_powersgd(rank: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, rounds = (48, 64), 30
    common = rng.normal(size=(48, 4)) @ rng.normal(size=(4, 64))
    given = [(common + 0.5 * rng.normal(size=shape)).astype(np.float32) for _ in range(rounds)]

    codec, layout = ErrorFeedback(LowRank(rank, seed=seed)), Layout(("w",), (shape,))
    state, own = codec.start(layout), np.zeros(shape)
    q = torch.randn(1, shape[1], rank, generator=torch.Generator().manual_seed(seed))
    left, theirs = torch.zeros(1, *shape), np.zeros(shape)
    own_error, their_error = [], []
    for round_, v in enumerate(given):
        data, state = codec.pack(v.reshape(-1), layout, state, Moment(round_))
        own += dense(codec.unpack(memoryview(data), layout, codec.start(layout), Moment(round_))[0]).reshape(shape)
        whole = torch.from_numpy(v)[None] + left
        p = torch.matmul(whole, q)
        _orthogonalize(p)
        q = torch.matmul(whole.transpose(1, 2), p)
        sent = torch.matmul(p, q.transpose(1, 2))
        left = whole - sent
        theirs += sent[0].numpy()
        total = np.sum(given[: round_ + 1], axis=0)
        own_error.append(np.linalg.norm(total - own))
        their_error.append(np.linalg.norm(total - theirs))
    assert np.mean(own_error[5:]) <= 1.05 * np.mean(their_error[5:])
    assert own_error[-1] < 0.5 * np.linalg.norm(total)


def test_scales_that_are_cut_off_and_products_that_overflow_are_refused() -> None:
    codec, layout = LowRank(rank=1, values=Identity()), Layout(("w", "x"), ((9, 9), (9, 9)))
    with pytest.raises(CodecError, match="1 bytes for 2 scales"):
        codec.unpack(memoryview(b"\0"), layout, codec.start(layout), Moment())
    huge = np.full(36, 1e10, "<f4").tobytes()
    with pytest.raises(CodecError, match="not finite"):
        codec.unpack(memoryview(b"\x7f\x7f" + huge), layout, codec.start(layout), Moment())


def test_the_receiver_keeps_no_matrix() -> None:
    codec = LowRank(rank=2)
    data, own = codec.pack(next(vectors(MIXED.size)), MIXED, codec.start(MIXED), Moment())
    _, other = codec.unpack(memoryview(data), MIXED, codec.start(MIXED), Moment())
    assert set(own["q"]) == {"0", "4"}
    assert other["q"] == {}


def test_options_that_make_no_sense_are_refused() -> None:
    for rank in (0, 2.0, "4", True):
        with pytest.raises(CodecError, match=r"rank = .*a whole number from 1"):
            LowRank(rank)  # type: ignore[arg-type]
    with pytest.raises(CodecError, match="seed = -1"):
        LowRank(seed=-1)
    with pytest.raises(CodecError, match="values = 'fp16'"):
        LowRank(values="fp16")  # type: ignore[arg-type]
