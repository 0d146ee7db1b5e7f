"""`LowRank`: a matrix as two thin ones, found by one step of power iteration that begins where the last round ended.

    P = orth(M Q)        Q <- M' P        decoded = P Q'        M: an array [first axis, all others]

Only the sender remembers Q. The receiver multiplies number by number in a fixed order, so that every machine decodes
the same. Arrays of fewer than two axes, and those that two thin matrices would not make smaller, go as they are.

    payload: 1 byte per factored array, e of the scale 2^e of its Q; the values' bytes of what goes as it is, with their
    length (varint); the values' bytes of P and Q / 2^e of each factored array. Either is left out where there is none.

Source: Vogels, Karimireddy, Jaggi, "PowerSGD: practical low-rank gradient compression for distributed optimization",
NeurIPS 2019, algorithms 1 and 2. There P and Q are averaged over the nodes between the two products; here each node
sends its own, as nodes of a federation do not wait for one another. It needs `ErrorFeedback` around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import CodecError
from .half import Half
from .layout import Floats, Layout, refuse_non_finite
from .moment import Moment
from .nested import check_codec, check_number
from .sections import join, split
from .sparse import dense
from .vector_codec import State, VectorCodec

__all__ = ["LowRank"]


#: float32 [rows, columns].
Matrix = npt.NDArray[np.float32]
#: Numbers of a product that are worked out at a time; they stay in the processor's cache.
_BLOCK = 1 << 14


class _Factored(NamedTuple):
    array: int
    rows: int
    columns: int
    rank: int


@dataclass(frozen=True)
class LowRank(VectorCodec):
    """Rank-r matrices instead of whole ones: r (rows + columns) numbers instead of rows x columns.

    Attributes:
        rank: of all matrices, 1 or more; less where an array has fewer rows or columns.
        seed: of the very first Q.
        values: codes the thin matrices, and what is not factored.
    """

    kind: ClassVar[str] = "low_rank"

    rank: int = 4
    seed: int = 0
    values: VectorCodec = field(default_factory=Half)

    def __post_init__(self) -> None:
        check_number(self.rank, "rank", 1, 2**20, whole=True)
        check_number(self.seed, "seed", 0, 2**63 - 1, whole=True)
        check_codec(self.values, "values")

    def start(self, layout: Layout) -> State:
        """`q`: array to the last Q, float32 [columns, rank], of the sender; `values`: states of the inner codec."""
        return {"q": {}, "values": [self.values.start(sent) for sent in self._sent(layout)]}

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """One step of power iteration for each matrix."""
        refuse_non_finite(v, layout)
        slices, exponents, kept = layout.slices(), [], {}
        thin: list[Floats] = []
        for f in self._factored(layout):
            matrix = v[slices[f.array]].reshape(f.rows, f.columns)
            before = state["q"].get(str(f.array))
            if before is None or not before.any():
                rng = np.random.default_rng([self.seed, f.array])
                before = rng.standard_normal((f.columns, f.rank), np.float32)
            p, q = _iterate(matrix, before)
            exponent = min(max(math.frexp(float(np.abs(q).max()))[1], -126), 127)
            scaled = np.ldexp(q, -exponent).astype(np.float32)
            thin += [p.reshape(-1), scaled.reshape(-1)]
            exponents.append(exponent)
            kept[str(f.array)] = scaled
        plain = [v[slices[i]] for i in self._plain(layout)]
        vectors = [np.concatenate(part) for part in (plain, thin) if part]
        parts, states = [], []
        for vector, sent, own in zip(vectors, self._sent(layout), state["values"], strict=True):
            data, after = self.values.pack(vector, sent, own, at.without_public())
            parts.append(data)
            states.append(after)
        return np.array(exponents, np.int8).tobytes() + join(parts), {"q": kept, "values": states}

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Floats, State]:
        """The products, added up one rank after the other."""
        factored, sent = self._factored(layout), self._sent(layout)
        if len(data) < len(factored):
            raise CodecError(f"{len(data)} bytes for {len(factored)} scales; the payload was altered")
        exponents = np.frombuffer(data[: len(factored)], np.int8).tolist()
        found: list[Floats] = []
        states = []
        for part, inner, own in zip(split(data[len(factored) :], len(sent)), sent, state["values"], strict=True):
            update, after = self.values.unpack(part, inner, own, at.without_public())
            found += [dense(update)[place] for place in inner.slices()]
            states.append(after)
        out, slices, plain = np.empty(layout.size, np.float32), layout.slices(), self._plain(layout)
        for i, vector in zip(plain, found, strict=False):
            out[slices[i]] = vector
        for number, (f, exponent) in enumerate(zip(factored, exponents, strict=True)):
            p, q = found[len(plain) + 2 * number : len(plain) + 2 * number + 2]
            whole = out[slices[f.array]].reshape(f.rows, f.columns)
            _multiply(p.reshape(f.rows, f.rank), q.reshape(f.columns, f.rank), exponent, whole)
        if not np.isfinite(out).all():
            raise CodecError("a value that is not finite; the payload was altered")
        return out, {**state, "values": states}

    def _factored(self, layout: Layout) -> list[_Factored]:
        """The arrays that two thin matrices make smaller."""
        found = []
        for i, (shape, size) in enumerate(zip(layout.shapes, layout.sizes, strict=True)):
            if len(shape) >= 2 and size:
                rows, columns = shape[0], size // shape[0]
                rank = min(self.rank, rows, columns)
                if rank * (rows + columns) < size:
                    found.append(_Factored(i, rows, columns, rank))
        return found

    def _plain(self, layout: Layout) -> list[int]:
        """The other arrays."""
        factored = {f.array for f in self._factored(layout)}
        return [i for i in range(len(layout.names)) if i not in factored]

    def _sent(self, layout: Layout) -> list[Layout]:
        """The layouts of what the inner codec gets: what goes as it is, the thin matrices."""
        plain, names, shapes = self._plain(layout), [], []
        for f in self._factored(layout):
            names += [f"{layout.names[f.array]} P", f"{layout.names[f.array]} Q"]
            shapes += [(f.rows, f.rank), (f.columns, f.rank)]
        return [sent for sent in (layout.select(plain), Layout(tuple(names), tuple(shapes))) if sent.names]


def _iterate(matrix: Matrix, q: Matrix) -> tuple[Matrix, npt.NDArray[np.float64]]:
    """P = orth(M Q), float32, and M' P."""
    with np.errstate(over="ignore", invalid="ignore"):
        wide = (matrix @ q).astype(np.float64)
        p = np.linalg.qr(wide)[0].astype(np.float32) if np.isfinite(wide).all() else None
        after = None if p is None else (matrix.T @ p).astype(np.float64)
    if p is None or after is None or not np.isfinite(after).all():  # sums that float32 does not hold
        p = np.linalg.qr(matrix.astype(np.float64) @ q)[0].astype(np.float32)
        after = matrix.T.astype(np.float64) @ p
    return p, after


def _multiply(p: Matrix, q: Matrix, exponent: int, out: Matrix) -> None:
    """out = 2^exponent P Q', the same on every machine: no matrix product promises an order of its sums."""
    rows = max(1, _BLOCK // out.shape[1])
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # refused by who calls
        scaled = np.ascontiguousarray((q * np.float32(2.0**exponent)).T)
        term = np.empty((rows, out.shape[1]), np.float32)
        for begin in range(0, len(out), rows):
            block, some = out[begin : begin + rows], p[begin : begin + rows]
            np.multiply(some[:, :1], scaled[0], out=block)
            for k in range(1, p.shape[1]):
                np.multiply(some[:, k : k + 1], scaled[k], out=term[: len(block)])
                block += term[: len(block)]
