"""`MeanModel`: the mean of the workers' models, one after the other: no more than one of them is held.

Nothing here decodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord

from flower_edge.wire import ModelSpec, cast_like, record_of

__all__ = ["MeanModel"]


class MeanModel:
    """Adds models in float64, in the order in which they come.

    >>> mean = MeanModel({"w": ((2,), "float32")})
    >>> mean.add({"w": np.array([1, 2], np.float32)})
    >>> mean.add({"w": np.array([3, 2], np.float32)})
    >>> mean.count, mean.record()["w"].numpy()
    (2, array([2., 2.], dtype=float32))
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._total = {
            name: np.zeros(shape, np.result_type(np.dtype(dtype), np.float64)) for name, (shape, dtype) in spec.items()
        }
        #: How many models.
        self.count = 0

    def add(self, model: Mapping[str, npt.NDArray[Any]]) -> None:
        """One more."""
        for name, total in self._total.items():
            total += model[name]
        self.count += 1

    def record(self) -> ArrayRecord:
        """The mean, in the dtypes of the model. Call it once, after one model or more."""
        for total in self._total.values():
            total /= self.count
        return cast_like(record_of(self._total), self._spec)
