"""`Samples`: what place 0 of a chain draws at each step, the same as whoever trains the whole model. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.schedule import make_schedule
from ..splitting.order import WorkOrder

__all__ = ["Samples"]


class Samples:
    """Batches by number of the step.

    Args:
        order: seed, batch size, first step, standardisation.
        x: samples [samples, ...], before standardisation.
        y: targets, one for each.

    Raises:
        DataError, ConfigError: no samples, or an order that cannot be used.
    """

    def __init__(self, order: WorkOrder, x: NDArray[Any], y: NDArray[Any]) -> None:
        self._order, self._x, self._y = order, x, y
        if order.standard is not None:
            from ..splitting.standardise import Standard

            self._x = Standard.from_config(order.standard).apply(x)
        self._steps = self._from(order.first_step)
        self._at = order.first_step - 1
        self._batch: NDArray[np.int64] = np.empty(0, np.int64)

    def at(self, step: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Samples and targets of one step; a step may be asked for again."""
        if step not in (self._at, self._at + 1):
            self._steps = self._from(step)
            self._at = step - 1
        if step != self._at:
            self._at, self._batch = next(self._steps)
        return self._x[self._batch], self._y[self._batch]

    def _from(self, step: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        order = self._order
        left = order.first_step + order.steps - step
        return iter(
            make_schedule(
                self._x,
                self._y,
                steps=left,
                epochs=None,
                batch_size=order.batch_size,
                seed=order.seed,
                first_step=step,
            )
        )
