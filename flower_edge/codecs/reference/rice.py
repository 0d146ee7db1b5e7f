"""Sorted places as Rice codes of the gaps between them: low digits first, then all that is above them in unary.

    gap    how many places are left out before a place
    low    how many digits of each gap are written as they are; a gap's other digits are that many zeros and a one

Bits are little-endian within a byte. Source: Rice, Plaunt, "Adaptive variable-length coding", IEEE Trans. Comm. 19(6),
1971, with the two kinds of bits apart, as Elias (1974) and Fano (1971) do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_LOW", "Bytes", "Places", "pack", "price", "unpack"]

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]

#: `low` takes five bits of a header.
MOST_LOW = 31


def price(places: Places) -> tuple[int, int]:
    """The best `low` near what a geometric distribution asks for, and how many bits that takes in all."""
    if not places.size:
        return 0, 0
    gaps = _gaps(places)
    near = (int(gaps.sum()) // gaps.size).bit_length()
    lows = range(max(near - 2, 0), min(near, MOST_LOW) + 1)
    bits, low = min((gaps.size * (low + 1) + int((gaps >> low).sum()), low) for low in lows)
    return low, bits


def pack(places: Places, low: int, bits: int) -> Bytes:
    """The codes, in as many whole bytes as `bits` need."""
    gaps = _gaps(places)
    out = np.zeros(bits, np.uint8)
    digits = out[: gaps.size * low].reshape(gaps.size, low)
    for digit in range(low):
        digits[:, digit] = gaps >> digit & 1
    out[gaps.size * low + np.cumsum((gaps >> low) + 1) - 1] = 1
    return np.packbits(out, bitorder="little")


def unpack(data: Bytes, count: int, low: int, size: int) -> tuple[Places, int]:
    """`count` places below `size`, and how many bytes they took; -1 where these are no such codes."""
    if count * (low + 1) > 8 * data.size:  # each place takes one bit more than its digits, at least
        return np.empty(0, np.int64), -1
    # No more bits are looked at than the largest gaps that fit could take.
    most = min(8 * data.size, count * (low + 1) + (size >> low))
    bits = np.unpackbits(data[: (most + 7) // 8], bitorder="little")
    stops = np.flatnonzero(bits[count * low : most])[:count].copy()
    if stops.size < count:
        return np.empty(0, np.int64), -1
    end = count * low + (int(stops[-1]) + 1 if count else 0)
    digits = bits[: count * low].reshape(count, low)
    lows = np.zeros(count, np.uint32)
    for digit in range(low):
        lows |= digits[:, digit].astype(np.uint32) << np.uint32(digit)
    # A stop lies behind as many zeros as the gaps until then are high, and as many stops as there are places before.
    places = stops
    places -= np.arange(count)
    places <<= low
    places += np.cumsum(lows, dtype=np.int64)
    places += np.arange(count)
    if bits[end : (end + 7) // 8 * 8].any() or (count and int(places[-1]) >= size):
        return np.empty(0, np.int64), -1
    return places, (end + 7) // 8


def _gaps(places: Places) -> Places:
    return np.diff(places, prepend=-1) - 1
