"""What a codec's teacher makes public before a step, as bytes: a leader's places, a codebook. Nothing here learns.

Places are gaps, deflated; a codebook's bytes are its codec's affair. Made by the server, and still believed only as far
as it was checked: what it says allocates no more than the model's own size.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from ..codecs.sections import join, split
from ..codecs.teacher import Told
from ..errors import CodecError

__all__ = ["read_told", "told_bytes"]

_WIDTHS: dict[int, np.dtype[Any]] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}


def told_bytes(told: Told) -> bytes:
    """What is told, empty where it is nothing.

    >>> read_told(told_bytes(Told(np.array([3, 4, 9]), b"codes")), size=10)
    Told(leader=array([3, 4, 9]), codebook=b'codes')
    >>> told_bytes(Told())
    b''
    """
    if told.leader is None and told.codebook is None:
        return b""
    places = b""
    if told.leader is not None:
        gaps = np.diff(told.leader, prepend=-1) - 1
        width = next(width for width in _WIDTHS if int(gaps.max(initial=0)) < 1 << 8 * width)
        places = bytes([width]) + zlib.compress(gaps.astype(_WIDTHS[width]).tobytes(), 9)
    book = b"" if told.codebook is None else b"\x01" + told.codebook
    return join([places, book])


def read_told(data: bytes, size: int) -> Told:
    """Inverse of `told_bytes`, for vectors of that size.

    Raises:
        CodecError: places that are none of such a vector, or bytes that are not told so.
    """
    if not data:
        return Told()
    places, book = split(memoryview(data), 2)
    if len(book) and book[0] != 1:
        raise CodecError("a codebook without its mark; install the same flower-edge version on both sides")
    leader = None
    if len(places):
        width = _WIDTHS.get(places[0])
        if width is None:
            raise CodecError(f"gaps of {places[0]} bytes: expected 1, 2, 4 or 8; the message was altered")
        inflate = zlib.decompressobj()
        try:
            raw = inflate.decompress(bytes(places[1:]), size * width.itemsize + 1)
        except zlib.error as error:
            raise CodecError(f"places that cannot be inflated: {error}") from None
        if not inflate.eof or inflate.unused_data or len(raw) % width.itemsize:
            raise CodecError(f"{len(raw)} bytes of places for a vector of {size}; the message was altered")
        gaps = np.frombuffer(raw, width)
        if (gaps >= size).any() and gaps.size:
            raise CodecError(f"a place beyond a vector of {size}; the message was altered")
        leader = np.cumsum(gaps.astype(np.int64) + 1) - 1
        if leader.size and leader[-1] >= size:
            raise CodecError(f"place {leader[-1]} of a vector of {size}; the message was altered")
    return Told(leader, bytes(book[1:]) if len(book) else None)
