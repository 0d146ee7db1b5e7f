"""`Log4`: four bits per value: zero, or a sign and one of seven sizes on a logarithmic scale. For kept values of top-k.

    sizes[0] = the largest value, sizes[i] = sizes[i - 1] * ratio, down to the smallest or a 128th of the largest

A value becomes the nearest of the fifteen. Nothing is drawn, and nothing is centred: a dense vector of normal values is
coded better by `Block(4)`. The name in tables is log-q4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import CodecError
from .layout import Floats, Layout, refuse_non_finite
from .moment import Moment
from .vector_codec import State, VectorCodec

__all__ = ["Log4"]

_SIZES = 7
_SPAN = 128.0


@dataclass(frozen=True)
class Log4(VectorCodec):
    """Four bits per value: eight bytes of scale, then two values a byte, the first in the low half.

    >>> codec, layout, at = Log4(), Layout.flat(3), Moment()
    >>> data, _ = codec.pack(np.array([64, -1, 0], np.float32), layout, {}, at)
    >>> len(data), codec.unpack(memoryview(data), layout, {}, at)[0]
    (10, array([64., -1.,  0.], dtype=float32))
    """

    kind: ClassVar[str] = "log4"

    def contraction(self, size: int) -> float | None:
        """The largest value comes back as it is, and no other further off than zero would be."""
        return 1.0 / max(size, 1)

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """Scale and halves of bytes; nothing at all for an empty vector."""
        refuse_non_finite(v, layout)
        if not v.size:
            return b"", state
        size = np.abs(v)
        largest = np.float32(size.max())
        smallest = max(float(size[size > 0].min(initial=largest)), float(largest) / _SPAN)
        ratio = np.float32((smallest / float(largest)) ** (1 / (_SIZES - 1)) if largest else 1.0)
        sizes = _sizes(largest, ratio)  # falling
        levels = np.concatenate([[np.float32(0)], sizes[::-1]]).astype(np.float64)
        rising = np.searchsorted((levels[1:] + levels[:-1]) / 2, size, side="right")  # 0 is zero, 7 the largest
        code = np.where(rising == 0, 0, _SIZES + 1 - rising + 8 * (v < 0)).astype(np.uint8)
        code = np.append(code, np.uint8(0)) if code.size % 2 else code
        return np.array([largest, ratio], "<f4").tobytes() + (code[0::2] | code[1::2] << 4).tobytes(), state

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Floats, State]:
        """float32, the nearest of fifteen values each."""
        expected = 8 + math.ceil(layout.size / 2) if layout.size else 0
        if len(data) != expected:
            raise CodecError(f"{len(data)} bytes for {layout.size} values of 4 bits, expected {expected}")
        if not layout.size:
            return np.zeros(0, np.float32), state
        largest, ratio = np.frombuffer(data, "<f4", 2)
        if not (np.isfinite(largest) and largest >= 0 and 0 < ratio <= 1):
            raise CodecError(f"scale {largest} and ratio {ratio}: expected finite, 0 or more, and in (0, 1]")
        pairs = np.frombuffer(data, np.uint8, offset=8)
        code = np.empty(2 * pairs.size, np.uint8)
        code[0::2], code[1::2] = pairs & 15, pairs >> 4
        if code[layout.size :].any() or (code == 8).any():
            raise CodecError("a value without size, or bits beyond the last one; the payload was altered")
        sizes = _sizes(np.float32(largest), np.float32(ratio))
        zero = np.zeros(1, np.float32)
        table = np.concatenate([zero, sizes, zero, -sizes])
        return table[code[: layout.size]], state


def _sizes(largest: np.float32, ratio: np.float32) -> Floats:
    """By repeated multiplication: the same on every machine."""
    sizes = np.empty(_SIZES, np.float32)
    for i in range(_SIZES):
        sizes[i] = largest
        largest = np.float32(largest * ratio)
    return sizes
