"""LGC as a codec: its three phases, what it refuses, and codes that are averaged. Training is in test_lgc_gate.py."""

from __future__ import annotations

import numpy as np
import pytest
from laws.vector_codec_laws import VectorCodecLaws

from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.lgc.codebook import codebook_bytes
from flower_edge.codecs.lgc.lgc import Lgc
from flower_edge.codecs.lgc.model import Autoencoder, first_weights
from flower_edge.codecs.moment import Moment, Public
from flower_edge.codecs.sparse import dense
from flower_edge.errors import CodecError

CHANNELS = (4, 6, 8, 4, 2)
DENSE, TAUGHT, SCALAR, LEARNED = range(4)
LAYOUT = Layout(("first", "w", "b", "last.w", "last.b"), ((9,), (20, 30), (30,), (10, 6), (6,)))
#: Places of the middle, `w` and `b`, in the whole vector.
LEADER = np.arange(9, 639, 7)


def lgc(variant: str = "ring", **options: object) -> Lgc:
    return Lgc(**{"fraction": 0.1, "innovation": 0.02, "variant": variant, "channels": CHANNELS, **options})  # type: ignore[arg-type]


def book(codec: Lgc, seed: int = 0) -> bytes:
    shape = codec.code.shape
    return codebook_bytes(Autoencoder(shape, first_weights(shape, seed)), 0)


def vector(seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=LAYOUT.size).astype(np.float32)


def at(codec: Lgc, round: int = 20, node: int = 1, seed: int = 0) -> Moment:
    return Moment(round, node, Public((vector(99),), LEADER, book(codec, seed)))


class Laws(VectorCodecLaws):
    words = 12  # without a leader it is top-k, whose contexts of both aggregates take ten

    def public(self, layout: Layout) -> list[Public]:
        codec = self.make()
        assert isinstance(codec, Lgc)
        *some, last = super().public(layout)
        return [*some, last, Public(last.aggregates, last.leader, book(codec))]


class TestServer(Laws):
    def make(self) -> Lgc:
        return lgc("server", taught=1, detail=0.1)


class TestRing(Laws):
    def make(self) -> Lgc:
        return lgc("ring", taught=1, turn=3)


class TestRingOfWholeNumbersAfterDenseRounds(Laws):
    def make(self) -> Lgc:
        return lgc("ring", latent="fp32", full=2, taught=1, first=0, last=0)


@pytest.mark.parametrize("variant", ["server", "ring"])
def test_the_phases_follow_the_round_and_the_codebook(variant: str) -> None:
    codec = lgc(variant, full=2, taught=3, turn=8)
    expected = {0: DENSE, 1: DENSE, 2: TAUGHT, 4: TAUGHT, 5: LEARNED, 6: LEARNED, 7: TAUGHT}  # 7: node 1 leads
    for round, kind in expected.items():
        assert codec.pack(vector(0), LAYOUT, {}, at(codec, round))[0][0] == kind
    for public in (Public(), Public((vector(9),), LEADER), Public((vector(9),), LEADER, b"")):
        assert codec.pack(vector(0), LAYOUT, {}, Moment(5, 1, public))[0][0] == SCALAR


def test_first_arrays_arrive_whole_and_the_middle_at_the_leaders_places_and_innovations() -> None:
    codec = lgc()
    data, _ = codec.pack(vector(1), LAYOUT, {}, at(codec))
    decoded = dense(codec.unpack(memoryview(data), LAYOUT, {}, at(codec))[0])
    np.testing.assert_allclose(decoded[:9], vector(1)[:9], rtol=2**-8)
    outside = np.setdiff1d(np.flatnonzero(decoded[9:639]) + 9, LEADER)
    assert outside.size == round(0.02 * 630)
    assert np.array_equal(np.sign(decoded[outside]), np.sign(vector(1)[outside]))


def test_a_ring_message_is_a_byte_per_latent_and_names_its_codebook() -> None:
    one, other = lgc(latent="int8"), lgc(latent="fp32")
    sizes = [len(codec.pack(vector(2), LAYOUT, {}, at(codec))[0]) for codec in (one, other)]
    latents = 2 * -(-LEADER.size // 16)
    assert sizes[1] - sizes[0] == 3 * latents - 4  # a scale less


@pytest.mark.parametrize("variant", ["server", "ring"])
def test_a_message_of_another_codebook_is_refused_and_a_plain_resend_asked_for(variant: str) -> None:
    codec = lgc(variant)
    data, _ = codec.pack(vector(3), LAYOUT, {}, at(codec, seed=0))
    for other in (at(codec, seed=1), Moment(20, 1, Public((vector(99),), LEADER)), Moment(20, 1)):
        with pytest.raises(CodecError, match="plain resend"):
            codec.unpack(memoryview(data), LAYOUT, {}, other)


def test_a_damaged_codebook_is_refused_where_it_would_be_used() -> None:
    codec = lgc()
    public = Public((), LEADER, book(codec)[:-1] + b"\xff")
    with pytest.raises(CodecError, match="resend"):
        codec.pack(vector(4), LAYOUT, {}, Moment(20, 1, public))


def test_the_average_of_one_message_is_that_message_and_that_of_equal_ones_each() -> None:
    codec = lgc()
    moments = [at(codec, node=node) for node in (1, 2, 3)]
    payloads = [codec.pack(vector(5), LAYOUT, {}, moment)[0] for moment in moments]
    alone = dense(codec.unpack(memoryview(payloads[0]), LAYOUT, {}, moments[0])[0])
    np.testing.assert_allclose(codec.average(payloads[:1], LAYOUT, moments[:1]), alone, rtol=1e-6)
    np.testing.assert_allclose(codec.average(payloads, LAYOUT, moments), alone, rtol=1e-5, atol=1e-6)


def test_codes_are_averaged_before_they_are_decoded() -> None:
    codec = lgc(latent="fp32", first=0, last=0)
    moments, given = [at(codec, node=node) for node in (1, 2)], [vector(6), vector(7)]
    payloads = [codec.pack(v, LAYOUT, {}, moment)[0] for v, moment in zip(given, moments, strict=True)]
    together = codec.average(payloads, LAYOUT, moments)
    net, scales, codes = codec.code.learned(book(codec)).book.model, [], []
    from flower_edge.codecs.lgc.values import scales_of

    for v in given:
        scale = scales_of(v[LEADER], LEADER, LAYOUT)
        codes.append(net.encode(scale.divide(v[LEADER])))
        scales.append(scale.by_place())
    expected = net.decode(np.mean(codes, axis=0), LEADER.size) * np.mean(scales, axis=0)
    np.testing.assert_allclose(together[LEADER], expected, rtol=1e-4, atol=1e-6)


def test_plain_messages_are_averaged_with_learned_ones() -> None:
    codec = lgc()
    moments = [at(codec, node=1), Moment(20, 2, Public(leader=LEADER))]
    payloads = [codec.pack(vector(8), LAYOUT, {}, moment)[0] for moment in moments]
    assert [payload[0] for payload in payloads] == [LEARNED, SCALAR]
    each = [dense(codec.unpack(memoryview(p), LAYOUT, {}, m)[0]) for p, m in zip(payloads, moments, strict=True)]
    np.testing.assert_allclose(codec.average(payloads, LAYOUT, moments), np.mean(each, axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"variant": "star"}, "variant"),
        ({"latent": "int4"}, "latent"),
        ({"fraction": 0.0}, "fraction"),
        ({"innovation": 0.0}, "fraction"),
        ({"detail": 0.0}, "detail"),
        ({"taught": -1}, "taught"),
        ({"channels": (1, 2)}, "channels"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, object], says: str) -> None:
    with pytest.raises(CodecError, match=says):
        lgc(**options)  # type: ignore[arg-type]
