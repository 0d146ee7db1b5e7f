"""`finite` and `squared_norm`: sums over a reply in chunks, for models of many millions of numbers.

A chunk stays in the processor's cache and one buffer of its size is all that is allocated, so a reply costs little more
than reading it. Of a sub-model the base's part is copied, one array at a time. Nothing here judges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .places import base_part, brackets, within
from .regions import Block, Region
from .update import Update, moving

__all__ = ["CHUNK", "finite", "squared_norm"]

#: Numbers in a chunk: 256 KiB of float32.
CHUNK: Final = 65_536
#: Below this a sum of squares in float32 may have lost numbers that are not zero.
_LEAST_FLOAT32: Final = 1e-25


def finite(array: npt.NDArray[Any]) -> bool:
    """Whether no number is NaN or infinite. Whole numbers always are finite.

    >>> finite(np.array([1.0, np.nan])), finite(np.array([3e38], np.float32))
    (False, True)
    """
    if array.dtype.kind not in "fc":
        return True
    flat = _flat(array)
    fast = array.dtype.itemsize >= 4 and array.dtype.char in "fdFD"
    with np.errstate(all="ignore"):
        for start in range(0, flat.size, CHUNK):
            chunk = flat[start : start + CHUNK]
            # A sum of squares is finite only if every number is; where it is not, it may be no more than an overflow.
            if not (fast and np.isfinite(np.vdot(chunk, chunk))) and not np.isfinite(chunk).all():
                return False
    return True


def squared_norm(update: Update, region: Region | None = None) -> float:
    """The squared length of what this reply moved by: the sum over (arrays - base)².

    Summed in float64 over chunks; within a chunk of float32 in float32, unless that overflows or vanishes. Arrays of
    whole numbers are left out (see `moving`).

    Args:
        update: whose arrays have the shapes of its manifest.
        region: only these coordinates, which the update has to hold; `None` is all that it holds.

    Returns:
        NaN or infinity where a number of the reply, or of its base, is.

    >>> from flower_edge.updates.manifest import whole_manifest
    >>> manifest = whole_manifest({"w": ((2,), "float32")})
    >>> squared_norm(Update("1", {"w": np.float32([3, 4])}, {"w": np.float32([0, 0])}, 1.0, manifest))
    25.0
    """
    total = 0.0
    with np.errstate(all="ignore"):
        for array, base in _pairs(update, region):
            total += _squares(_flat(array), None if base is None else _flat(base))
    return total


def _pairs(update: Update, region: Region | None) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any] | None]]:
    """Arrays and where they began, one after the other; no base where they are the movement already."""
    if region is None:
        for name in moving(update.manifest):
            yield update.arrays[name], None if update.difference else base_part(update, name)
        return
    for block in region.blocks:
        array = update.arrays[block.name][_brackets_of_block(update, block)]
        yield array, None if update.difference else update.base[block.name][brackets(block.whole, block.axes)]


def _brackets_of_block(update: Update, block: Block) -> tuple[Any, ...]:
    """Where this block lies in the update's own array."""
    part = update.manifest.arrays[block.name]
    if part.index is None:
        return brackets(block.whole, block.axes)
    axes = tuple(
        None if places is None else within(places, own) for places, own in zip(block.axes, part.index, strict=True)
    )
    return brackets(part.shape, axes)


def _squares(array: npt.NDArray[Any], base: npt.NDArray[Any] | None) -> float:
    single = array.dtype == np.float32 and (base is None or base.dtype == np.float32)
    scratch = np.empty(min(CHUNK, array.size), np.float32) if single and base is not None else None
    total = 0.0
    for start in range(0, array.size, CHUNK):
        chunk = array[start : start + CHUNK]
        before = None if base is None else base[start : start + CHUNK]
        if single:
            if before is None or scratch is None:
                moved = chunk
            else:
                moved = np.subtract(chunk, before, out=scratch[: chunk.size])
            squares = float(np.vdot(moved, moved))
            if _LEAST_FLOAT32 < squares < math.inf:
                total += squares
                continue
        wide = chunk.astype(np.result_type(chunk, np.float64))
        if before is not None:
            wide = wide - before
        total += float(np.vdot(wide, wide).real)
    return total


def _flat(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The numbers in one row: a view, unless the array lies in another order in memory."""
    return array.reshape(-1)
