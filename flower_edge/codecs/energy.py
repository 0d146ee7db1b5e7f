"""Squared norms, added up in float64 whatever the size of the vector: float32 has neither the digits nor the range."""

from __future__ import annotations

import numpy as np

from .layout import Floats
from .sparse import Sparse, Update

__all__ = ["energy", "squared_error"]

#: Numbers that are widened at a time; they stay in the processor's cache.
_CHUNK = 1 << 15


def energy(v: Floats) -> float:
    """||v||^2.

    >>> energy(np.full(3, 1e30, np.float32)) > 2.9e60
    True
    """
    total = 0.0
    wide = np.empty(min(_CHUNK, v.size))
    for begin in range(0, v.size, _CHUNK):
        part = v[begin : begin + _CHUNK]
        square = wide[: part.size]
        np.multiply(part, part, out=square, dtype=np.float64)
        total += float(np.add.reduce(square))
    return total


def squared_error(v: Floats, update: Update) -> float:
    """||v - update||^2.

    >>> squared_error(np.ones(4, np.float32), np.zeros(4, np.float32))
    4.0
    """
    if isinstance(update, Sparse):
        left = v.copy()
        left[update.indices] -= update.values
        return energy(left)
    return energy(v - update)
