"""A codec as a user would write one: that of docs/howto_codec.md, word for word; `test_own_codec` compares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flower_edge.codecs import Layout, Moment, VectorCodec, register
from flower_edge.codecs.layout import refuse_non_finite
from flower_edge.errors import CodecError


@register
@dataclass(frozen=True)
class Ternary(VectorCodec):
    """Two bits a number: -s, 0 or s, with s the mean size of the numbers that are not taken for 0.

    Source: Li, Zhang, Liu, "Ternary weight networks", 2016, where the threshold is 0.7.

    Attributes:
        threshold: numbers smaller than this part of the mean size are taken for 0.
    """

    kind: ClassVar[str] = "my-ternary"

    threshold: float = 0.7

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold < 1.0:
            raise CodecError(f"threshold = {self.threshold}: expected 0.0 to below 1.0")

    def pack(self, v, layout: Layout, state, at: Moment):
        refuse_non_finite(v, layout)
        size = np.abs(v).astype(np.float64)
        kept = size > self.threshold * (size.mean() if v.size else 0.0)
        s = size[kept].mean() if kept.any() else 0.0
        codes = np.zeros(-(-v.size // 4) * 4, np.uint8)
        codes[: v.size] = np.where(kept, np.where(v > 0, 1, 2), 0)
        quads = codes.reshape(-1, 4) << np.array([0, 2, 4, 6], np.uint8)
        return np.array(s, "<f4").tobytes() + np.bitwise_or.reduce(quads, axis=1).tobytes(), state

    def unpack(self, data: memoryview, layout: Layout, state, at: Moment):
        if len(data) != 4 + -(-layout.size // 4):
            raise CodecError(
                f"{len(data)} bytes for {layout.size} numbers of 2 bits, expected {4 + -(-layout.size // 4)}"
            )
        s = np.frombuffer(data[:4], "<f4")[0]
        codes = np.frombuffer(data[4:], np.uint8)[:, None] >> np.array([0, 2, 4, 6], np.uint8) & 3
        codes = codes.reshape(-1)
        if not (np.isfinite(s) and s >= 0.0) or (codes == 3).any() or codes[layout.size :].any():
            raise CodecError("these bytes are no ternary vector: encode with the same codec and version")
        return np.array([0.0, s, -s, 0.0], np.float32)[codes[: layout.size]], state
