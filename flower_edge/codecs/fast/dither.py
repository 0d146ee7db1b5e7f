"""What `reference/dither.py` does, compiled, and one word at a time for the loops of other kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, uint32

__all__ = ["uniform16", "word", "words"]


@njit(nogil=True, inline="always")
def word(counter: Any, high: Any) -> Any:
    """One word: `counter` is uint32 and has the low half of the key added already."""
    x = uint32(counter)
    x = uint32(uint32(x ^ uint32(x >> uint32(16))) * uint32(0x7FEB352D))
    x = uint32(x ^ uint32(high))
    x = uint32(uint32(x ^ uint32(x >> uint32(15))) * uint32(0x846CA68B))
    return uint32(x ^ uint32(x >> uint32(16)))


@njit(cache=True, nogil=True)
def _words(low: Any, high: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] = word(uint32(uint32(low) + uint32(i)), high)


def words(key: int, begin: int, count: int) -> npt.NDArray[np.uint32]:
    """See `reference.dither.words`."""
    out = np.empty(count, np.uint32)
    _words(np.uint32((begin + key) & 0xFFFFFFFF), np.uint32(key >> 32), out)
    return out


def uniform16(key: int, count: int) -> npt.NDArray[np.uint16]:
    """See `reference.dither.uniform16`."""
    return words(key, 0, (count + 1) // 2).astype("<u4", copy=False).view("<u2")[:count].astype(np.uint16, copy=False)
