"""Where to look for the largest numbers of a vector: a pivot from a sample, and the exact finish among candidates.

Used by both rooms of kernels. Nothing here encodes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["CHUNK", "MAGNITUDE", "Floats", "Places", "exact_pivot", "finish", "pivot_of", "sampled"]

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint32]

#: All bits of a float32 but its sign.
MAGNITUDE = np.uint32(0x7FFFFFFF)
#: Numbers worked on at once, such that they stay in a core's cache.
CHUNK = 1 << 15
#: How many numbers are looked at for the pivot.
_SAMPLE = 1 << 16


def sampled(v: Floats, memory: Floats | None) -> Bits:
    """Keys of up to 65,536 numbers of v + memory, spread over the whole vector."""
    if v.size <= 2 * _SAMPLE:
        whole = v if memory is None else v + memory
        return whole.view(np.uint32) & MAGNITUDE
    stride = v.size // _SAMPLE
    # Not at the same place of every run: rows of a matrix would be met in one and the same column.
    places = np.arange(_SAMPLE, dtype=np.int64)
    places = places * stride + (places * 40503 & 0xFFFF) % stride
    some = v[places] if memory is None else v[places] + memory[places]
    return some.view(np.uint32) & MAGNITUDE


def pivot_of(sample: Bits, size: int, k: int) -> int:
    """A key that k of `size` numbers very likely reach, and not many more; 1 at least, so that no zero does."""
    if sample.size == size:
        rank = k
    else:
        expected = sample.size * k / size
        rank = math.ceil(expected + 4 * math.sqrt(expected) + 8)
    if rank >= sample.size:
        return 1
    return max(1, int(np.partition(sample, sample.size - rank)[sample.size - rank]))


def exact_pivot(bits: Bits, k: int) -> int:
    """The k-th largest key, 1 at least."""
    return pivot_of(bits & MAGNITUDE, bits.size, k)


def finish(places: Places, kept: Bits, k: int) -> tuple[Places, Floats]:
    """The k largest of candidates in order of place, ties by the lower place; places, and the numbers there."""
    if places.size > k:
        keys = kept & MAGNITUDE
        last = np.partition(keys, keys.size - k)[keys.size - k]
        above = keys > last
        ties = np.flatnonzero(keys == last)
        above[ties[: k - int(above.sum())]] = True
        places, kept = places[above], kept[above]
    return places, kept.view(np.float32)
