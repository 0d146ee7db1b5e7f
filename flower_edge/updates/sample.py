"""`sample`, `take` and `take_all`: what replies moved by at some coordinates, for tests that compare directions.

A coordinate is a place in the model laid out flat: its arrays in the order of the base, each in C order. Nothing here
judges.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelMismatch
from .places import within
from .regions import Block, Region
from .update import Update

__all__ = ["Coordinates", "sample", "take", "take_all"]

#: Places in the flat model, ascending.
Coordinates = npt.NDArray[np.int64]


def sample(region: Region, count: int, rng: np.random.Generator) -> Coordinates:
    """Coordinates of a region, each as likely as the others, none twice.

    Args:
        region: from which.
        count: how many; all of them where the region has no more.
        rng: what it draws should not be known to the nodes, or they move only where nobody looks.

    Returns:
        int64 [min(count, region.size)], ascending.
    """
    if count >= region.size:
        places = np.arange(region.size)
    else:
        places = np.sort(rng.choice(region.size, count, replace=False, shuffle=False))
    ends = np.cumsum([block.size for block in region.blocks])
    cuts = np.searchsorted(places, ends)
    begins = itertools.chain((0,), ends[:-1])
    out = [
        _in_model(block, part - begin, region.offsets[block.name])
        for block, part, begin in zip(region.blocks, np.split(places, cuts[:-1]), begins, strict=True)
        if part.size
    ]
    return np.sort(np.concatenate(out)) if out else np.empty(0, np.int64)


def take(update: Update, coordinates: Coordinates) -> npt.NDArray[np.float32]:
    """What this reply moved by at some coordinates.

    Args:
        update: whose base is in the order of the one that the coordinates were drawn from.
        coordinates: ascending; the update has to hold each of them.

    Returns:
        float32 [coordinates]: arrays - base. A finite movement stays finite: what is more than float32 can say is cut
        to its largest number. Of complex numbers it is the real part.

    Raises:
        ModelMismatch: a coordinate that the update does not hold.

    >>> from flower_edge.updates.manifest import whole_manifest
    >>> manifest = whole_manifest({"w": ((3,), "float32")})
    >>> base, sent = {"w": np.float32([1, 1, 1])}, {"w": np.float32([1, 2, 4])}
    >>> take(Update("1", sent, base, 1.0, manifest), np.array([0, 2]))
    array([0., 3.], dtype=float32)
    """
    moved: npt.NDArray[np.float32] = take_all([update], coordinates)[0]
    return moved


def take_all(updates: Sequence[Update], coordinates: Coordinates) -> npt.NDArray[np.float32]:
    """What each of these replies moved by at the same coordinates; where they have one base it is read once.

    Returns:
        float32 [updates, coordinates]: a row as `take` gives it.

    Raises:
        ModelMismatch: a coordinate that one of them does not hold.
    """
    moved = np.empty((len(updates), len(coordinates)), np.float32)
    begun: dict[tuple[int, str], npt.NDArray[Any]] = {}
    for update, row in zip(updates, moved, strict=True):
        begin = done = 0
        for name, base in update.base.items():
            upto = int(np.searchsorted(coordinates, begin + base.size))
            if upto > done:
                if name not in update.manifest.arrays:
                    raise ModelMismatch(
                        f"node {update.node} was given no {name!r}; take only coordinates that it holds"
                    )
                local = coordinates[done:upto] - begin
                before = None
                if not update.difference:
                    key = (id(base), name)
                    before = begun[key] if key in begun else begun.setdefault(key, _at(base, local))
                row[done:upto] = _difference(_at(update.arrays[name], _own(update, name, local)), before)
            begin, done = begin + base.size, upto
        if done < len(coordinates):
            raise ModelMismatch(f"coordinate {int(coordinates[-1])} of a model of {begin} numbers")
    return moved


def _difference(there: npt.NDArray[Any], before: npt.NDArray[Any] | None) -> npt.NDArray[np.float32]:
    """there - before, cut to what float32 can say; what was NaN or infinite stays so."""
    with np.errstate(all="ignore"):
        if there.dtype == np.float32 and (before is None or before.dtype == np.float32):
            quick = there if before is None else np.subtract(there, before)
            if np.isfinite(quick).all():
                return quick
        wide = there.real.astype(np.float64)
        if before is not None:
            wide -= before.real
        most = float(np.finfo(np.float32).max)
        return np.where(np.isfinite(wide), np.clip(wide, -most, most), wide).astype(np.float32)


def _in_model(block: Block, places: npt.NDArray[np.intp], offset: int) -> Coordinates:
    """Places in a block's own order to places in the flat model."""
    if block.is_whole:
        return places + offset
    own = np.unravel_index(places, block.shape)
    axes = tuple(here if given is None else given[here] for here, given in zip(own, block.axes, strict=True))
    return np.asarray(np.ravel_multi_index(axes, block.whole), np.int64) + offset


def _own(update: Update, name: str, local: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Places of the whole array, flat, to places of the reply's own array, flat."""
    part = update.manifest.arrays[name]
    if part.index is None:
        return local
    axes = []
    for here, places in zip(np.unravel_index(local, part.whole), part.index, strict=True):
        own = within(here, places)
        if places is not None and not (places.take(own, mode="clip") == here).all():
            raise ModelMismatch(
                f"node {update.node} holds only a part of {name!r}; take only coordinates that it holds"
            )
        axes.append(own)
    return np.asarray(np.ravel_multi_index(tuple(axes), part.shape), np.int64)


def _at(array: npt.NDArray[Any], flat: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Numbers at flat places in C order, without laying the array out again."""
    if array.flags.c_contiguous:
        return array.reshape(-1)[flat]
    return array[np.unravel_index(flat, array.shape)]
