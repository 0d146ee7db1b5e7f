"""Values at a leader's places, over one scale per array; and what an autoencoder is trained on. Nothing here codes.

    scale[a] = root mean square of the values in array a, in 16 bits (scales.py)
    u        = values / scale[array of its place]

Deltas of different layers, nodes and rounds differ by orders of magnitude; without this an autoencoder learns none of
them (docs/codecs_shared.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...errors import CodecError
from ..layout import Floats, Layout
from ..scales import Scales, nearest, read_scales, to_float

__all__ = ["ArrayScales", "Batch", "innovation_channel", "read_array_scales", "scales_of"]


@dataclass(frozen=True)
class ArrayScales:
    """One scale per array that has a place.

    Attributes:
        each: uint16, one per array that has a place, in order.
        counts: int64, how many places each of those arrays has.

    >>> layout, values = Layout(("w", "b"), ((3,), (2,))), np.array([3, -3, 4], np.float32)
    >>> scales = scales_of(values, np.array([0, 1, 4]), layout)
    >>> scales.counts, scales.divide(values), len(scales.to_bytes())
    (array([2, 1]), array([ 1., -1.,  1.], dtype=float32), 4)
    """

    each: Scales
    counts: npt.NDArray[np.int64]

    def by_place(self) -> Floats:
        """float32 [k], the scale at each place."""
        return np.repeat(to_float(self.each), self.counts)

    def divide(self, values: Floats) -> Floats:
        """Values over their scale; zero where the scale is."""
        by_place = self.by_place()
        with np.errstate(over="ignore"):
            out = np.divide(values, by_place, out=np.zeros_like(values), where=by_place > 0)
        # A scale may lie below what float32 divides by; no value is further than this from the root mean square.
        most = np.float32(values.size**0.5 * 2)
        return np.clip(out, -most, most)

    def to_bytes(self) -> bytes:
        """Two bytes per array that has a place."""
        return self.each.astype("<u2").tobytes()


def scales_of(values: Floats, places: npt.NDArray[np.int64], layout: Layout) -> ArrayScales:
    """Scales of float32 [k] values at sorted places of a vector of that layout."""
    counts = _counts(places, layout)
    if not counts.size:
        return ArrayScales(np.zeros(0, np.uint16), counts)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    squares = np.add.reduceat(np.square(values, dtype=np.float64), starts)
    return ArrayScales(nearest(np.sqrt(squares / counts).astype(np.float32)), counts)


def read_array_scales(
    data: memoryview, places: npt.NDArray[np.int64], layout: Layout
) -> tuple[ArrayScales, memoryview]:
    """Inverse of `ArrayScales.to_bytes`, and what follows.

    Raises:
        CodecError: too few bytes, or a scale that is not finite.
    """
    counts = _counts(places, layout)
    if len(data) < 2 * counts.size:
        raise CodecError(f"{len(data)} bytes, expected {2 * counts.size} of scales for {counts.size} arrays")
    return ArrayScales(read_scales(data, counts.size), counts), data[2 * counts.size :]


def _counts(places: npt.NDArray[np.int64], layout: Layout) -> npt.NDArray[np.int64]:
    edges = np.array([*layout.offsets, layout.size], np.int64)
    counts = np.diff(np.searchsorted(places, edges)).astype(np.int64)
    return counts[counts > 0]


@dataclass(frozen=True)
class Batch:
    """Values of several nodes at the same places of one round: what training sees at once.

    Attributes:
        nodes: their numbers.
        values: float32 [nodes, k], each over its own scales.
        common: float32 [k], what all of them knew before: the previous aggregate there, over its scales; or `None`.
    """

    nodes: tuple[int, ...]
    values: Floats
    common: Floats | None = None

    @classmethod
    def of(
        cls,
        vectors: Mapping[int, Floats],
        places: npt.NDArray[np.int64],
        layout: Layout,
        common: Floats | None = None,
    ) -> Batch:
        """From whole vectors. A vector that is zero at all places is left out, and so is a common one."""

        def one(vector: Floats) -> Floats:
            values = vector[places]
            return scales_of(values, places, layout).divide(values)

        rows = {node: one(vector) for node, vector in sorted(vectors.items())}
        rows = {node: row for node, row in rows.items() if row.any()}
        known = None if common is None else one(common)
        values = np.stack(list(rows.values())) if rows else np.zeros((0, places.size), np.float32)
        return cls(tuple(rows), values, known if known is not None and known.any() else None)

    def only(self, nodes: Sequence[int]) -> Batch:
        """The same of some of its nodes."""
        kept = [i for i, node in enumerate(self.nodes) if node in nodes]
        return Batch(tuple(self.nodes[i] for i in kept), self.values[kept], self.common)


def innovation_channel(values: Floats, share: int) -> Floats:
    """The `share` largest of each row and zeros elsewhere: what a decoder sees beside the common code.

    >>> innovation_channel(np.array([[1, -3, 2]], np.float32), 1)
    array([[ 0., -3.,  0.]], dtype=float32)
    """
    kept = np.argsort(-np.abs(values), axis=1, kind="stable")[:, :share]
    out = np.zeros_like(values)
    np.put_along_axis(out, kept, np.take_along_axis(values, kept, 1), 1)
    return out
