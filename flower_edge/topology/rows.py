"""Sums and maxima over the links of each receiver: the rows of a sparse matrix kept as flat arrays.

`indptr` cuts an array over links into rows, as in CSR: row i is `values[indptr[i]:indptr[i + 1]]`. A node without
neighbours has an empty row; NumPy's `reduceat` is wrong for those (it gives the next row's first value), so every
function here masks them. Nothing here knows what the values mean, and nothing is dense in nodes x nodes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["entries_of", "first_of_largest", "largest_in_rows", "smallest_in_rows", "spread", "sum_rows"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def _reduce(ufunc: np.ufunc, values: npt.NDArray[np.float64], indptr: Indices, empty: float) -> Floats:
    out = np.full(len(indptr) - 1, empty)
    values = np.asarray(values, np.float64)  # reduceat would or the values of a mask instead of adding them
    full = indptr[1:] > indptr[:-1]
    if full.all():
        return np.asarray(ufunc.reduceat(values, indptr[:-1]), dtype=np.float64) if len(values) else out
    if full.any():
        out[full] = ufunc.reduceat(values, indptr[:-1][full])
    return out


def sum_rows(values: npt.NDArray[np.float64], indptr: Indices) -> Floats:
    """Sum of each row, 0 for an empty one. float64 [nodes].

    >>> sum_rows(np.array([1.0, 2.0, 5.0]), np.array([0, 2, 2, 3]))
    array([3., 0., 5.])
    """
    return _reduce(np.add, values, indptr, 0.0)


def largest_in_rows(values: npt.NDArray[np.float64], indptr: Indices, empty: float = -np.inf) -> Floats:
    """Largest of each row, `empty` for an empty one. float64 [nodes]."""
    return _reduce(np.maximum, values, indptr, empty)


def smallest_in_rows(values: npt.NDArray[np.float64], indptr: Indices, empty: float = np.inf) -> Floats:
    """Smallest of each row, `empty` for an empty one. float64 [nodes]."""
    return _reduce(np.minimum, values, indptr, empty)


def spread(per_node: npt.NDArray[np.float64], indptr: Indices) -> Floats:
    """A value per row, repeated for each link of it: [nodes] to [links]."""
    return np.repeat(per_node, np.diff(indptr))


def entries_of(rows: Indices, indptr: Indices) -> tuple[Indices, Indices]:
    """Where the links of some rows lie, row after row, int64; and where among those each row begins, [rows + 1].

    >>> at, cuts = entries_of(np.array([2, 0]), np.array([0, 2, 2, 3]))
    >>> at, cuts
    (array([2, 0, 1]), array([0, 1, 3]))
    """
    counts = indptr[rows + 1] - indptr[rows]
    cuts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(counts, out=cuts[1:])
    return np.arange(cuts[-1]) + np.repeat(indptr[rows] - cuts[:-1], counts), cuts


def first_of_largest(values: npt.NDArray[np.float64], indptr: Indices) -> Indices:
    """Index into `values` of each row's largest, the first where several are; -1 for an empty row. int64 [nodes].

    NaN is passed over; a row of nothing else counts as empty.

    >>> first_of_largest(np.array([1.0, 3.0, 3.0, 5.0]), np.array([0, 3, 3, 4]))
    array([ 1, -1,  3])
    """
    out = np.full(len(indptr) - 1, -1, np.int64)
    if len(values) == 0:
        return out
    at = np.flatnonzero(values == spread(_reduce(np.fmax, values, indptr, -np.inf), indptr))
    rows = np.searchsorted(indptr, at, side="right") - 1
    # Backwards, so that the first one of a row is written last.
    out[rows[::-1]] = at[::-1]
    return out
