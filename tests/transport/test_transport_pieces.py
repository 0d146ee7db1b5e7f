"""Messages to pieces and back, whatever the sizes; anything else is refused without setting memory aside."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.errors import TransportRefused
from flower_edge.transport.pieces import FIRST, MORE, Assembly, piece


def cut(payload: bytes, size: int) -> list[bytes]:
    return [piece(payload, start, size) for start in range(0, max(1, len(payload)), size)]


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 400))
def test_messages_come_out_as_they_went_in_whatever_the_pieces(messages: list[bytes], size: int) -> None:
    assembly = Assembly(300)
    for message in messages:
        *early, last = cut(message, size)
        assert [assembly.take(data) for data in early] == [None] * len(early)
        assert assembly.begun == bool(early)
        assert assembly.take(last) == message
        assert not assembly.begun


@given(st.lists(st.tuples(st.sampled_from([FIRST, MORE]), st.binary(max_size=30)), max_size=10))
def test_any_bytes_are_a_message_or_refused(pieces: list[tuple[int, bytes]]) -> None:
    assembly = Assembly(20)
    for kind, data in pieces:
        try:
            message = assembly.take(bytes([kind]) + data)
        except TransportRefused:
            break
        assert message is None or len(message) <= 20


@pytest.mark.parametrize("announced", [21, 1 << 40, (1 << 64) - 1])
def test_a_length_above_the_limit_is_refused_when_it_is_announced(announced: int) -> None:
    with pytest.raises(TransportRefused, match="Limits") as caught:
        Assembly(20).take(struct.pack(">BQ", FIRST, announced) + b"x")
    assert caught.value.code == "too-large"


def test_an_announcement_alone_sets_no_memory_aside() -> None:
    assembly = Assembly(1 << 40)
    tracemalloc.start()
    try:
        assembly.take(struct.pack(">BQ", FIRST, 1 << 40) + bytes(10_000))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_large_message_is_held_once_not_twice() -> None:
    message = bytes(20_000_000)
    assembly = Assembly(len(message))
    pieces = cut(message, 1 << 20)
    tracemalloc.start()
    try:
        whole = [assembly.take(data) for data in pieces][-1]
        assert tracemalloc.get_traced_memory()[1] < 1.3 * len(message)
    finally:
        tracemalloc.stop()
    assert whole == message


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([b"\x02a"], "no message"),
        ([piece(b"abcd", 0, 2), piece(b"abcd", 0, 2)], "within another"),
        ([b"\x01\0\0"], "without a length"),
        ([piece(b"abcd", 0, 2), b"\x02"], "0 bytes"),
        ([piece(b"abcd", 0, 2), b"\x02cde"], "3 bytes where 1 to 2"),
        ([struct.pack(">BQ", FIRST, 2) + b"abc"], "3 bytes"),
        ([struct.pack(">BQ", FIRST, 2)], "0 bytes"),
    ],
)
def test_pieces_that_do_not_add_up_are_refused(pieces: list[bytes], words: str) -> None:
    assembly = Assembly(20)
    *good, bad = pieces
    for data in good:
        assembly.take(data)
    with pytest.raises(TransportRefused, match=words) as caught:
        assembly.take(bad)
    assert caught.value.code == "bad-piece"
