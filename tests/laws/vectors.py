"""Vectors and layouts that codecs stumble over, and what an update has to look like. No law by itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.sparse import Sparse, Update, dense

#: A matrix, a vector, a number, nothing at all, a convolution: 443 numbers.
MIXED = Layout(
    ("conv.weight", "conv.bias", "scale", "empty", "head.weight"), ((8, 3, 3, 3), (8,), (), (0, 3), (20, 10))
)
LAYOUTS = {
    "mixed": MIXED,
    "nothing": Layout((), ()),
    "empty": Layout.flat(0),
    "one": Layout.flat(1),
    "two": Layout.flat(2),
    "blocks": Layout.flat(1029),
}
#: Below this a float32 has fewer digits; hardware and codecs may flush it to zero.
TINY = float(np.finfo(np.float32).tiny)


def vectors(size: int) -> Iterator[Floats]:
    """Vectors that codecs stumble over, float32 [size]."""
    rng = np.random.default_rng([size, 5])
    normal = rng.normal(size=size).astype(np.float32)
    yield normal
    yield np.zeros(size, np.float32)
    yield np.full(size, -0.25, np.float32)  # every place as good as any other
    spike = np.zeros(size, np.float32)
    spike[size // 2 : size // 2 + 1] = 7.5
    yield spike
    yield (1e-3 * rng.standard_t(1.2, size=size)).astype(np.float32)  # heavy tails
    yield normal * np.float32(1e-41)  # subnormal
    yield normal * np.float32(1e30)  # squares do not fit into float32
    yield np.where(normal > 0, np.float32(0), np.float32(-0.0)) + np.where(normal > 1, normal, np.float32(0))


def same_update(one: Update, other: Update) -> bool:
    """Whether two updates are the same, bit for bit, and both sparse or both dense."""
    if isinstance(one, Sparse) and isinstance(other, Sparse):
        places = np.array_equal(one.indices, other.indices) and one.size == other.size
        return places and one.values.tobytes() == other.values.tobytes()
    return type(one) is type(other) and dense(one).tobytes() == dense(other).tobytes()


def well_formed(update: Update, size: int) -> bool:
    """Whether an update is one of a vector of that size."""
    if isinstance(update, Sparse):
        places = update.indices
        return (
            update.size == size
            and places.dtype == np.int64
            and update.values.dtype == np.float32
            and places.shape == update.values.shape == (places.size,)
            and bool((np.diff(places) > 0).all())
            and (places.size == 0 or (places[0] >= 0 and places[-1] < size))
        )
    return update.dtype == np.float32 and update.shape == (size,)
