"""How likely each place of a vector is to move, by how the model moved in the last rounds: a group for each place.

    e       sum over the last aggregates of |a| / 2^age, and q, the same in steps of max(e) / 2^20
    p       q's row sum times its column sum over its matrix's sum: where rows and columns moved, their places will
    score   5 q + 11 p for matrices, 16 q for vectors

The hottest group comes first, the last holds what did not move at all. Sums are of whole numbers, and floats are only
multiplied one by one, so both ends and both rooms of kernels find the same groups. Nothing here encodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["EDGES", "FINEST", "LEAST", "MOST", "Ints", "Matrices", "grouped", "places_of", "spots_of", "thresholds"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Groups = npt.NDArray[np.uint8]
#: Where each array begins, its rows and its columns.
Matrices = Sequence[tuple[int, int, int]]

#: How many of 2^16 places are in the groups up to each edge: halving towards the hottest, and between from 2^-8 on.
EDGES = tuple(sorted([1 << bit for bit in range(6, 16)] + [3 << bit for bit in range(7, 13)]))
FINEST = 1 << 20
#: Where nothing moved by more, nothing is known: below 2^-100 steps could be numbers that some processes take for zero.
LEAST = 2.0**-80
#: Above any score that decides: keeps the sum below 2^31.
MOST = 1 << 26
_SAMPLE, _CHUNK = 1 << 16, 1 << 16


def grouped(aggregates: Sequence[Floats], matrices: Matrices) -> tuple[Groups, Ints] | None:
    """The group of each place, [size], and how many places each group has.

    Args:
        aggregates: newest first, [size] each, at least one.
        matrices: of all arrays, one after the other; a vector has one row.

    Returns:
        `None`: nothing moved by 2^-80 or more, or something in the aggregates is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        moved = np.abs(aggregates[0])
        for age, older in enumerate(aggregates[1:], 1):
            for begin in range(0, moved.size, _CHUNK):
                part = slice(begin, begin + _CHUNK)
                moved[part] += np.abs(older[part]) * np.float32(0.5**age)
        most = float(moved.max(initial=0.0))
    if not LEAST <= most < np.inf:
        return None
    score = np.empty(moved.size, np.int32)
    for begin, rows, columns in matrices:
        _score(moved[begin : begin + rows * columns], score[begin : begin + rows * columns], rows, columns, most)
    limits = thresholds(score)
    groups = np.zeros(score.size, np.uint8)
    for begin in range(0, score.size, _CHUNK):
        part = slice(begin, begin + _CHUNK)
        for limit in limits:
            groups[part] += score[part] < limit
    return groups, np.bincount(groups, minlength=len(limits) + 1)


def _score(moved: Floats, score: npt.NDArray[np.int32], rows: int, columns: int, most: float) -> None:
    unit = scale(most)
    if rows < 2 or columns < 2:
        for begin in range(0, moved.size, _CHUNK):
            part = slice(begin, begin + _CHUNK)
            score[part] = (moved[part].astype(np.float64) * unit).astype(np.int32) * 16
        return
    matrix, out = moved.reshape(rows, columns), score.reshape(rows, columns)
    steps = max(1, _CHUNK // columns)
    by_row, by_column = np.zeros(rows, np.int64), np.zeros(columns, np.int64)
    for begin in range(0, rows, steps):
        part = slice(begin, begin + steps)
        out[part] = matrix[part].astype(np.float64) * unit
        by_row[part] = out[part].sum(axis=1, dtype=np.int64)
        by_column += out[part].sum(axis=0, dtype=np.int64)
    share = by_column / float(max(int(by_row.sum()), 1))
    for begin in range(0, rows, steps):
        part = slice(begin, begin + steps)
        product = np.minimum(by_row[part, None].astype(np.float64) * share, MOST).astype(np.int32)
        out[part] = 5 * out[part] + 11 * product


def scale(most: float) -> float:
    """The power of two that takes numbers up to `most` to steps up to 2^20."""
    return float(FINEST * 2.0 ** -np.frexp(most)[1])


def thresholds(score: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The least score of each group but the last, falling, 1 at least; from up to 65,536 of the scores."""
    stride = max(1, score.size // _SAMPLE)
    places = np.arange(score.size // stride, dtype=np.int64) * stride
    places += (places // stride * 40503 & 0xFFFF) % stride
    some = np.sort(score[places])[::-1]
    ranks = [max(1, edge * some.size >> 16) for edge in EDGES]
    limits: npt.NDArray[np.int32] = np.maximum(some[np.array(ranks) - 1], 1)
    return limits


def spots_of(groups: Groups, members: Ints, places: Ints) -> tuple[Ints, Ints]:
    """How many of the sorted places are in each group, and where among its members, one group after the other."""
    own = groups[places]
    found = []
    for group in range(len(members)):
        wanted = places[own == group]
        found.append(np.searchsorted(np.flatnonzero(groups == group), wanted) if wanted.size else wanted)
    return np.bincount(own, minlength=len(members)), np.concatenate(found)


def places_of(groups: Groups, ones: Ints, spots: Ints) -> Ints:
    """Inverse of `spots_of`: the places, one group after the other."""
    places, done = np.empty(spots.size, np.int64), 0
    for group, count in enumerate(ones.tolist()):
        if count:
            places[done : done + count] = np.flatnonzero(groups == group)[spots[done : done + count]]
            done += count
    return places
