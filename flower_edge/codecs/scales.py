"""Scales in 16 bits: a float32 that is never negative, without its sign and its last 15 bits.

    eight bits of exponent, eight of mantissa: neighbours are 2^-8 apart, and the range is float32's own

Beside each block of a quantised vector travels one. How it is rounded is part of what a codec promises: up, where no
value may lie outside; to the nearest, where the error counts; at random, where the mean counts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import CodecError
from .layout import Floats

__all__ = ["LARGEST", "Scales", "nearest", "read_scales", "rounded_at_random", "to_float", "upwards"]

Scales = npt.NDArray[np.uint16]
#: The code of the largest finite scale.
LARGEST = 0xFEFF


def nearest(x: Floats, *, most: int = LARGEST) -> Scales:
    """The nearest scales to float32 [k], none over `most` (a code).

    >>> to_float(nearest(np.array([0, 1, 1.001, 1.003], np.float32)))
    array([0.       , 1.       , 1.       , 1.0039062], dtype=float32)
    """
    bits = x.view(np.uint32)
    return _capped(bits + np.uint32(0x3FFF) + (bits >> np.uint32(15) & np.uint32(1)), most)


def upwards(x: Floats, *, most: int = LARGEST) -> Scales:
    """The nearest scales that are not below float32 [k], none over `most` (a code).

    >>> to_float(upwards(np.array([0, 1, 1.001], np.float32)))
    array([0.       , 1.       , 1.0039062], dtype=float32)
    """
    return _capped(x.view(np.uint32) + np.uint32(0x7FFF), most)


def rounded_at_random(x: Floats, dither: npt.NDArray[np.uint16], *, most: int = LARGEST) -> Scales:
    """One of both neighbours of each float32 [k], so that the mean over `dither` is the number itself.

    >>> x = np.array([1 + 2**-10] * 4, np.float32)  # a quarter of the way
    >>> to_float(rounded_at_random(x, np.array([0, 20000, 40000, 60000], np.uint16)))
    array([1.       , 1.       , 1.       , 1.0039062], dtype=float32)
    """
    return _capped(x.view(np.uint32) + (dither >> np.uint16(1)), most)


def _capped(bits: npt.NDArray[np.uint32], most: int) -> Scales:
    """The upper bits, without those that are cut off."""
    codes: Scales = np.minimum(bits >> np.uint32(15), np.uint32(most)).astype(np.uint16)
    return codes


def to_float(scales: Scales) -> Floats:
    """float32 [k]."""
    return (scales.astype(np.uint32) << 15).view(np.float32)


def read_scales(data: memoryview, count: int, *, most: int = LARGEST) -> Scales:
    """The scales at the beginning of a payload, which is known to be long enough.

    Raises:
        CodecError: a scale over `most`: infinite, not a number, or one that could decode to such.
    """
    scales = np.frombuffer(data, "<u2", count).astype(np.uint16, copy=False)
    if count and int(scales.max()) > most:
        raise CodecError(
            f"a scale of code {int(scales.max()):#x}, expected at most {most:#x}; the payload was altered, or made by "
            "another codec"
        )
    return scales
