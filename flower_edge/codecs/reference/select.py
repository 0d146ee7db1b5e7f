"""The largest numbers of a vector, and places drawn at random without a list of them.

    key     the bits of |v| as uint32: they are ordered as the magnitudes are
    pivot   a key that a sample says is a little below the k-th largest; who reaches it is a candidate

The pivot decides how fast an answer is found, never which. Nothing here encodes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .sampling import CHUNK, MAGNITUDE, Floats, Places, exact_pivot, finish, pivot_of, sampled

__all__ = ["add_and_find", "largest", "strata"]


def largest(v: Floats, k: int) -> tuple[Places, Floats]:
    """The k largest magnitudes, ties by the lower place; without zeros, so there may be fewer than k.

    A NaN counts as larger than anything: where there is one, it is among them.

    Args:
        v: float32 [size], contiguous.

    Returns:
        sorted places, int64, and the numbers there.
    """
    if k <= 0:
        return np.empty(0, np.int64), v[:0]
    return _finished(v.view(np.uint32), k, pivot_of(sampled(v, None), v.size, k))


def add_and_find(v: Floats, memory: Floats | None, k: int) -> tuple[Floats, Places, Floats]:
    """v + memory, a new array, and `largest` of it, in one pass; `None` is zero."""
    if k <= 0:
        return v.copy() if memory is None else v + memory, np.empty(0, np.int64), v[:0]
    pivot, whole = pivot_of(sampled(v, memory), v.size, k), np.empty_like(v)
    bits, found = whole.view(np.uint32), []
    for begin in range(0, v.size, CHUNK):
        part = slice(begin, begin + CHUNK)
        if memory is None:
            whole[part] = v[part]
        else:
            np.add(v[part], memory[part], out=whole[part])
        found.append(np.flatnonzero((bits[part] & MAGNITUDE) >= pivot) + begin)
    return whole, *_enough(bits, np.concatenate(found), k, pivot)


def strata(key: int, count: int, size: int) -> tuple[Places, Places]:
    """One place at random in each of `count` runs that make up [0, size), and how long each run is.

    Run j begins at floor(j size / count). What is drawn is number j of the generator splitmix64 that begins at `key`
    (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
    """
    edges = np.arange(count + 1, dtype=np.int64) * size // max(count, 1)
    widths = np.diff(edges)
    with np.errstate(over="ignore"):
        z = np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return edges[:-1] + (z % widths.astype(np.uint64)).astype(np.int64), widths


def _finished(bits: npt.NDArray[np.uint32], k: int, pivot: int) -> tuple[Places, Floats]:
    found = [
        np.flatnonzero((bits[begin : begin + CHUNK] & MAGNITUDE) >= pivot) + begin
        for begin in range(0, bits.size, CHUNK)
    ]
    return _enough(bits, np.concatenate(found), k, pivot)


def _enough(bits: npt.NDArray[np.uint32], found: Places, k: int, pivot: int) -> tuple[Places, Floats]:
    if len(found) < k and pivot > 1:
        return _finished(bits, k, exact_pivot(bits, k))
    return finish(found, bits[found], k)
