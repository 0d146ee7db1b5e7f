"""The nearest of many discs that a point lies in: geometry without names, time or memory.

Letters:
    centre_m[c]   float64 [discs, 2]
    radius_m[c]   float64 [discs]
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from .arguments import Floats, Indices

__all__ = ["Discs"]

#: How many of the nearest centres are looked at first; only where that does not settle it, all of them.
_NEAREST = 4
#: Distances computed at once where all centres are looked at: bounds the memory.
_AT_ONCE = 2_000_000


class Discs:
    """Discs in the plane, their border included.

    The nearest centre need not be one whose disc reaches. Discs of like size (up to a factor of 2) are therefore
    searched together: among these, one of the few nearest centres nearly always does.
    """

    def __init__(self, centre_m: Floats, radius_m: Floats) -> None:
        size = np.frexp(radius_m)[1]
        self._sizes = [_Alike(np.flatnonzero(size == s), centre_m, radius_m) for s in np.unique(size)]

    def nearest(self, at_m: Floats) -> Indices:
        """For each point the disc around it with the nearest centre, -1 for none; of equally near ones the first.

        Args:
            at_m: float64 [points, 2].

        Returns:
            int64 [points].

        >>> discs = Discs(np.array([[0.0, 0.0], [3.0, 0.0]]), np.array([9.0, 1.0]))
        >>> discs.nearest(np.array([[1.9, 0.0], [2.0, 0.0], [9.5, 0.0]]))
        array([ 0,  1, -1])
        """
        found, off_m = self._sizes[0].nearest(at_m)
        for alike in self._sizes[1:]:
            other, other_m = alike.nearest(at_m)
            better = (other_m < off_m) | ((other_m == off_m) & (other >= 0) & (other < found))
            found, off_m = np.where(better, other, found), np.where(better, other_m, off_m)
        return found


class _Alike:
    """Some of the discs, of like size; `which` are their indices, ascending."""

    def __init__(self, which: Indices, centre_m: Floats, radius_m: Floats) -> None:
        self._which, self._centre_m, self._radius_m = which, centre_m[which], radius_m[which]
        self._tree = cKDTree(self._centre_m)
        self._same = bool((self._radius_m == self._radius_m[0]).all())

    def nearest(self, at_m: Floats) -> tuple[Indices, Floats]:
        """Index among all discs, -1 for none, and distance to the centre, infinite for none; both [points]."""
        count, rows = len(self._which), np.arange(len(at_m))
        k = min(count, 2 if self._same else _NEAREST)
        # The tree compares squares and leaves the bound itself out: a little more, also for a radius of 0.
        bound_m = float(self._radius_m.max()) * (1 + 1e-9) + 1e-150
        queried = self._tree.query(at_m, k=list(range(1, k + 1)), distance_upper_bound=bound_m)
        off_m, near = np.asarray(queried[0]), np.asarray(queried[1])
        reach = off_m <= np.append(self._radius_m, -1.0)[near]  # index `count` stands for: no more centres that near
        column = reach.argmax(axis=1)
        reached = reach[rows, column]
        found = np.where(reached, near[rows, column], -1)
        found_m = np.where(reached, off_m[rows, column], np.inf)
        # Where all discs are the same, a nearest one that does not reach tells that none does; else one behind may.
        hidden = ~reached & (not self._same) & np.isfinite(off_m[:, -1])
        tied = ((off_m == found_m[:, None]) & reach).sum(axis=1) > 1
        # What is found in the last column may be as near as one that is in none.
        at_end = reached & (column == k - 1)
        unclear = np.flatnonzero((hidden | at_end if k < count else False) | tied)
        size = max(1, _AT_ONCE // count)
        for start in range(0, len(unclear), size):
            part = unclear[start : start + size]
            found[part], found_m[part] = self._among_all(at_m[part])
        return np.where(found >= 0, self._which[found], -1), found_m

    def _among_all(self, at_m: Floats) -> tuple[Indices, Floats]:
        off_m = np.sqrt(((at_m[:, None, :] - self._centre_m) ** 2).sum(axis=2))
        off_m[off_m > self._radius_m] = np.inf
        first, nearest_m = off_m.argmin(axis=1), off_m.min(axis=1)
        return np.where(np.isfinite(nearest_m), first, -1), nearest_m
