"""Blocks of numbers as small whole numbers, each block with one step: q = round(x / step), x ~ q step.

    step   max |x| / levels, rounded up to a 16-bit scale, so that no q lies outside [-levels, levels]
    codes  q + levels in eight bits, or four: element j of a block in the low half of a byte, j + half in the high one

Rounding to the nearest adds 1/2 and cuts off; rounding at random adds a dither of 16 bits instead: word b half + j of a
stream has those of elements j and j + half of block b.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .dither import words

__all__ = ["decode", "encode", "largest_step"]

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]
Steps = npt.NDArray[np.uint16]

#: Elements that are worked on at once, so that what is in between stays in cache.
_CHUNK = 1 << 16
_UNIT = np.float32(2**-16)
#: 2^-126: below, 1 / step would not be finite.
_SMALLEST_STEP = 0x100


def largest_step(bits: int) -> int:
    """The code of the largest step that no code of so many bits makes infinite."""
    return ((256 - bits) << 8) - 1


def encode(v: Floats, bits: int, block: int, key: int | None, steps: Steps, codes: Codes) -> bool:
    """Fill `steps` (codes of scales, one per block) and `codes`; whether all of `v` is finite.

    Args:
        bits: 8 or 4.
        block: a power of two; the last may be shorter.
        key: of the dither; `None` rounds to the nearest.
    """
    whole = v.size // block
    width = block * bits // 8
    rows = max(1, _CHUNK // block)
    for begin in range(0, whole, rows):
        end = min(whole, begin + rows)
        part = v[begin * block : end * block].reshape(-1, block)
        if not _encode(part, bits, key, begin * block // 2, steps[begin:end], codes[begin * width : end * width]):
            return False
    rest = v[whole * block :]
    if not rest.size:
        return True
    last = np.zeros((1, rest.size + rest.size % 2), np.float32)
    last[0, : rest.size] = rest
    filled = np.empty(last.size * bits // 8, np.uint8)
    finite = _encode(last, bits, key, whole * block // 2, steps[whole:], filled)
    codes[whole * width :] = filled[: codes.size - whole * width]
    return finite


def _encode(x: Floats, bits: int, key: int | None, begin: int, steps: Steps, codes: Codes) -> bool:
    """Some blocks [blocks, elements]; `begin`: which word of the stream is the first of theirs."""
    blocks, half = x.shape[0], x.shape[1] // 2
    levels = np.float32(2 ** (bits - 1) - 1)
    t = np.abs(x)
    largest = t.max(axis=1)
    if not np.isfinite(largest).all():
        return False
    up = ((largest / levels).view(np.uint32) + np.uint32(0x7FFF)) >> 15
    up = np.where(up == 0, up, np.clip(up, _SMALLEST_STEP, largest_step(bits)))
    steps[:] = up
    step = (up << 15).view(np.float32)
    inverse = np.divide(np.float32(1), step, out=np.zeros_like(step), where=step > 0)
    np.multiply(x, inverse[:, None], out=t)
    if key is None:
        t += levels + np.float32(0.5)
    else:
        drawn = words(key, begin, blocks * half).reshape(blocks, half)
        for side, cut in ((t[:, :half], drawn & np.uint32(0xFFFF)), (t[:, half:], drawn >> np.uint32(16))):
            dither = cut.view(np.int32).astype(np.float32)  # from int32, as uint32 would go by way of float64
            dither *= _UNIT
            dither += levels
            side += dither
    np.minimum(t, 2 * levels + np.float32(0.5), out=t)
    if bits == 8:
        codes.reshape(x.shape)[:] = t
    else:
        np.copyto(codes.reshape(blocks, half), t[:, half:], casting="unsafe")
        codes <<= 4
        codes.reshape(blocks, half)[:] |= t[:, :half].astype(np.uint8)
    return True


def decode(steps: Floats, codes: Codes, bits: int, block: int, out: Floats) -> None:
    """Fill `out`; lengths are checked by who calls."""
    whole = out.size // block
    width = block * bits // 8
    rows = max(1, _CHUNK // block)
    for begin in range(0, whole, rows):
        end = min(whole, begin + rows)
        part = out[begin * block : end * block].reshape(-1, block)
        _decode(steps[begin:end], codes[begin * width : end * width].reshape(-1, width), bits, part)
    rest = out.size - whole * block
    if rest:
        last = np.empty((1, rest + rest % 2), np.float32)
        filled = np.zeros((1, last.size * bits // 8), np.uint8)
        filled[0, : codes.size - whole * width] = codes[whole * width :]
        _decode(steps[whole:], filled, bits, last)
        out[whole * block :] = last[0, :rest]


def _decode(steps: Floats, codes: Codes, bits: int, out: Floats) -> None:
    levels = np.float32(2 ** (bits - 1) - 1)
    if bits == 8:
        np.subtract(codes, levels, out=out)
    else:
        half = out.shape[1] // 2
        np.subtract(codes & 15, levels, out=out[:, :half])
        np.subtract(codes >> 4, levels, out=out[:, half:])
    out *= steps[:, None]
