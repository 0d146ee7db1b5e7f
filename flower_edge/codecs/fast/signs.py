"""What `reference/signs.py` does, compiled; packing is NumPy's own, which is as fast."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import float64, njit, uint32

from ..reference.signs import GROUP, pack_signs, tree

__all__ = ["magnitude_sum", "pack_signs", "unpack_signs"]

Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint8]


@njit(cache=True, nogil=True)
def _group_sums(v: Any, sums: Any) -> None:
    room = np.empty(GROUP // 2, np.float64)
    half = GROUP // 2
    for g in range(v.size // GROUP):
        one, other = v[g * GROUP : g * GROUP + half], v[g * GROUP + half : g * GROUP + GROUP]
        for i in range(half):
            room[i] = abs(float64(one[i])) + abs(float64(other[i]))
        count = half
        while count > 1:
            count //= 2
            low, high = room[:count], room[count : 2 * count]
            for i in range(count):
                low[i] += high[i]
        sums[g] = room[0]


def magnitude_sum(v: Floats) -> float:
    """See `reference.signs.magnitude_sum`."""
    groups, whole = -(-v.size // GROUP), v.size // GROUP
    sums = np.zeros(1 << max(groups - 1, 0).bit_length(), np.float64)
    _group_sums(v[: whole * GROUP], sums)
    if groups > whole:
        last = np.zeros(GROUP, np.float32)
        last[: v.size - whole * GROUP] = v[whole * GROUP :]
        _group_sums(last, sums[whole:])
    return float(tree(sums))


@njit(cache=True, nogil=True)
def _unpack(bits: Any, scale: Any, raw: Any) -> None:
    for b in range(raw.size // 8):
        byte, part = uint32(bits[b]), raw[8 * b : 8 * b + 8]
        for i in range(8):
            part[i] = uint32(uint32(byte << uint32(31 - i)) & uint32(0x80000000)) | scale
    for i in range(raw.size - raw.size % 8, raw.size):
        raw[i] = uint32(uint32(uint32(bits[i // 8]) << uint32(31 - i % 8)) & uint32(0x80000000)) | scale


def unpack_signs(bits: Bits, scale: np.float32, out: Floats) -> None:
    """See `reference.signs.unpack_signs`."""
    _unpack(bits, np.float32(scale).view(np.uint32), out.view(np.uint32))
