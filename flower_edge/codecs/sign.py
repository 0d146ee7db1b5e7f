"""`Sign`: one bit per number, and the mean magnitude of all. Biased: made for `ErrorFeedback`, and for kept values.

A number that is zero, or minus zero, counts as positive: signs of a vector that is mostly zero say little, take
`TopK(values=Sign())` for such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import CodecError
from .kernels import kernels
from .layout import Floats, Layout, refuse_non_finite
from .moment import Moment
from .scales import nearest, read_scales, to_float
from .vector_codec import State, VectorCodec

__all__ = ["Sign"]


@dataclass(frozen=True)
class Sign(VectorCodec):
    """Two bytes of scale, then the signs, eight a byte.

    Source: Bernstein et al., signSGD, ICML 2018; with the mean magnitude, Karimireddy et al., ICML 2019.

    >>> codec, layout, at = Sign(), Layout.flat(3), Moment()
    >>> data, _ = codec.pack(np.array([1, -4, 1], np.float32), layout, {}, at)
    >>> data.hex(), codec.unpack(memoryview(data), layout, {}, at)[0]
    ('008002', array([ 2., -2.,  2.], dtype=float32))
    """

    kind: ClassVar[str] = "sign"

    def contraction(self, size: int) -> float | None:
        """1 / size: for any v it is (sum |v|)^2 / (size sum v^2), near 2 / pi if v is normal; the scale has 9 bits."""
        return (1 - 2.0**-18) / max(size, 1)

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """Nothing at all for an empty vector."""
        if not v.size:
            return b"", state
        room = kernels("signs")
        v = np.ascontiguousarray(v)
        mean = room.magnitude_sum(v) / v.size
        if not np.isfinite(mean):
            refuse_non_finite(v, layout)
        out = np.empty(2 + -(-v.size // 8), np.uint8)
        out[:2].view("<u2")[:] = nearest(np.array([mean], np.float32))
        room.pack_signs(v, out[2:])
        return out.tobytes(), state

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Floats, State]:
        """float32, each number the scale or minus the scale."""
        size = layout.size
        expected = 2 + -(-size // 8) if size else 0
        if len(data) != expected:
            raise CodecError(f"{len(data)} bytes for {size} signs and their scale, expected {expected}")
        out = np.empty(size, np.float32)
        if size:
            bits = np.frombuffer(data, np.uint8, offset=2)
            if size % 8 and bits[-1] >> size % 8:
                raise CodecError("bits beyond the last sign; the payload was altered")
            kernels("signs").unpack_signs(bits, to_float(read_scales(data, 1))[0], out)
        return out, state
