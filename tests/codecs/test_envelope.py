"""Envelopes are read whole or refused by name; updates lead exactly where they say."""

from __future__ import annotations

import dataclasses
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.codecs.block import Block
from flower_edge.codecs.envelope import (
    HEADER_BYTES,
    SERVER,
    Envelope,
    Kind,
    codebook_epoch,
    codec_hash,
    config_text,
    digest_of,
)
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.model_update import between, moved
from flower_edge.codecs.sparse import Sparse
from flower_edge.errors import CodecError

U32 = st.integers(0, 2**32 - 1)
U8 = st.integers(0, 255)
ENVELOPES = st.builds(Envelope, st.sampled_from(Kind), st.binary(max_size=60), U32, U32, U32, U32, U32, U8, U32, U8)


@settings(max_examples=60)
@given(ENVELOPES)
def test_an_envelope_is_itself_after_travelling(envelope: Envelope) -> None:
    data = envelope.to_bytes()
    assert len(data) == HEADER_BYTES + len(envelope.payload)
    assert Envelope.from_bytes(data, sender="node 1") == envelope


def test_the_bytes_of_an_envelope_are_these() -> None:
    envelope = Envelope(Kind.UPDATE, b"abc", 0x01020304, 5, 6, 7, 0x08090A0B, 2, 0x0C0D0E0F)
    assert envelope.to_bytes().hex() == (
        "4645433152dc854f00000200040302010500000006000000070000000b0a09080f0e0d0c616263"
    )


@settings(max_examples=60)
@given(ENVELOPES, st.data())
def test_one_bit_turned_over_anywhere_is_found(envelope: Envelope, data: st.DataObject) -> None:
    raw = bytearray(envelope.to_bytes())
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CodecError, match="node 7 sent"):
        Envelope.from_bytes(raw, sender="node 7")


@settings(max_examples=60)
@given(ENVELOPES, st.integers(0, 95))
def test_an_envelope_that_was_cut_off_is_refused(envelope: Envelope, length: int) -> None:
    raw = envelope.to_bytes()
    with pytest.raises(CodecError):
        Envelope.from_bytes(raw[: min(length, len(raw) - 1)], sender="node 7")


@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_any_bytes_are_an_envelope_or_refused(raw: bytes) -> None:
    try:
        Envelope.from_bytes(raw, sender="node 7")
    except CodecError:
        return
    assert raw[:4] == b"FEC1"


def test_a_kind_of_a_later_version_is_refused_with_what_to_do() -> None:
    body = bytes([len(Kind), 0, 0, 0]) + bytes(24)
    raw = b"FEC1" + struct.pack("<I", zlib.crc32(body)) + body
    with pytest.raises(CodecError, match=r"kind 7.*same flower-edge version"):
        Envelope.from_bytes(raw, sender="node 7")


@pytest.mark.parametrize(
    "field", [field.name for field in dataclasses.fields(Envelope) if field.name not in ("kind", "payload")]
)
def test_a_number_that_does_not_fit_is_refused_by_name(field: str) -> None:
    with pytest.raises(CodecError, match=field):
        Envelope(Kind.UPDATE, **{field: 2**32})
    with pytest.raises(CodecError, match=field):
        Envelope(Kind.UPDATE, **{field: -1})


def test_codecs_codebooks_and_models_are_told_apart() -> None:
    assert codec_hash(Block(8)) == codec_hash(Block(bits=8))
    assert len({codec_hash(codec) for codec in (Identity(), Block(8), Block(4), Block(8, seed=1))}) == 4
    assert config_text(Identity()) == '{"kind":"identity"}'
    assert codebook_epoch(None) == 0 < codebook_epoch(b"") != codebook_epoch(b"a")
    assert Envelope(Kind.HELD).node == SERVER
    one = {"w": np.arange(4, dtype=np.float32), "n": np.array(3)}
    assert digest_of(one) == digest_of({"w": one["w"].astype(">f4"), "n": np.array(3, ">i8")})
    assert digest_of(one) != digest_of({**one, "n": np.array(4)})


# -- updates ---------------------------------------------------------------------------------------------------------


def model(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "w": rng.normal(size=(3, 4)).astype(np.float32),
        "count": np.array(seed),
        "wide": rng.normal(size=5),
        "half": rng.normal(size=2).astype(np.float16),
        "one": np.array(rng.normal(), np.float32),
        "none": np.zeros((0, 2), np.float32),
    }


def test_an_update_leads_from_the_base_to_what_was_trained() -> None:
    base, trained = model(1), model(2)
    update = between(trained, base)
    assert [array.dtype.name for array in update.values()] == ["float32", "int64"] + 4 * ["float32"]
    flat = np.concatenate([update[name].reshape(-1) for name in base if name != "count"])
    after = moved(base, {"count": update["count"]}, flat)
    assert list(after) == list(base)
    for name in base:
        assert (after[name].dtype, after[name].shape) == (base[name].dtype, base[name].shape)
        np.testing.assert_allclose(after[name], trained[name], rtol=2e-3 if name == "half" else 1e-6)
    assert not any(np.shares_memory(after[name], base[name]) for name in base if base[name].size)


@given(st.sets(st.integers(0, 19)))
def test_sparse_and_dense_updates_lead_to_the_same_bits(places: set[int]) -> None:
    base, rng = model(3), np.random.default_rng(len(places))
    indices = np.array(sorted(places), np.int64)
    sparse = Sparse(indices, rng.normal(size=len(indices)).astype(np.float32), 20)
    rest = {"count": base["count"]}
    one, other = moved(base, rest, sparse), moved(base, rest, sparse.dense())
    assert all(one[name].tobytes() == other[name].tobytes() for name in base)
