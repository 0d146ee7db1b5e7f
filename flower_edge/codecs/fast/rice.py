"""What `reference/rice.py` does, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ..reference.rice import MOST_LOW, Bytes, Places

__all__ = ["pack", "price", "unpack"]


@njit(cache=True, nogil=True)
def _unary(places: Any, low: int) -> Any:
    total, before = np.int64(0), np.int64(-1)
    for place in places:
        total += (place - before - 1) >> low
        before = place
    return total


@njit(cache=True, nogil=True)
def _pack(places: Any, low: int, out: Any) -> None:
    at, held, kept, before = 0, np.uint64(0), 0, -1
    mask = (1 << low) - 1
    for place in places:
        held |= np.uint64((place - before - 1) & mask) << np.uint64(kept)
        kept += low
        before = place
        while kept >= 8:
            out[at] = held & np.uint64(255)
            held >>= np.uint64(8)
            kept -= 8
            at += 1
    bit, before = at * 8 + kept, -1
    if kept:
        out[at] = held & np.uint64(255)
    for place in places:
        bit += (place - before - 1) >> low
        out[bit >> 3] |= np.uint8(1 << (bit & 7))
        bit += 1
        before = place


@njit(cache=True, nogil=True)
def _unpack(data: Any, low: int, size: int, places: Any) -> Any:
    count, end = places.size, data.size * 8
    stop, bit, place = count * low, 0, np.int64(-1)
    mask = (1 << low) - 1
    if stop > end:
        return -1
    for i in range(count):
        high = 0
        while True:
            if stop >= end or (high << low) >= size:
                return -1
            if (data[stop >> 3] >> (stop & 7)) & 1:
                break
            high += 1
            stop += 1
        stop += 1
        digits, have = np.int64(0), -(bit & 7)
        byte = bit >> 3
        while have < low:
            part = np.int64(data[byte])
            digits |= (part << have) if have >= 0 else (part >> -have)
            have += 8
            byte += 1
        bit += low
        place += ((high << low) | (digits & mask)) + 1
        if place >= size:
            return -1
        places[i] = place
    if stop & 7 and data[stop >> 3] >> (stop & 7):
        return -1
    return (stop + 7) >> 3


def price(places: Places) -> tuple[int, int]:
    """See `reference.rice.price`."""
    count = int(places.size)
    if not count:
        return 0, 0
    near = ((int(places[-1]) + 1 - count) // count).bit_length()
    lows = range(max(near - 2, 0), min(near, MOST_LOW) + 1)
    bits, low = min((count * (low + 1) + int(_unary(places, low)), low) for low in lows)
    return low, bits


def pack(places: Places, low: int, bits: int) -> Bytes:
    """See `reference.rice.pack`."""
    out = np.zeros((bits + 7) // 8, np.uint8)
    _pack(places, low, out)
    return out


def unpack(data: Bytes, count: int, low: int, size: int) -> tuple[Places, int]:
    """See `reference.rice.unpack`."""
    if count * (low + 1) > 8 * data.size:  # each place takes one bit more than its digits, at least
        return np.empty(0, np.int64), -1
    places = np.empty(count, np.int64)
    end = int(_unpack(data, low, size, places))
    return (places, end) if end >= 0 else (np.empty(0, np.int64), -1)
