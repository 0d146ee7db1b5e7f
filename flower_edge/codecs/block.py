"""`Block`: 8 or 4 bits per number, each block of numbers with a step of its own.

    block of 256 numbers -> step = max |x| / levels in 16 bits, and whole numbers in [-levels, levels]
    levels: 127 of 8 bits, 7 of 4

Rounded at random it is unbiased: the mean over nodes and rounds is right, each single message is noisier. Rounded to
the nearest it is contractive, for `ErrorFeedback`. Nothing is entropy coded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import CodecError
from .draws import key_of
from .kernels import kernels
from .layout import Floats, Layout, refuse_non_finite
from .moment import Moment
from .nested import check_number
from .scales import read_scales, to_float
from .vector_codec import State, VectorCodec

__all__ = ["Block"]

_BLOCKS = tuple(2**n for n in range(4, 17))


@dataclass(frozen=True)
class Block(VectorCodec):
    """Whole numbers of a few bits, with a step per block.

    Attributes:
        bits: 8 or 4 per number.
        block: numbers that share a step, a power of two from 16 to 65,536. Smaller follows the vector closer and costs
            more: 16 bits per block.
        stochastic: round at random, so that the mean is right; else to the nearest.
        seed: of the rounding, with round and node.

    Source: QSGD, Alistarh et al., NeurIPS 2017, with the largest magnitude in place of the norm, per block.

    >>> codec, layout, at = Block(bits=8, stochastic=False), Layout.flat(4), Moment()
    >>> data, _ = codec.pack(np.array([127, -126.6, 3.2, 0], np.float32), layout, {}, at)
    >>> len(data), codec.unpack(memoryview(data), layout, {}, at)[0]
    (6, array([ 127., -127.,    3.,    0.], dtype=float32))
    """

    kind: ClassVar[str] = "block"

    bits: int = 8
    block: int = 256
    stochastic: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what there is no kernel for."""
        if self.bits not in (4, 8) or isinstance(self.bits, float):
            raise CodecError(f"bits = {self.bits!r}: expected 8 or 4; for fewer take Eden(bits=2)")
        if self.block not in _BLOCKS or isinstance(self.block, float):
            raise CodecError(f"block = {self.block!r}: expected a power of two from 16 to 65536, such as 256")
        if not isinstance(self.stochastic, bool):
            raise CodecError(f"stochastic = {self.stochastic!r}: expected True or False")
        check_number(self.seed, "seed", 0, 2**63 - 1, whole=True)

    @property
    def unbiased(self) -> bool:
        """If rounded at random: to 2^-17 of a step."""
        return self.stochastic

    def contraction(self, size: int) -> float | None:
        """If rounded to the nearest: a^2 / (a^2 + n / 4), a the largest whole number of a block, n its length.

        No number loses more than half a step, nor more than itself: what is left of n numbers is at most n / 4 squared
        steps, that largest one among them, and a block in which all others lose all they have is the worst there is.
        """
        if self.stochastic:
            return None
        a = (127.0 if self.bits == 8 else 7.0) / (1 + 2.0**-8) - 1e-3  # the step was rounded up by 2^-8 at most
        others = max(min(self.block, size) - 1, 0)
        return (a * a - 0.25) / (a * a + others / 4)

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """Steps (16 bits each), then codes."""
        blocks = -(-v.size // self.block)
        out = np.empty(self._length(v.size), np.uint8)
        steps = np.empty(blocks, np.uint16)
        key = key_of(at.seeds(self.seed)) if self.stochastic else None
        v = np.ascontiguousarray(v)
        if not kernels("blocks").encode(v, self.bits, self.block, key, steps, out[2 * blocks :]):
            refuse_non_finite(v, layout)
        out[: 2 * blocks].view("<u2")[:] = steps
        return out.tobytes(), state

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Floats, State]:
        """float32; whatever the codes are, no further out than the steps say."""
        room = kernels("blocks")
        blocks, expected = -(-layout.size // self.block), self._length(layout.size)
        if len(data) != expected:
            raise CodecError(
                f"{len(data)} bytes for {layout.size} values of {self.bits} bits in blocks of {self.block}, "
                f"expected {expected}"
            )
        steps = to_float(read_scales(data, blocks, most=room.largest_step(self.bits)))
        out = np.empty(layout.size, np.float32)
        room.decode(steps, np.frombuffer(data, np.uint8)[2 * blocks :], self.bits, self.block, out)
        return out, state

    def _length(self, size: int) -> int:
        return 2 * -(-size // self.block) + -(-size * self.bits // 8)
