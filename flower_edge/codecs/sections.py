"""Byte strings one after the other, each with its length, and lengths as few bytes. Nothing is believed unread.

varint: seven bits a byte, lowest first, the top bit says that more follow (LEB128)
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CodecError

__all__ = ["join", "read_varint", "split", "varint"]


def varint(value: int) -> bytes:
    """A whole number, 0 or more, below 2^63.

    >>> varint(5), varint(300)
    (b'\\x05', b'\\xac\\x02')
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: memoryview, offset: int, *, most: int) -> tuple[int, int]:
    """The number at `offset`, and where it ends.

    Raises:
        CodecError: it is cut off, longer than it need be, or larger than `most`.
    """
    value, shift = 0, 0
    while True:
        if offset >= len(data) or shift > 56:
            raise CodecError(
                f"a length at byte {offset} of {len(data)} is cut off or too long; the payload was altered"
            )
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if not byte & 0x80:
            if byte == 0 and shift > 7:
                raise CodecError("a length is written longer than it need be; the payload was altered")
            break
    if value > most:
        raise CodecError(f"a length of {value}, expected at most {most}; the payload was altered")
    return value, offset


def join(parts: Sequence[bytes]) -> bytes:
    """Sections one after the other; the last takes what is left and has no length.

    >>> join([b"ab", b"c"])
    b'\\x02abc'
    """
    out: list[bytes] = []
    for part in parts[:-1]:
        out += [varint(len(part)), part]
    return b"".join([*out, *parts[-1:]])


def split(data: memoryview, count: int) -> list[memoryview]:
    """Inverse of `join`; nothing is copied.

    Raises:
        CodecError: fewer bytes than the lengths say.
    """
    parts: list[memoryview] = []
    offset = 0
    for _ in range(count - 1):
        length, offset = read_varint(data, offset, most=len(data) - offset)
        if offset + length > len(data):
            raise CodecError(
                f"a section of {length} bytes where {len(data) - offset} are left; the payload was altered"
            )
        parts.append(data[offset : offset + length])
        offset += length
    if count:
        parts.append(data[offset:])
    elif len(data):
        raise CodecError(f"{len(data)} bytes where none were expected; the payload was altered")
    return parts
