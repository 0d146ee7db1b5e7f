"""`Aggregator`: the weighted mean of many updates, as they come; a sparse one costs as much as it names places.

There is one float32 sum and never a vector per node: memory is two models at most, whatever the number of nodes.
Another order of adding changes the last bits and no more. Nothing here decodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ..errors import CodecError
from .kernels import kernels
from .layout import Floats
from .sparse import Sparse, Update

__all__ = ["Aggregator"]


@dataclass
class Aggregator:
    """Adds updates to one sum.

    Attributes:
        size: numbers in a vector.

    >>> mean = Aggregator(3)
    >>> mean.add(Sparse(np.array([1]), np.array([4], np.float32), 3), weight=1)
    >>> mean.add(np.array([1, 2, 3], np.float32), weight=3)
    >>> mean.mean()
    array([0.75, 2.5 , 2.25], dtype=float32)
    """

    size: int
    _sum: Floats = field(init=False, repr=False)
    _weights: list[float] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        self._sum = np.zeros(self.size, np.float32)

    @property
    def weight(self) -> float:
        """Of all that was added."""
        return math.fsum(self._weights)

    def add(self, update: Update, weight: float = 1.0) -> None:
        """One more update.

        Args:
            weight: such as its number of examples; above 0.

        Raises:
            CodecError: another size, places out of order or range, or a weight that is none. Nothing was added then.
        """
        with np.errstate(over="ignore", under="ignore"):
            part = np.float32(weight)
        if not 0 < part < math.inf:
            raise CodecError(f"weight = {weight}: expected a finite number above 0, such as the number of examples")
        size = update.size
        if size != self.size or (not isinstance(update, Sparse) and update.shape != (size,)):
            raise CodecError(f"an update of {size} numbers, expected {self.size}; is it of the same model?")
        room = kernels("scatter")
        if not isinstance(update, Sparse):
            room.add(self._sum, np.ascontiguousarray(update, np.float32), part)
        elif not room.add_at(self._sum, update.indices, update.values, part):
            raise CodecError(f"places of a sparse update are not strictly increasing below {size}, one for each value")
        self._weights.append(float(weight))

    def mean(self) -> Floats:
        """What was added, divided by its weight, [size]; a new array.

        Raises:
            CodecError: nothing was added.
        """
        if not self._weights:
            raise CodecError("the mean of no updates; add one first")
        mean: Floats = self._sum / np.float32(self.weight)
        return mean
