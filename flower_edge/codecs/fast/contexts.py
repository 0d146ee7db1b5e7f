"""What `reference/contexts.py` does, compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from ..reference.contexts import LEAST, MOST, Ints, Matrices, scale, thresholds

__all__ = ["grouped", "places_of", "spots_of"]

Floats = npt.NDArray[np.float32]
Groups = npt.NDArray[np.uint8]


@njit(cache=True, nogil=True)
def _add(moved: Any, older: Any, weight: Any) -> None:
    for i in range(moved.size):
        moved[i] += abs(older[i]) * weight


@njit(cache=True, nogil=True)
def _vector(moved: Any, score: Any, unit: float) -> None:
    for i in range(moved.size):
        score[i] = np.int32(np.float64(moved[i]) * unit) * 16


@njit(cache=True, nogil=True)
def _matrix(moved: Any, score: Any, unit: float, most: float) -> None:
    rows, columns = moved.shape
    by_row, by_column = np.zeros(rows, np.int64), np.zeros(columns, np.int64)
    for row in range(rows):
        source, out, total = moved[row], score[row], np.int64(0)
        for column in range(columns):
            q = np.int32(np.float64(source[column]) * unit)
            out[column] = q
            by_column[column] += q
            total += q
        by_row[row] = total
    everything = np.float64(max(by_row.sum(), 1))
    share = np.empty(columns, np.float64)
    for column in range(columns):
        share[column] = np.float64(by_column[column]) / everything
    for row in range(rows):
        out, own = score[row], np.float64(by_row[row])
        for column in range(columns):
            product = own * share[column]
            p = np.int32(product if product < most else most)
            out[column] = np.int32(5) * out[column] + np.int32(11) * p


@njit(cache=True, nogil=True)
def _group(score: Any, limits: Any, groups: Any, members: Any) -> None:
    size = score.size
    for begin in range(0, size, 1024):
        part, out = score[begin : min(begin + 1024, size)], groups[begin : min(begin + 1024, size)]
        for i in range(part.size):
            out[i] = 0
        for limit in limits:
            for i in range(part.size):
                out[i] += np.uint8(part[i] < limit)
        for i in range(part.size):
            members[out[i]] += 1


@njit(cache=True, nogil=True)
def _spots(groups: Any, places: Any, begins: Any, spots: Any) -> None:
    passed = np.zeros(begins.size, np.int64)
    at = 0
    for i in range(places.size):
        while at < places[i]:
            passed[groups[at]] += 1
            at += 1
        group = groups[at]
        spots[begins[group]] = passed[group]
        begins[group] += 1


@njit(cache=True, nogil=True)
def _places(groups: Any, begins: Any, ends: Any, spots: Any, places: Any) -> None:
    passed = np.zeros(begins.size, np.int64)
    left = spots.size
    for at in range(groups.size):
        if left == 0:
            break
        group = groups[at]
        next_one = begins[group]
        if next_one < ends[group] and spots[next_one] == passed[group]:
            places[next_one] = at
            begins[group] += 1
            left -= 1
        passed[group] += 1


def grouped(aggregates: Sequence[Floats], matrices: Matrices) -> tuple[Groups, Ints] | None:
    """See `reference.contexts.grouped`."""
    moved = np.abs(aggregates[0])
    for age, older in enumerate(aggregates[1:], 1):
        _add(moved, older, np.float32(0.5**age))
    with np.errstate(invalid="ignore"):
        most = float(moved.max(initial=0.0))
    if not LEAST <= most < np.inf:
        return None
    score = np.empty(moved.size, np.int32)
    for begin, rows, columns in matrices:
        part = slice(begin, begin + rows * columns)
        if rows < 2 or columns < 2:
            _vector(moved[part], score[part], scale(most))
        else:
            _matrix(moved[part].reshape(rows, columns), score[part].reshape(rows, columns), scale(most), float(MOST))
    limits = thresholds(score)
    groups, members = np.empty(score.size, np.uint8), np.zeros(len(limits) + 1, np.int64)
    _group(score, limits, groups, members)
    return groups, members


def spots_of(groups: Groups, members: Ints, places: Ints) -> tuple[Ints, Ints]:
    """See `reference.contexts.spots_of`."""
    ones = np.bincount(groups[places], minlength=len(members))
    spots = np.empty(places.size, np.int64)
    _spots(groups, places, np.cumsum(ones) - ones, spots)
    return ones, spots


def places_of(groups: Groups, ones: Ints, spots: Ints) -> Ints:
    """See `reference.contexts.places_of`."""
    places = np.empty(spots.size, np.int64)
    ends = np.cumsum(ones)
    _places(groups, ends - ones, ends, spots, places)
    return places
