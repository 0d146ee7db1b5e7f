"""What `reference/select.py` does, compiled: one pass over the vector finds all candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from ..reference.sampling import Floats, Places, exact_pivot, finish, pivot_of, sampled
from .intrinsics import as_bits

__all__ = ["add_and_find", "largest", "strata"]

Ints = npt.NDArray[np.int32]

#: Numbers that are compared with the pivot at once, and within them, where one reaches it.
_GROUP, _PART = 64, 16
#: Whole numbers are compared, not floats: some processes take tiny floats for zero (`torch.set_flush_denormal`).
_MAGNITUDE = np.int32(0x7FFFFFFF)
#: Of places: an index without a sign is not looked at twice.
_U = np.uint64


@njit(cache=True, nogil=True, inline="always")
def _collect(bits: Any, begin: Any, pivot: Any, places: Any, kept: Any, count: Any) -> Any:
    """Adds those of a group whose keys reach the pivot; there is room for all."""
    for part in range(0, _GROUP, _PART):
        first, hits = begin + _U(part), False
        for i in range(_PART):
            hits |= (bits[first + _U(i)] & _MAGNITUDE) >= pivot
        if hits:
            for i in range(_PART):
                places[count] = first + _U(i)
                kept[count] = bits[first + _U(i)]
                count += _U((bits[first + _U(i)] & _MAGNITUDE) >= pivot)
    return count


@njit(cache=True, nogil=True)
def _find(bits: Any, pivot: Any, places: Any, kept: Any) -> Any:
    """How many keys reach the pivot; their places, and their bits. -1 where there is no room for all."""
    count, room, begin = _U(0), _U(places.size), _U(0)
    for _ in range(bits.size // _GROUP):
        hits = False
        for i in range(_GROUP):
            hits |= (bits[begin + _U(i)] & _MAGNITUDE) >= pivot
        if hits:
            if count + _U(_GROUP) > room:
                return -1
            count = _collect(bits, begin, pivot, places, kept, count)
        begin += _U(_GROUP)
    return _last(bits, begin, pivot, places, kept, count)


@njit(cache=True, nogil=True)
def _add_and_find(v: Any, memory: Any, whole: Any, bits: Any, pivot: Any, places: Any, kept: Any) -> Any:
    """As `_find`, of `whole`, which becomes v + memory and has these `bits`; `memory` is None for zero."""
    count, room, begin = _U(0), _U(places.size), _U(0)
    full: Any = False
    for _ in range(bits.size // _GROUP):
        hits = False
        for i in range(_GROUP):
            if memory is None:
                x = v[begin + _U(i)]
            else:
                x = v[begin + _U(i)] + memory[begin + _U(i)]
            whole[begin + _U(i)] = x
            hits |= (np.int32(as_bits(x)) & _MAGNITUDE) >= pivot
        if hits and not full:
            full = count + _U(_GROUP) > room
            if not full:
                count = _collect(bits, begin, pivot, places, kept, count)
        begin += _U(_GROUP)
    for i in range(np.int64(begin), bits.size):
        if memory is None:
            whole[i] = v[i]
        else:
            whole[i] = v[i] + memory[i]
    return -1 if full else _last(bits, begin, pivot, places, kept, count)


@njit(cache=True, nogil=True)
def _last(bits: Any, begin: Any, pivot: Any, places: Any, kept: Any, count: Any) -> Any:
    """What is left from `begin` on, less than a group."""
    found: Any = np.int64(count)
    for i in range(np.int64(begin), bits.size):
        if (bits[i] & _MAGNITUDE) >= pivot:
            if found >= places.size:
                return -1
            places[found], kept[found] = i, bits[i]
            found += 1
    return found


@njit(cache=True, nogil=True)
def _strata(key: Any, count: int, size: int, places: Any, widths: Any) -> None:
    step = np.uint64(0x9E3779B97F4A7C15)
    state, edge = np.uint64(key), 0
    whole, part, rest = size // count, size % count, 0
    for j in range(count):
        state += step
        z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        # floor((j + 1) size / count), without a product that could overflow
        rest += part
        width = whole
        if rest >= count:
            rest -= count
            width += 1
        places[j] = edge + np.int64(z % np.uint64(width))
        widths[j] = width
        edge += width


def largest(v: Floats, k: int) -> tuple[Places, Floats]:
    """See `reference.select.largest`."""
    if k <= 0:
        return np.empty(0, np.int64), v[:0]
    pivot, (places, kept) = pivot_of(sampled(v, None), v.size, k), _room(v.size, k)
    return _enough(v, places, kept, _find(v.view(np.int32), np.int32(pivot), places, kept), k, pivot)


def add_and_find(v: Floats, memory: Floats | None, k: int) -> tuple[Floats, Places, Floats]:
    """See `reference.select.add_and_find`."""
    if k <= 0:
        return v.copy() if memory is None else v + memory, np.empty(0, np.int64), v[:0]
    pivot, (places, kept) = pivot_of(sampled(v, memory), v.size, k), _room(v.size, k)
    whole = np.empty_like(v)
    count = _add_and_find(v, memory, whole, whole.view(np.int32), np.int32(pivot), places, kept)
    return whole, *_enough(whole, places, kept, count, k, pivot)


def strata(key: int, count: int, size: int) -> tuple[Places, Places]:
    """See `reference.select.strata`."""
    places, widths = np.empty(count, np.int64), np.empty(count, np.int64)
    if count:
        _strata(np.uint64(key), count, size, places, widths)
    return places, widths


def _room(size: int, k: int) -> tuple[Places, Ints]:
    """Space for the candidates of a good pivot; a bad one, or many ties, need more and get it in `_enough`."""
    room = min(size, 2 * k + 4096) + _GROUP
    return np.empty(room, np.int64), np.empty(room, np.int32)


def _enough(v: Floats, places: Places, kept: Ints, count: int, k: int, pivot: int) -> tuple[Places, Floats]:
    if 0 <= count < k and pivot > 1:
        pivot, count = exact_pivot(v.view(np.uint32), k), -1
    if count < 0:
        places, kept = np.empty(v.size + _GROUP, np.int64), np.empty(v.size + _GROUP, np.int32)
        count = _find(v.view(np.int32), np.int32(pivot), places, kept)
    return finish(places[:count], kept[:count].view(np.uint32), k)
