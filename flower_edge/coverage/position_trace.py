"""Positions from a file, and any mobility written to one: recorded paths, edited paths, paths of a traffic simulator.

The file is CSV, one row per node and time, in any order:

    time_s,node,x_m,y_m
    0,0,10.5,20
    60,0,15,20
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError
from .arguments import Floats, Indices, moment, places
from .mobility import Mobility
from .table_file import Histories, metres, read_table, write_table

__all__ = ["PositionTrace", "write_trace"]


class PositionTrace:
    """Nodes on given paths: straight between two rows, still before the first and after the last.

    Args:
        node: whose row it is, [rows]; every node from 0 to the greatest has at least one.
        time_s: when, [rows], in any order; no node has two rows at one time.
        positions_m: where, [rows, 2].

    Raises:
        DataError: columns that do not fit each other, a node without a row, or one with two at one time.

    >>> PositionTrace([0, 0], [0.0, 10.0], [[0, 0], [100, 50]]).positions_m(4.0)
    array([[40., 20.]])
    """

    def __init__(self, node: ArrayLike, time_s: ArrayLike, positions_m: ArrayLike) -> None:
        nodes, times_s = np.asarray(node, dtype=np.int64), np.asarray(time_s, dtype=np.float64)
        at_m = places("positions_m", positions_m)
        count = int(nodes.max(initial=-1)) + 1
        self._rows = Histories(nodes, times_s, count)
        if len(at_m) != len(nodes):
            raise DataError(f"{len(nodes)} nodes and {len(at_m)} positions; give as many of each")
        self._positions_m = at_m[self._rows.order]
        absent = np.flatnonzero(self._rows.first == self._rows.end)
        if len(absent):
            raise DataError(
                f"node {absent[0]} has no row, and nodes go from 0 to {count - 1}; give each at least one row"
            )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> PositionTrace:
        """Paths from a CSV file with the columns time_s,node,x_m,y_m.

        Raises:
            DataError: the file cannot be read; a line is not as expected (it is named); a node has no row.
        """
        node, time_s, at_m = read_table(
            path, ("x_m", "y_m"), lambda row: (metres("x_m", row[0]), metres("y_m", row[1]))
        )
        try:
            return cls(node, time_s, at_m)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    @property
    def nodes(self) -> int:
        """How many terminals there are."""
        return len(self._rows.first)

    def positions_m(self, time_s: float) -> Floats:
        """Positions at `time_s`, float64 [nodes, 2]."""
        time_s = moment(time_s)
        rows = self._rows
        last: Indices = rows.last_at(time_s)
        here, there = np.maximum(last, rows.first), np.minimum(last + 1, rows.end - 1)
        span_s = rows.time_s[there] - rows.time_s[here]
        part = np.divide(time_s - rows.time_s[here], span_s, out=np.zeros_like(span_s), where=span_s > 0)[:, None]
        return np.asarray((1 - part) * self._positions_m[here] + part * self._positions_m[there])


def write_trace(path: str | os.PathLike[str], mobility: Mobility, times_s: Iterable[float]) -> Path:
    """Write where everybody is at these times, for `PositionTrace.read` to read back, exactly.

    Args:
        path: the CSV file; folders on the way are made.
        mobility: who is where.
        times_s: when, each time once.

    Returns:
        The path.
    """
    rows = (
        (time_s, node, x_m, y_m)
        for time_s in map(float, times_s)
        for node, (x_m, y_m) in enumerate(mobility.positions_m(time_s).tolist())
    )
    return write_table(path, ("x_m", "y_m"), rows)
