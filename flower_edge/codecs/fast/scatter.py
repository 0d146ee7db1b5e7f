"""What `reference/scatter.py` does, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ..reference.scatter import Floats, Places

__all__ = ["add", "add_at"]


@njit(cache=True, nogil=True)
def _add(total: Any, values: Any, weight: Any) -> None:
    for i in range(total.size):
        total[i] += values[i] * weight


@njit(cache=True, nogil=True)
def _add_at(total: Any, places: Any, values: Any, weight: Any) -> bool:
    before = -1
    for place in places:
        if place <= before:
            return False
        before = place
    if before >= total.size:
        return False
    for i in range(places.size):
        total[places[i]] += values[i] * weight
    return True


def add(total: Floats, values: Floats, weight: np.float32) -> None:
    """See `reference.scatter.add`."""
    _add(total, values, weight)


def add_at(total: Floats, places: Places, values: Floats, weight: np.float32) -> bool:
    """See `reference.scatter.add_at`."""
    return places.size == values.size and bool(_add_at(total, places, values, weight))
