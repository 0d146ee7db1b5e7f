"""Who entered, who left, who is handed over: the difference between two answers to "who is where".

A value computed from two arrays. What to do about it is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError
from .arguments import Indices

__all__ = ["Moves", "moves_between"]


@dataclass(frozen=True, eq=False)
class Moves:
    """Nodes by what became of them; each node in at most one of the three, ascending. All int64.

    entered: nodes that were nowhere and now are in cell `into`, [entered] both.
    left: nodes that were in cell `out_of` and now are nowhere, [left] both.
    handed_over: nodes that were in cell `source` and now are in another, `target`, [handed_over] all three.
    """

    entered: Indices
    into: Indices
    left: Indices
    out_of: Indices
    handed_over: Indices
    source: Indices
    target: Indices

    def __len__(self) -> int:
        """How many nodes moved in any of the three ways."""
        return len(self.entered) + len(self.left) + len(self.handed_over)

    def applied_to(self, before: ArrayLike) -> Indices:
        """Where everybody is after these moves, int64 [nodes]; `before` stays as it is.

        >>> moves_between([0, 1, -1], [1, -1, 0]).applied_to([0, 1, -1])
        array([ 1, -1,  0])
        """
        now = np.array(before, dtype=np.int64)
        now[self.entered] = self.into
        now[self.left] = -1
        now[self.handed_over] = self.target
        return now


def moves_between(before: ArrayLike | None, now: ArrayLike) -> Moves:
    """What changed between two answers of `Located.where`.

    Args:
        before: index of each node's cell, -1 for none, [nodes]; None: nobody was anywhere.
        now: the same, later.

    Raises:
        DataError: the two are not of the same length.

    >>> moves = moves_between([0, 0, 1, -1], [0, 1, -1, 1])
    >>> moves.handed_over, moves.source, moves.target, moves.left, moves.entered
    (array([1]), array([0]), array([1]), array([2]), array([3]))
    """
    new = np.asarray(now, dtype=np.int64)
    old = np.full_like(new, -1) if before is None else np.asarray(before, dtype=np.int64)
    if old.shape != new.shape or new.ndim != 1:
        raise DataError(
            f"cells of shape {old.shape} before and {new.shape} now; give one cell for each of the same nodes"
        )
    entered = np.flatnonzero((old < 0) & (new >= 0))
    left = np.flatnonzero((old >= 0) & (new < 0))
    handed_over = np.flatnonzero((old >= 0) & (new >= 0) & (old != new))
    return Moves(entered, new[entered], left, old[left], handed_over, old[handed_over], new[handed_over])
