"""Cells by network attachment: which access point each terminal was logged in at, from a file.

The file is CSV, one row per change, in any order; an empty cell is out of coverage:

    time_s,node,cell
    0,0,hall
    340,0,
    600,0,yard
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError
from .arguments import Indices, cell_names, moment
from .located import Located
from .moves import moves_between
from .table_file import Histories, read_table, write_table

__all__ = ["ByTrace", "write_attachment"]


class ByTrace:
    """What a log of attachments says: a node is in the cell of its last row, and nowhere before its first.

    Args:
        node: whose row it is, [rows].
        time_s: when it attached, [rows], in any order; no node has two rows at one time.
        cell: where to, [rows]; "" or None out of coverage.
        cells: names of the cells; without it those of the rows, in the order of their names.
        nodes: how many nodes there are; without it up to the greatest in the rows. One without a row is nowhere.

    Raises:
        DataError: columns that do not fit each other, a cell or node that there is not, two rows at one time.

    >>> located = ByTrace([0, 0, 1], [0.0, 9.0, 5.0], ["hall", "", "yard"])
    >>> located.cells, located.where(5.0), located.where(9.0)
    (('hall', 'yard'), array([0, 1]), array([-1,  1]))
    """

    def __init__(
        self,
        node: ArrayLike,
        time_s: ArrayLike,
        cell: Sequence[str | None],
        *,
        cells: Sequence[str] | None = None,
        nodes: int | None = None,
    ) -> None:
        who, times_s = np.asarray(node, dtype=np.int64), np.asarray(time_s, dtype=np.float64)
        named = sorted({name for name in cell if name})
        if cells is None and not named:
            raise DataError("no row names a cell; say which there are: cells=[...]")
        self._cells = cell_names(named if cells is None else cells)
        strange = [name for name in named if name not in self._cells]
        if strange:
            raise DataError(
                f"cell {strange[0]!r} is none of {', '.join(self._cells)}; add it to cells, or mend the row"
            )
        most = int(who.max(initial=-1)) + 1
        count = most if nodes is None else nodes
        if most > count:
            raise DataError(f"a row of node {most - 1}, but nodes = {count}; nodes go from 0 to {count - 1}")
        self._rows = Histories(who, times_s, count)
        if len(cell) != len(who):
            raise DataError(f"{len(who)} nodes and {len(cell)} cells; give as many of each")
        index = {name: i for i, name in enumerate(self._cells)}
        indices = np.fromiter((index[name] if name else -1 for name in cell), np.int64, len(cell))
        # One more entry in front: what a node without a row yet is in.
        self._where = np.concatenate([[-1], indices[self._rows.order]])

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], *, cells: Sequence[str] | None = None, nodes: int | None = None
    ) -> ByTrace:
        """A log from a CSV file with the columns time_s,node,cell; `cells` and `nodes` as in the class.

        Raises:
            DataError: the file cannot be read; a line is not as expected (it is named); as in the class.
        """
        node, time_s, cell = read_table(path, ("cell",), lambda row: row[0])
        try:
            return cls(node, time_s, cell, cells=cells, nodes=nodes)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cells."""
        return self._cells

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return len(self._rows.first)

    def where(self, time_s: float, before: Indices | None = None) -> Indices:
        """The cell of each node's last row at `time_s`, -1 for none, int64 [nodes]; it depends on the time only."""
        del before
        last = self._rows.last_at(moment(time_s))
        return np.asarray(self._where[np.where(last < self._rows.first, 0, last + 1)])


def write_attachment(path: str | os.PathLike[str], located: Located, times_s: Iterable[float]) -> Path:
    """Write who is where as a log of changes, for `ByTrace.read` to read back: the same at each of these times.

    Args:
        path: the CSV file; folders on the way are made.
        located: who is where; asked in the order of time, with the answer before.
        times_s: when to look.

    Returns:
        The path.

    Raises:
        DataError: no time is given.
    """
    rows: list[tuple[float, int, str]] = []
    before: Indices | None = None
    times = sorted(map(float, times_s))
    if not times:
        raise DataError("no times to write; give at least one")
    names = (*located.cells, "")
    for time_s in times:
        now = located.where(time_s, before)
        if before is None:
            changed = np.arange(len(now))
        else:
            moves = moves_between(before, now)
            changed = np.sort(np.concatenate([moves.entered, moves.left, moves.handed_over]))
        rows += [(time_s, int(i), names[now[i]]) for i in changed]
        before = now
    return write_table(path, ("cell",), rows)
