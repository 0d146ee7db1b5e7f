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
    if not places.size:
        return True
    if places[0] < 0 or places[-1] >= total.size:
        return False
    falls = 0  # counted to the end: without a way out of the loop it takes several places at a time
    for i in range(1, places.size):
        falls += places[i] <= places[i - 1]
    if falls:
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
