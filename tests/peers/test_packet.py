"""A packet's bytes: the same packet, or refused with a reason."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import PeerError, WireError
from flower_edge.peers.packet import Packet, read_header

PACKETS = st.builds(
    Packet,
    round=st.integers(0, 2**63 - 1),
    sender=st.integers(0, 2**32 - 1),
    sequence=st.integers(0, 2**32 - 1),
    codec=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=64),
    payload=st.binary(max_size=300),
)
GOOD = Packet(3, 7, 1, "identity", bytes(range(40)))


def resealed(data: bytes) -> bytes:
    """The same bytes with a check sum that fits: made on purpose, not torn."""
    return data[:4] + zlib.crc32(data[8:]).to_bytes(4, "little") + data[8:]


@settings(max_examples=60)
@given(PACKETS)
def test_any_packet_comes_back_from_its_bytes(packet: Packet) -> None:
    data = packet.to_bytes()
    assert Packet.from_bytes(data) == Packet.from_bytes(memoryview(bytearray(data))) == packet
    assert read_header(data).payload_bytes == len(packet.payload)


def test_golden_bytes() -> None:
    assert Packet(1, 2, 3, "id", b"\xff").to_bytes().hex() == (
        "4645504b" + "a1efbf00" + "0100" + "0200" + "0100000000000000" + "02000000" + "03000000"
        "0100000000000000" + "6964" + "ff"
    )


def test_every_single_bit_that_is_turned_over_is_noticed() -> None:
    data = GOOD.to_bytes()
    for bit in range(8 * len(data)):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            Packet.from_bytes(bytes(bad))


def test_every_place_at_which_it_can_be_cut_is_noticed() -> None:
    data = GOOD.to_bytes()
    for length in range(len(data)):
        with pytest.raises(WireError):
            Packet.from_bytes(data[:length])


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_bytes_that_are_no_packet(data: bytes) -> None:
    with pytest.raises(WireError):
        Packet.from_bytes(data)
    with pytest.raises(WireError):
        Packet.from_bytes(b"FEPK" + data)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, b"PK\x03\x04", "begin with b'PK"),
        (8, b"\x02", "version 2, this side reads 1; install the same flower-edge"),
        (28, b"\xff\xff\xff\xff\xff\xff\xff\x7f", "announces"),
        (10, b"\xff\xff", "announces"),
        (19, b"\x80", "round 9223372036854775811"),
        (36, b"\xc3", "made by something that is not flower-edge"),
        (36, b"\n", "made by something that is not flower-edge"),
    ],
)
def test_a_header_made_on_purpose_is_refused_with_what_is_wrong(place: int, value: bytes, words: str) -> None:
    data = GOOD.to_bytes()
    bad = data[:place] + value + data[place + len(value) :]
    with pytest.raises(WireError, match=words):
        Packet.from_bytes(resealed(bad) if place else bad)


@pytest.mark.parametrize(
    ("field", "value"),
    [("round", -1), ("round", 2**63), ("sender", 2**32), ("sender", True), ("sequence", -1), ("sequence", 1.0)],
)
def test_a_number_that_does_not_fit_is_refused_by_name(field: str, value: object) -> None:
    fields = {"round": 1, "sender": 2, "sequence": 3, "codec": "identity", "payload": b"", field: value}
    with pytest.raises(PeerError, match=f"{field} = "):
        Packet(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("codec", ["ä", "a\n", "x" * 65])
def test_a_codec_text_that_is_not_short_and_plain_is_refused(codec: str) -> None:
    with pytest.raises(PeerError, match=r"take label\(codec\)"):
        Packet(1, 2, 3, codec, b"")


@pytest.mark.parametrize(
    ("codec", "payload", "words"),
    [(5, b"", "expected text"), ("identity", "text", "payload of a packet is str"), ("x", bytearray(), "is bytearray")],
)
def test_a_packet_of_anything_but_text_and_bytes_is_refused_when_it_is_made(
    codec: object, payload: object, words: str
) -> None:
    with pytest.raises(PeerError, match=words):
        Packet(1, 2, 3, codec, payload)  # type: ignore[arg-type]
