"""`Sparse`: a vector of which few places are not zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .layout import Floats

__all__ = ["Sparse", "Update", "dense"]


@dataclass(frozen=True)
class Sparse:
    """Values at some places of a vector, zero elsewhere.

    Attributes:
        indices: places, strictly increasing, int64 [k].
        values: float32 [k].
        size: of the whole vector.

    >>> Sparse(np.array([1]), np.array([5], np.float32), 3).dense()
    array([0., 5., 0.], dtype=float32)
    """

    indices: npt.NDArray[np.int64]
    values: Floats
    size: int

    def dense(self) -> Floats:
        """The whole vector, float32 [size]."""
        out = np.zeros(self.size, np.float32)
        out[self.indices] = self.values
        return out


#: What a vector codec decodes to.
Update = Floats | Sparse


def dense(update: Update) -> Floats:
    """The whole vector, whatever it came as."""
    return update.dense() if isinstance(update, Sparse) else update
