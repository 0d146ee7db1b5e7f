"""What `reference/blocks.py` does, compiled: each block is read once and stays in the first cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import float32, int32, njit, uint8, uint32

from ..reference.blocks import largest_step
from .dither import word

__all__ = ["decode", "encode", "largest_step"]

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]
Steps = npt.NDArray[np.uint16]


@njit(nogil=True, inline="always")
def _quantised(x: Any, inverse: Any, shift: Any, top: Any) -> Any:
    return uint8(int32(min(float32(x * inverse) + shift, top)))


@njit(nogil=True, inline="always")
def _shift(drawn: Any, levels: Any) -> Any:
    return float32(int32(drawn)) * float32(2**-16) + levels


@njit(cache=True, nogil=True)
def _encode(
    v: Any, raw: Any, bits: Any, block: Any, most: Any, drawing: Any, low: Any, high: Any, steps: Any, codes: Any
) -> Any:
    levels = float32(127.0) if bits == 8 else float32(7.0)
    top, nearest = float32(2.0) * levels + float32(0.5), levels + float32(0.5)
    word_of_bits = np.empty(1, np.uint32)
    number = word_of_bits.view(np.float32)
    for b in range(steps.size):
        begin, end = b * block, min(v.size, b * block + block)
        half = (end - begin + 1) // 2
        largest = uint32(0)  # as whole numbers, magnitudes order as floats do, with what is not finite last
        for i in range(begin, end):
            largest = max(largest, uint32(raw[i] & uint32(0x7FFFFFFF)))
        if largest >= uint32(0x7F800000):
            return False
        word_of_bits[0] = largest
        number[0] = number[0] / levels
        code = uint32(uint32(word_of_bits[0] + uint32(0x7FFF)) >> uint32(15))
        if code:
            code = min(max(code, uint32(0x100)), uint32(most))
        steps[b] = code
        word_of_bits[0] = uint32(code << uint32(15))
        inverse = float32(1.0) / number[0] if code else float32(0.0)

        one, other = v[begin : begin + half], v[begin + half : end]
        counter = uint32(low + uint32(b * (block // 2)))
        pairs = other.size
        if bits == 8:
            left, right = codes[begin : begin + half], codes[begin + half : end]
            if drawing:
                for j in range(pairs):
                    drawn = word(uint32(counter + uint32(j)), high)
                    left[j] = _quantised(one[j], inverse, _shift(drawn & uint32(0xFFFF), levels), top)
                    right[j] = _quantised(other[j], inverse, _shift(drawn >> uint32(16), levels), top)
            else:
                for j in range(pairs):
                    left[j] = _quantised(one[j], inverse, nearest, top)
                    right[j] = _quantised(other[j], inverse, nearest, top)
        else:
            left = codes[begin // 2 : begin // 2 + half]
            if drawing:
                for j in range(pairs):
                    drawn = word(uint32(counter + uint32(j)), high)
                    q = _quantised(one[j], inverse, _shift(drawn & uint32(0xFFFF), levels), top)
                    p = _quantised(other[j], inverse, _shift(drawn >> uint32(16), levels), top)
                    left[j] = q | p << uint8(4)
            else:
                for j in range(pairs):
                    q = _quantised(one[j], inverse, nearest, top)
                    p = _quantised(other[j], inverse, nearest, top)
                    left[j] = q | p << uint8(4)
        if pairs < half:  # the last block has an odd number of elements: the middle one has no partner
            drawn = word(uint32(counter + uint32(pairs)), high)
            shift = _shift(drawn & uint32(0xFFFF), levels) if drawing else nearest
            left[pairs] = _quantised(one[pairs], inverse, shift, top)
            if bits == 4:
                left[pairs] |= uint8(7 << 4)
    return True


def encode(v: Floats, bits: int, block: int, key: int | None, steps: Steps, codes: Codes) -> bool:
    """See `reference.blocks.encode`."""
    low, high = (0, 0) if key is None else (key & 0xFFFFFFFF, key >> 32)
    most, drawing = np.uint32(largest_step(bits)), key is not None
    done = _encode(v, v.view(np.uint32), bits, block, most, drawing, np.uint32(low), np.uint32(high), steps, codes)
    return bool(done)


@njit(cache=True, nogil=True)
def _decode(steps: Any, codes: Any, bits: Any, block: Any, out: Any) -> None:
    for b in range(steps.size):
        begin, end = b * block, min(out.size, b * block + block)
        half, step = (end - begin + 1) // 2, steps[b]
        one, other = out[begin : begin + half], out[begin + half : end]
        if bits == 8:
            given = codes[begin:end]
            whole = out[begin:end]
            for j in range(given.size):
                whole[j] = float32(int32(given[j]) - int32(127)) * step
        else:
            given = codes[begin // 2 : begin // 2 + half]
            for j in range(other.size):
                one[j] = float32(int32(given[j] & uint8(15)) - int32(7)) * step
                other[j] = float32(int32(given[j] >> uint8(4)) - int32(7)) * step
            if other.size < half:
                one[half - 1] = float32(int32(given[half - 1] & uint8(15)) - int32(7)) * step


def decode(steps: Floats, codes: Codes, bits: int, block: int, out: Floats) -> None:
    """See `reference.blocks.decode`."""
    _decode(steps, codes, bits, block, out)
