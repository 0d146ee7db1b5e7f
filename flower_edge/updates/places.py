"""Where a part lies in the whole array, as what NumPy takes between brackets. Nothing here computes with values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .manifest import Index
from .update import Update

__all__ = ["base_part", "brackets", "within"]


def brackets(whole: tuple[int, ...], axes: Index | None) -> tuple[Any, ...]:
    """What to write between brackets to read this part of an array of shape `whole`, or to add to it.

    Slices where every axis is one range, so that reading is a view; else NumPy's open mesh, and reading is a copy.

    >>> brackets((4, 3), (np.array([1, 2]), None))
    (slice(1, 3, None), slice(0, 3, None))
    """
    if not axes:
        return (...,)
    runs = [_run(size, places) for places, size in zip(axes, whole, strict=True)]
    if all(run is not None for run in runs):
        return tuple(runs)
    return np.ix_(*(np.arange(size) if places is None else places for places, size in zip(axes, whole, strict=True)))


def base_part(update: Update, name: str) -> npt.NDArray[Any]:
    """Where this array of the reply began: its part of the base. A view where the part is one range on each axis."""
    part = update.manifest.arrays[name]
    begun: npt.NDArray[Any] = update.base[name][brackets(part.whole, part.index)]
    return begun


def within(places: npt.NDArray[np.intp], part: npt.NDArray[np.intp] | None) -> npt.NDArray[np.intp]:
    """Which of the part's own places these places of the whole axis are; each has to be one of them.

    >>> within(np.array([5, 9]), np.array([3, 5, 9]))
    array([1, 2])
    """
    return places if part is None else np.searchsorted(part, places)


def _run(size: int, places: npt.NDArray[np.intp] | None) -> slice | None:
    """The slice that these ascending places are, if they are one."""
    if places is None:
        return slice(0, size)
    if len(places) == 0:
        return slice(0, 0)
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == len(places) else None
