"""Turns one after another, each node at its own: trips of a moving terminal, absences of one that vanishes.

Node i's turn t lasts as long as a function of (i, t) says, and the next begins when it ends. The answer for a point in
time does not depend on what was asked before. What happens in a turn is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arguments import Floats, Indices, moment
from .snapshots import Snapshots

__all__ = ["Renewals"]


class Renewals:
    """Which turn each node is in, and since when.

    Args:
        nodes: how many.
        lasting_s: (nodes, turns) -> seconds each of these turns lasts, [nodes], not negative and not 0 for ever;
            a pure function.

    >>> turns = Renewals(2, lasting_s=lambda nodes, turns: 1.0 + nodes)
    >>> turns.at(4.5)
    (array([4, 2]), array([4., 4.]))
    """

    def __init__(self, nodes: int, lasting_s: Callable[[Indices, Indices], Floats]) -> None:
        self._lasting_s = lasting_s
        everyone, turn, start_s = np.arange(nodes), np.zeros(nodes, np.int64), np.zeros(nodes)
        self._snapshots = Snapshots(0.0, (turn, start_s, start_s + lasting_s(everyone, turn)))

    def at(self, time_s: float) -> tuple[Indices, Floats]:
        """Turn, counted from 0, and when it began in seconds; both [nodes], not to be written to."""
        time_s = moment(time_s)
        _, (turn, start_s, end_s) = self._snapshots.last_before(time_s)
        behind = np.flatnonzero(end_s <= time_s)
        if not len(behind):
            return turn, start_s
        turn, start_s, end_s = turn.copy(), start_s.copy(), end_s.copy()
        while len(behind):
            turn[behind] += 1
            start_s[behind] = end_s[behind]
            end_s[behind] += self._lasting_s(behind, turn[behind])
            behind = behind[end_s[behind] <= time_s]
        self._snapshots.remember(time_s, (turn, start_s, end_s))
        return turn, start_s
