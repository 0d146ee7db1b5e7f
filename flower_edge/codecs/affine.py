"""`Affine`: 8, 4 or 2 bits per number, each block of numbers between a lowest of its own and steps upwards.

    block of 64 numbers -> low <= min x in 16 bits, step >= (max x - low) / levels in 16 bits
    x ~ low + code step, code in [0, levels]; levels: 255, 15 or 3

Where numbers lie on one side of zero, as behind a ReLU, this has twice the levels of `Block`, whose range is the same
to both sides; where they lie on both, the same, and a second scale to pay for. Nothing is entropy coded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from ..errors import CodecError
from .draws import key_of
from .kernels import kernels
from .layout import Floats, Layout, refuse_non_finite
from .moment import Moment
from .nested import check_number
from .scales import read_scales, to_float, upwards
from .vector_codec import State, VectorCodec

__all__ = ["Affine"]

Doubles = npt.NDArray[np.float64]

_BLOCKS: Final = tuple(2**n for n in range(3, 17))
_MOST: Final = float(np.finfo(np.float32).max)
#: 2^-126, as a scale: below, hardware may take a step for zero.
_SMALLEST_STEP: Final = 0x100
#: Numbers that are worked on at once, so that what is in between stays in cache.
_CHUNK: Final = 1 << 16


@dataclass(frozen=True)
class Affine(VectorCodec):
    """Whole numbers of a few bits, with a lowest number and a step per block.

    No number moves by more than half a step, or a step if rounded at random; `bound` says how much that is.

    Attributes:
        bits: 8, 4 or 2 per number.
        block: numbers that share a range, a power of two from 8 to 65,536. Smaller follows the vector closer and costs
            more: 32 bits per block.
        stochastic: round at random, so that the mean is right; else to the nearest.
        seed: of the rounding, with round and node.

    Source: affine quantisation as in Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", CVPR 2018, per block.

    >>> codec, layout, at = Affine(bits=2), Layout.flat(4), Moment()
    >>> data, _ = codec.pack(np.array([0, 0.9, 2.2, 3], np.float32), layout, {}, at)
    >>> len(data), codec.unpack(memoryview(data), layout, {}, at)[0]
    (5, array([0., 1., 2., 3.], dtype=float32))
    """

    kind: ClassVar[str] = "affine"

    bits: int = 8
    block: int = 64
    stochastic: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what has no form in bytes."""
        if self.bits not in (2, 4, 8) or isinstance(self.bits, float):
            raise CodecError(f"bits = {self.bits!r}: expected 8, 4 or 2")
        if self.block not in _BLOCKS or isinstance(self.block, float):
            raise CodecError(f"block = {self.block!r}: expected a power of two from 8 to 65536, such as 64")
        if not isinstance(self.stochastic, bool):
            raise CodecError(f"stochastic = {self.stochastic!r}: expected True or False")
        check_number(self.seed, "seed", 0, 2**63 - 1, whole=True)

    @property
    def unbiased(self) -> bool:
        """If rounded at random: to 2^-17 of a step."""
        return self.stochastic

    def bound(self, v: Floats) -> Floats:
        """How far each number of a vector may move at most, float32 [size]: half a step, or a step at random.

        A last digit of float32 comes on top where the step is less than that.

        >>> Affine(bits=2).bound(np.array([0, 3, 1], np.float32))
        array([0.5, 0.5, 0.5], dtype=float32)
        """
        _, steps = self._scales(np.ascontiguousarray(v))
        moved = to_float(steps) * np.float32(1.0 if self.stochastic else 0.5)
        return np.repeat(moved, self.block)[: v.size]

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """Lowest numbers and steps (16 bits each), then codes: with p in a byte, number i is in byte i modulo n / p."""
        v = np.ascontiguousarray(v)
        refuse_non_finite(v, layout)
        lows, steps = self._scales(v)
        key = key_of(at.seeds(self.seed)) if self.stochastic else None
        packed = self._squeezed(self._codes(v, _low(lows), to_float(steps), key))
        return lows.astype("<u2").tobytes() + steps.astype("<u2").tobytes() + packed.tobytes(), state

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Floats, State]:
        """float32; whatever the codes are, no further out than low and step say, and finite."""
        blocks, expected = self._blocks(layout.size), self._length(layout.size)
        if len(data) != expected:
            raise CodecError(
                f"{len(data)} bytes for {layout.size} values of {self.bits} bits in blocks of {self.block}, "
                f"expected {expected}"
            )
        lows = np.frombuffer(data, "<u2", blocks)
        beyond = (lows & 0x7FFF >= 0x7F80) & (lows != 0xFF80)
        if beyond.any():
            raise CodecError(
                f"a lowest number of code {int(lows[beyond][0]):#x}, which is none; the payload was altered"
            )
        low, step = _low(lows), to_float(read_scales(data[2 * blocks :], blocks)).astype(np.float64)
        codes = self._spread(np.frombuffer(data, np.uint8)[4 * blocks :], layout.size)
        out = np.empty(layout.size, np.float32)
        for rows, part in self._parts(layout.size):
            x = self._in_blocks(codes[part])
            x *= step[rows, None]
            x += low[rows, None]
            np.clip(x, -_MOST, _MOST, out=x)
            out[part] = x.reshape(-1)[: codes[part].size]
        return out, state

    # -- blocks ------------------------------------------------------------------------------------------------------

    def _blocks(self, size: int) -> int:
        return -(-size // self.block)

    def _length(self, size: int) -> int:
        return 4 * self._blocks(size) + -(-size * self.bits // 8)

    def _parts(self, size: int) -> list[tuple[slice, slice]]:
        """Which blocks, and which numbers, are worked on together."""
        rows = max(1, _CHUNK // self.block)
        begins = range(0, self._blocks(size), rows)
        return [(slice(i, i + rows), slice(i * self.block, (i + rows) * self.block)) for i in begins]

    def _in_blocks(self, part: npt.NDArray[Any]) -> Doubles:
        """float64 [blocks, block], the last filled up with zeros. In double: a range may be twice float32's largest."""
        rows = self._blocks(part.size)
        if part.size == rows * self.block:
            return part.reshape(rows, self.block).astype(np.float64)
        out = np.zeros(rows * self.block)
        out[: part.size] = part
        return out.reshape(rows, self.block)

    def _scales(self, v: Floats) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        """Codes of the lowest numbers and of the steps, each rounded so that no number of its block is left outside."""
        begins = np.arange(0, v.size, self.block)
        if not begins.size:
            return np.empty(0, np.uint16), np.empty(0, np.uint16)
        low, high = np.minimum.reduceat(v, begins), np.maximum.reduceat(v, begins)
        low = np.where(low == 0, np.float32(0), low)  # one zero, not two
        bits = low.view(np.uint32)
        lows = ((bits + np.where(low < 0, np.uint32(0xFFFF), np.uint32(0))) >> np.uint32(16)).astype(np.uint16)
        step = (high.astype(np.float64) - _low(lows)) / (2**self.bits - 1) + 0.0  # no -0, which has a sign bit
        rounded = step.astype(np.float32)
        rounded = np.where(rounded < step, np.nextafter(rounded, np.float32(np.inf)), rounded)
        steps = upwards(rounded)
        return lows, np.where(steps == 0, steps, np.maximum(steps, np.uint16(_SMALLEST_STEP)))

    def _codes(self, v: Floats, low: Doubles, step: Floats, key: int | None) -> npt.NDArray[np.uint8]:
        codes = np.empty(v.size, np.uint8)
        inverse = np.divide(1.0, step.astype(np.float64), out=np.zeros(step.size), where=step > 0)
        drawn = None if key is None else kernels("dither").uniform16(key, v.size)
        for rows, part in self._parts(v.size):
            x = self._in_blocks(v[part])
            x -= low[rows, None]
            x *= inverse[rows, None]
            # The half of a dither's unit: what lies on a step stays there, and the mean is right.
            x += 0.5 if drawn is None else (self._in_blocks(drawn[part]) + 0.5) * 2.0**-16
            np.clip(x, 0, 2**self.bits - 1, out=x)
            codes[part] = x.reshape(-1)[: v[part].size].astype(np.uint8)
        return codes

    # -- bits --------------------------------------------------------------------------------------------------------

    def _squeezed(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        width = -(-codes.size * self.bits // 8)
        per = 8 // self.bits
        whole = np.zeros(per * width, np.uint8)
        whole[: codes.size] = codes
        rows = whole.reshape(per, width)
        out: npt.NDArray[np.uint8] = rows[0].copy()
        for place in range(1, per):
            out |= rows[place] << np.uint8(place * self.bits)
        return out

    def _spread(self, packed: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
        mask = np.uint8(2**self.bits - 1)
        rows = [packed >> np.uint8(place * self.bits) & mask for place in range(8 // self.bits)]
        return np.asarray(np.concatenate(rows)[:size])


def _low(codes: npt.NDArray[np.uint16]) -> Doubles:
    """The upper half of a float32 as a number; what is below the range of such is the lowest float32."""
    found = (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.maximum(found.astype(np.float64), -_MOST)
