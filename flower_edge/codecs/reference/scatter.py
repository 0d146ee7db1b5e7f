"""Adds weighted updates to one sum, in place: whole vectors, or values at some places. Nothing here encodes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "Places", "add", "add_at"]

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

_CHUNK = 1 << 15


def add(total: Floats, values: Floats, weight: np.float32) -> None:
    """total += weight values, without an array of that size in between."""
    for begin in range(0, total.size, _CHUNK):
        part = slice(begin, begin + _CHUNK)
        total[part] += values[part] * weight


def add_at(total: Floats, places: Places, values: Floats, weight: np.float32) -> bool:
    """total[places] += weight values; False, and nothing is added, unless places increase strictly within `total`."""
    if places.size != values.size:
        return False
    if places.size and (places[0] < 0 or places[-1] >= total.size or not (np.diff(places) > 0).all()):
        return False
    total[places] += values * weight
    return True
