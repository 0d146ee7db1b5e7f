"""`Correlated`: 1 or 2 bits per number, rounded at random by dithers that nodes share, so that their errors cancel.

    block of 256 numbers  ->  range [-M, M], M = max |x| in 16 bits; K = 2^bits levels evenly in it
    q = floor(y + U), y in [0, K - 1]; U of node i is (p(i) + u) / n: p a permutation of the nodes that all draw alike
    for each number, u the node's own

Where all n nodes have the same number, exactly the right count of them round up. Each message alone is as noisy as with
any unbiased rounding; what is smaller is the error of the mean. Nodes have ranges of their own here (the paper has one
for all), so dithers cancel the better the more alike nodes' blocks are; and nothing is rotated: a block with one large
number is coarse for the others. At one bit `Eden` has less error still; at two, unless nodes' numbers agree closely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import CodecError
from .draws import key_of
from .kernels import kernels
from .layout import Floats, Layout, refuse_non_finite
from .moment import Moment
from .nested import check_number
from .scales import LARGEST, read_scales, to_float, upwards
from .vector_codec import State, VectorCodec

__all__ = ["Correlated"]

_BLOCK = 256
#: Numbers that are worked on at once, so that what is in between stays in cache; whole blocks.
_CHUNK = 1 << 14
#: Permutations per round; each number takes one of them, and shifts it.
_PERMUTATIONS = 64


@dataclass(frozen=True)
class Correlated(VectorCodec):
    """Stochastic rounding with dithers that are spread evenly over the nodes.

    Attributes:
        bits: 1 or 2 per number.
        nodes: how many take part in a round; a node's own number (`Moment.node`) counts modulo this. With more or fewer
            it stays unbiased, and less cancels.
        seed: of permutations (with the round) and of each node's own draws.

    Source: Suresh, Sun, Ro, Yu, "Correlated quantization for distributed mean estimation and optimization", ICML 2022.

    >>> codec, layout = Correlated(nodes=4), Layout.flat(3)
    >>> def decoded(node):
    ...     at = Moment(0, node)
    ...     data, _ = codec.pack(np.array([1, 0.5, 0], np.float32), layout, {}, at)
    ...     return codec.unpack(memoryview(data), layout, {}, at)[0]
    >>> sum(decoded(node) for node in range(4)) / 4  # 4, 3 and 2 of the four round up
    array([1. , 0.5, 0. ], dtype=float32)
    """

    kind: ClassVar[str] = "correlated"

    bits: int = 1
    nodes: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be coded."""
        check_number(self.bits, "bits", 1, 2, whole=True)
        check_number(self.nodes, "nodes", 1, 65535, whole=True)
        check_number(self.seed, "seed", 0, 2**63 - 1, whole=True)

    @property
    def unbiased(self) -> bool:
        """Each node's dither by itself is uniform, to 2^-16."""
        return True

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """Ranges (16 bits each), then signs, then (of 2 bits) whether the outer level."""
        refuse_non_finite(v, layout)
        blocks, width = -(-v.size // _BLOCK), -(-v.size // 8)
        ranges, planes = np.empty(blocks, np.uint16), np.empty((self.bits, width), np.uint8)
        top = np.float32(2**self.bits - 1)
        for begin in range(0, v.size, _CHUNK):
            part = v[begin : begin + _CHUNK]
            x = np.zeros((-(-part.size // _BLOCK), _BLOCK), np.float32)
            x.reshape(-1)[: part.size] = part
            some = upwards(np.abs(x).max(axis=1), most=LARGEST)
            ranges[begin // _BLOCK : begin // _BLOCK + len(some)] = some
            largest = np.maximum(to_float(some), np.float32(2**-126))
            y = x * (np.float32(1) / largest)[:, None]
            y += 1
            y *= top / 2
            y += self._dither(begin, x.size, at).reshape(x.shape)
            code = np.clip(y, 0, top).astype(np.uint8).reshape(-1)[: part.size]
            for k, plane in enumerate(planes):
                plane[begin // 8 : -(-(begin + part.size) // 8)] = np.packbits(code >> k & 1, bitorder="little")
        return ranges.astype("<u2", copy=False).tobytes() + planes.tobytes(), state

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Floats, State]:
        """float32, each number one of the levels of its block."""
        size = layout.size
        blocks, width = -(-size // _BLOCK), -(-size // 8)
        expected = 2 * blocks + self.bits * width
        if len(data) != expected:
            raise CodecError(f"{len(data)} bytes for {size} values of {self.bits} bits, expected {expected}")
        ranges = to_float(read_scales(data, blocks, most=LARGEST))
        planes = np.frombuffer(data, np.uint8, offset=2 * blocks).reshape(self.bits, width)
        if size % 8 and (planes[:, -1] >> size % 8).any():
            raise CodecError("bits beyond the last number; the payload was altered")
        out = np.empty(size, np.float32)
        top = 2**self.bits - 1
        levels = (np.arange(-top, top + 1, 2) / top).astype(np.float32)
        for begin in range(0, size, _CHUNK):
            part = out[begin : begin + _CHUNK]
            code = np.zeros(part.size, np.uint8)
            for k, plane in enumerate(planes):
                given = plane[begin // 8 : begin // 8 + _CHUNK // 8]
                code |= np.unpackbits(given, count=part.size, bitorder="little") << k
            largest = ranges[begin // _BLOCK : begin // _BLOCK + _CHUNK // _BLOCK]
            np.multiply(levels[code], np.repeat(largest, _BLOCK)[: part.size], out=part)
        return out, state

    def _dither(self, begin: int, count: int, at: Moment) -> Floats:
        """In [0, 1), of this node for `count` numbers from `begin` on."""
        words = kernels("dither").words
        own = words(key_of(at.seeds(self.seed)), begin, count) >> np.uint32(8)  # 24 bits: float32 has no more
        shared = words(key_of([self.seed, at.round, 0xFFFFFFFF, 1]), begin, count)
        place = _places(self.seed, at.round, self.nodes, at.node % self.nodes)[shared % np.uint32(_PERMUTATIONS)]
        place += (shared >> np.uint32(16)) * np.uint32(self.nodes) >> np.uint32(16)
        place %= np.uint32(self.nodes)
        spread = (own.astype(np.float64) * 2.0**-24 + place) / self.nodes
        return np.asarray(np.minimum(spread, 1 - 2.0**-24), np.float32)


def _places(seed: int, round: int, nodes: int, node: int) -> npt.NDArray[np.uint32]:
    """The node's place in each permutation of the round, uint32 [permutations]."""
    drawn = kernels("dither").words(key_of([seed, round, 0xFFFFFFFF, 2]), 0, _PERMUTATIONS * nodes)
    order = np.argsort(drawn.reshape(_PERMUTATIONS, nodes), axis=1, kind="stable")
    return np.ascontiguousarray(order[:, node]).astype(np.uint32)
