"""What `reference/hadamard.py` does, compiled: a tile at a time, in cache from its first number to its codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import float32, int32, njit, uint8, uint16, uint32

from .butterflies import (
    coded_full,
    expanded_full,
    first_full,
    gather,
    last_full,
    pitch_of,
    spread,
    transform_down,
    transform_up,
)
from .dither import word
from .intrinsics import will_read, will_write

__all__ = ["code", "decode"]

#: How many bytes before they are needed lines of cache are asked for: those to write, and those of the next tile.
_AHEAD, _NEXT = 4096, 4 * 4096 * 16

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint16]


@njit(cache=True, nogil=True)
def _draw(low: Any, high: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] = word(uint32(low + uint32(i)), high)


@njit(cache=True, nogil=True)
def _times(x: Any, lanes: Any, unit: Any, z: Any) -> None:
    for j in range(16):
        for w in range(lanes):
            z[j * lanes + w] = x[j * lanes + w] * unit[w]


@njit(cache=True, nogil=True)
def _folded(z: Any) -> None:
    """Add the second half to the first."""
    half = z.size // 2
    one, other = z[:half], z[half:]
    for i in range(half):
        one[i] += other[i]


@njit(cache=True, nogil=True)
def _squares(z: Any, lanes: Any, room: Any, sums: Any) -> None:
    """Sum of squares of sixteen rows per lane."""
    half = 8 * lanes
    one, other = z[:half], z[half : 2 * half]
    for i in range(half):
        room[i] = one[i] * one[i] + other[i] * other[i]
    _folded(room[:half])
    _folded(room[: half // 2])
    _folded(room[: half // 4])
    for i in range(lanes):
        sums[i] = room[i]


@njit(cache=True, nogil=True)
def _tree(sums: Any, lanes: Any) -> None:
    """Sums over rows, into the first."""
    count = sums.size
    while count > lanes:
        _folded(sums[:count])
        count //= 2


@njit(cache=True, nogil=True)
def _magnitudes(z: Any, first: Any, sums: Any) -> None:
    if first:
        for i in range(z.size):
            sums[i] = abs(z[i])
    else:
        for i in range(z.size):
            sums[i] += abs(z[i])


@njit(cache=True, nogil=True)
def _nearest(z: Any, rms: Any, levels: Any, cuts: Any, index: Any) -> None:
    """Which level each magnitude is nearest to."""
    index[:] = uint8(0)
    for k in range(cuts.size):
        cut = cuts[k]
        for i in range(z.size):
            index[i] += uint8(abs(z[i]) > float32(cut * rms[i]))


@njit(cache=True, nogil=True)
def _plane(index: Any, bit: Any, j: Any, words: Any) -> None:
    """One bit of each index, into bit j of the words."""
    if j == 0:
        words[:] = uint16(0)
    for i in range(index.size):
        words[i] |= uint16(uint16((index[i] >> uint8(bit)) & uint8(1)) << uint16(j))


@njit(cache=True, nogil=True)
def _products(z: Any, index: Any, levels: Any, first: Any, dots: Any, norms: Any) -> None:
    if first:
        dots[:], norms[:] = float32(0), float32(0)
    for i in range(z.size):
        level = levels[index[i]]
        dots[i] += abs(z[i]) * level
        norms[i] += level * level


@njit(cache=True, nogil=True)
def _code(
    x: Any,
    raw: Any,
    rows: Any,
    lanes: Any,
    levels: Any,
    cuts: Any,
    low: Any,
    high: Any,
    out: Any,
    sums: Any,
    pitch: Any,
) -> Any:
    part = rows // 16 * lanes  # numbers in each of sixteen parts
    z, small, acc = np.empty(16 * pitch, np.float32), np.empty(8 * lanes, np.float32), np.empty(part, np.float32)
    unit, exponent = np.empty(lanes, np.float32), np.empty(1, np.uint32)
    drawn = np.empty(part, np.uint32)
    more = part if cuts.size else lanes  # what only codes of several bits need
    dots, norms = np.empty((8, part), np.float32), np.zeros((8, more), np.float32)
    index, rms = np.empty(more, np.uint8), np.empty(more, np.float32)
    place = x.ctypes.data
    for tile in range(out.shape[0]):
        begin = tile * rows * lanes
        largest = uint32(0)
        for i in range(begin, begin + rows * lanes):
            largest = max(largest, uint32(raw[i] & uint32(0x7FFFFFFF)))
        if largest >= uint32(0x7F800000):
            return False
        highest = min(uint32(largest >> uint32(23)), uint32(253))
        exponent[0] = uint32(uint32(uint32(254) - highest) << uint32(23))
        unit[:] = exponent.view(np.float32)[0] * float32(0.25)

        _draw(uint32(low + uint32(begin // 16)), high, drawn)
        for group in range(rows // 16):
            given = x[begin + group * 16 * lanes : begin + (group + 1) * 16 * lanes]
            at = group * 16 * lanes
            at += at // part * (pitch - part)
            some = z[at : at + 16 * lanes]
            bits, sum_of_squares = drawn[group * lanes : (group + 1) * lanes], acc[group * lanes : (group + 1) * lanes]
            if pitch != part:
                for line in range(16):
                    will_read(place + 4 * (begin + group * 256) + _NEXT + 64 * line)
                first_full(given, unit, bits, some, sum_of_squares)
            else:
                _times(given, lanes, unit, some)
                _squares(some, lanes, small, sum_of_squares)
                spread(some, lanes, bits)
        _tree(acc, lanes)
        for w in range(lanes):
            sums[tile, 0, w] = acc[w] * float32(16)
            sums[tile, 3, w] = float32(1.0) / exponent.view(np.float32)[0]

        words, planes = out[tile, 0], out.shape[1]
        fused = pitch != part and planes == 1
        transform_up(z, rows, lanes, not fused)
        if fused:
            coded_full(z, words, dots[0])
            _tree(dots[0], lanes)
        else:
            words[:] = uint16(0)
        for w in range(lanes if planes > 1 else 0):
            rms[w::lanes] = np.sqrt(sums[tile, 0, w])
        for j in range(0 if fused else 16):
            some, product, square = z[j * pitch : j * pitch + part], dots[j % 8], norms[j % 8]
            for i in range(part):
                words[i] |= uint16(uint16(some[i] < 0) << uint16(j))
            if planes == 1:
                _magnitudes(some, j < 8, product)
            else:
                _nearest(some, rms, levels, cuts, index)
                for k in range(1, planes):
                    _plane(index, k - 1, j, out[tile, k])
                _products(some, index, levels, j < 8, product, square)
        if not fused:
            _tree(dots.reshape(-1), lanes)
            _tree(norms.reshape(-1), lanes)
        for w in range(lanes):
            sums[tile, 1, w] = dots[0, w]
            sums[tile, 2, w] = norms[0, w] if planes > 1 else float32(rows)
    return True


def code(x: Floats, levels: Floats, cuts: Floats, key: int, begin: int, out: Words, sums: Floats) -> bool:
    """See `reference.hadamard.code`."""
    tiles, rows, lanes = x.shape
    flat = np.ascontiguousarray(x).reshape(-1)
    words, pitch = out.reshape(tiles, out.shape[1], -1), pitch_of(rows, lanes)
    low, high = np.uint32((key + begin) & 0xFFFFFFFF), np.uint32(key >> 32)
    return bool(_code(flat, flat.view(np.uint32), rows, lanes, levels, cuts, low, high, words, sums, pitch))


@njit(cache=True, nogil=True)
def _expanded(given: Any, j: Any, levels: Any, z: Any) -> None:
    """One of sixteen parts: from words to levels."""
    if levels.size == 1:
        level, words = levels[0], given[0]
        for i in range(z.size):
            z[i] = level if (words[i] >> uint16(j)) & uint16(1) == uint16(0) else -level
    else:
        for i in range(z.size):
            index = 0
            for k in range(1, given.shape[0]):
                index |= int32((given[k, i] >> uint16(j)) & uint16(1)) << (k - 1)
            z[i] = levels[index] if (given[0, i] >> uint16(j)) & uint16(1) == uint16(0) else -levels[index]


@njit(cache=True, nogil=True)
def _decode(given: Any, levels: Any, scales: Any, rows: Any, pitch: Any, low: Any, high: Any, out: Any) -> None:
    lanes, part = scales.shape[1], rows // 16 * scales.shape[1]
    z, drawn = np.empty(16 * pitch, np.float32), np.empty(part, np.uint32)
    quarter, place = scales * float32(0.25), out.ctypes.data
    for tile in range(scales.shape[0]):
        fused = pitch != part and levels.size == 1
        if fused:
            expanded_full(given[tile, 0], z)
        for j in range(0 if fused else 16):
            _expanded(given[tile], j, levels, z[j * pitch : j * pitch + part])
        transform_down(z, rows, lanes, not fused)
        begin = tile * rows * lanes
        _draw(uint32(low + uint32(begin // 16)), high, drawn)
        for group in range(rows // 16):
            at = group * 16 * lanes
            to = out[begin + at : begin + at + 16 * lanes]
            at += at // part * (pitch - part)
            some, bits = z[at : at + 16 * lanes], drawn[group * lanes : (group + 1) * lanes]
            if pitch != part:
                for line in range(16):
                    will_write(place + 4 * (begin + group * 256) + _AHEAD + 64 * line)
                last_full(some, quarter[tile], bits, to)
            else:
                gather(some, lanes, bits)
                _times(some, lanes, quarter[tile], to)


def decode(given: Words, levels: Floats, scales: Floats, key: int, begin: int, out: Floats) -> None:
    """See `reference.hadamard.decode`."""
    tiles, rows, lanes = out.shape
    low, high = np.uint32((key + begin) & 0xFFFFFFFF), np.uint32(key >> 32)
    words = given.reshape(tiles, given.shape[1], -1)
    _decode(words, levels, scales, rows, pitch_of(rows, lanes), low, high, out.reshape(-1))
