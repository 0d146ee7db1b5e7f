"""`Half`: 16 bits per number, as fp16 (more digits, range to 65,504) or bf16 (fewer digits, float32's whole range).

Each number is rounded to the nearest, ties to even; nothing is scaled, drawn or shared. What is beyond the range
becomes the largest number there is, never an infinity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..errors import CodecError
from .layout import Floats, Layout, refuse_non_finite
from .moment import Moment
from .vector_codec import State, VectorCodec

__all__ = ["Half"]

_LARGEST_FP16 = np.float32(65504)
#: Numbers that are worked on at once, so that what is in between stays in cache.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Half(VectorCodec):
    """Half precision.

    Attributes:
        format: "fp16": 11 significant bits from 6e-5 to 65,504, fewer down to 6e-8, zero below. "bf16": 8 significant
            bits, from 1e-38 to 3e38.

    >>> codec, layout, at = Half("fp16"), Layout.flat(3), Moment()
    >>> data, _ = codec.pack(np.array([1, 2.0001, -1e6], np.float32), layout, {}, at)
    >>> data.hex(), codec.unpack(memoryview(data), layout, {}, at)[0].tolist()
    ('003c0040fffb', [1.0, 2.0, -65504.0])
    """

    kind: ClassVar[str] = "half"

    format: Literal["fp16", "bf16"] = "fp16"

    def __post_init__(self) -> None:
        """Refuse other formats."""
        if self.format not in ("fp16", "bf16"):
            raise CodecError(f"format = {self.format!r}: expected 'fp16' or 'bf16'")

    def contraction(self, size: int) -> float | None:
        """bf16: no number is off by more than 2^-8 of itself. fp16: none, as small numbers vanish."""
        return 1 - 2.0**-16 if self.format == "bf16" else None

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """Two bytes per number, little-endian."""
        refuse_non_finite(v, layout)
        out = np.empty(v.size, "<u2")
        for begin in range(0, v.size, _CHUNK):
            part, to = v[begin : begin + _CHUNK], out[begin : begin + _CHUNK]
            if self.format == "fp16":
                to[:] = np.clip(part, -_LARGEST_FP16, _LARGEST_FP16).astype("<f2").view("<u2")
            else:
                bits = np.ascontiguousarray(part).view(np.uint32)
                up = bits + np.uint32(0x7FFF)
                up += bits >> np.uint32(16) & np.uint32(1)
                up >>= np.uint32(16)
                up -= (up & np.uint32(0x7FFF)) == np.uint32(0x7F80)  # beyond the range
                to[:] = up
        return out.tobytes(), state

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Floats, State]:
        """float32; every such number is one exactly."""
        if len(data) != 2 * layout.size:
            raise CodecError(f"{len(data)} bytes for {layout.size} values of 16 bits, expected {2 * layout.size}")
        given = np.frombuffer(data, "<u2")
        out = np.empty(layout.size, np.float32)
        for begin in range(0, layout.size, _CHUNK):
            part, to = given[begin : begin + _CHUNK], out[begin : begin + _CHUNK]
            if self.format == "fp16":
                to[:] = part.view("<f2")
            else:
                np.left_shift(part, np.uint32(16), out=to.view(np.uint32), dtype=np.uint32)
        refuse_non_finite(out, layout)
        return out, state
