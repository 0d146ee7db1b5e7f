"""Signs, one bit each, and the sum of magnitudes in an order that is part of the format.

The sum is a tree: 1,024 magnitudes as float64, the second half added to the first until one is left; then so the sums
of all such groups. NumPy's own sum adds in an order that depends on the machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["magnitude_sum", "pack_signs", "tree", "unpack_signs"]

Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint8]
#: How many numbers are summed up in one group.
GROUP = 1024
#: Numbers that are worked on at once, so that what is in between stays in cache; whole groups.
_AT_ONCE = 64 * GROUP


def tree(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums over the last axis, a power of two long: the second half added to the first until one is left.

    >>> tree(np.array([[1.0, 2.0, 3.0, 4.0]]))
    array([10.])
    """
    while sums.shape[-1] > 1:
        half = sums.shape[-1] // 2
        sums = sums[..., :half] + sums[..., half:]
    return sums[..., 0]


def magnitude_sum(v: Floats) -> float:
    """The sum of |v|, in float64; infinite or not a number if `v` has such.

    >>> magnitude_sum(np.array([1, -2, 4], np.float32))
    7.0
    """
    groups = -(-v.size // GROUP)
    sums = np.zeros(1 << max(groups - 1, 0).bit_length(), np.float64)
    whole = v.size // GROUP
    for begin in range(0, whole, _AT_ONCE // GROUP):
        end = min(whole, begin + _AT_ONCE // GROUP)
        part = v[begin * GROUP : end * GROUP].reshape(-1, GROUP)
        sums[begin:end] = tree(np.abs(part, dtype=np.float64))
    if groups > whole:
        last = np.zeros(GROUP, np.float64)
        last[: v.size - whole * GROUP] = np.abs(v[whole * GROUP :])
        sums[whole] = tree(last)
    return float(tree(sums))


def pack_signs(v: Floats, out: Bits) -> None:
    """Fill `out`, uint8 [ceil(size / 8)]: bit i % 8 of byte i // 8 is set where v[i] < 0."""
    for begin in range(0, v.size, _AT_ONCE):
        end = min(v.size, begin + _AT_ONCE)
        out[begin // 8 : -(-end // 8)] = np.packbits(v[begin:end] < 0, bitorder="little")


def unpack_signs(bits: Bits, scale: np.float32, out: Floats) -> None:
    """Fill `out` with -scale where the bit is set, with scale elsewhere."""
    for begin in range(0, out.size, _AT_ONCE):
        part = out[begin : begin + _AT_ONCE]
        below = np.unpackbits(bits[begin // 8 : (begin + _AT_ONCE) // 8], count=part.size, bitorder="little")
        raw = part.view(np.uint32)
        np.left_shift(below, np.uint32(31), out=raw, dtype=np.uint32)
        raw |= scale.view(np.uint32)
