"""CSV files of what happened when at which node: read with errors that name the line, written so that they read back.

A table is a header and rows that begin with `time_s,node`. What the other columns mean is the caller's business.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .arguments import Floats, Indices

__all__ = ["Histories", "metres", "read_table", "write_table"]


class Histories:
    """Rows sorted by node and time: which one was the last at any time.

    Args:
        node: int64 [rows], 0 to nodes - 1.
        time_s: float64 [rows].
        nodes: how many nodes there are; those without a row are allowed.

    Raises:
        DataError: not a time for each row, a node or time that cannot be, or a node with two rows at one time.
    """

    def __init__(self, node: Indices, time_s: Floats, nodes: int) -> None:
        if node.ndim != 1 or node.shape != time_s.shape:
            raise DataError(f"nodes of shape {node.shape} and times of {time_s.shape}; give one of each per row")
        if (node < 0).any() or not np.isfinite(time_s).all():
            raise DataError("a node below 0, or a time that is no finite number; give partition-ids and seconds")
        self.order = np.lexsort((time_s, node))
        self.time_s = time_s[self.order]
        in_order = node[self.order]
        twice = np.flatnonzero((np.diff(in_order) == 0) & (np.diff(self.time_s) == 0))
        if len(twice):
            i = twice[0]
            raise DataError(f"node {in_order[i]} has two rows at {self.time_s[i]} s; leave one of them")
        bounds = np.searchsorted(in_order, np.arange(nodes + 1))
        self.first, self.end = bounds[:-1], bounds[1:]

    def last_at(self, time_s: float) -> Indices:
        """Position in the sorted rows of each node's last row at `time_s` or earlier, [nodes]; first - 1: none yet."""
        # Bisection of all nodes at once: rows below `low` are known to be early enough, rows from `high` on not.
        low, high = self.first.copy(), self.end.copy()
        open_ = np.flatnonzero(low < high)
        while len(open_):
            middle = (low[open_] + high[open_]) // 2
            early = self.time_s[middle] <= time_s
            low[open_[early]] = middle[early] + 1
            high[open_[~early]] = middle[~early]
            open_ = open_[low[open_] < high[open_]]
        return np.asarray(low - 1)


def read_table(
    path: str | os.PathLike[str], columns: Sequence[str], values: Callable[[Sequence[str]], Any]
) -> tuple[Indices, Floats, list[Any]]:
    """Rows of a CSV file with the header `time_s,node` and then `columns`; empty lines are skipped.

    Args:
        path: the file.
        columns: names of the columns after `time_s` and `node`.
        values: what a row's further fields mean; raises ValueError that says what was expected.

    Returns:
        node int64 [rows], time_s float64 [rows], values of each row; in the order of the file.

    Raises:
        DataError: the file cannot be read, or a line of it is not as expected; the line is named.
    """
    header = ["time_s", "node", *columns]
    times: list[float] = []
    nodes: list[int] = []
    found: list[Any] = []
    line_of: dict[tuple[int, float], int] = {}
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            first = [name.strip() for name in next(reader, [])]
            if first != header:
                raise DataError(f"{path}, line 1: {','.join(first)!r}; begin the file with {','.join(header)!r}")
            for row in reader:
                if not row:
                    continue
                try:
                    if len(row) != len(header):
                        raise ValueError(f"{len(row)} fields; give {len(header)}: {','.join(header)}")
                    time_s, node = _seconds(row[0]), _number(row[1])
                    if (before := line_of.setdefault((node, time_s), reader.line_num)) != reader.line_num:
                        raise ValueError(f"node {node} at {time_s} s is in line {before} already; leave one of them")
                    found.append(values([field.strip() for field in row[2:]]))
                except ValueError as error:
                    raise DataError(f"{path}, line {reader.line_num}: {error}") from error
                times.append(time_s)
                nodes.append(node)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV ({error}); give a text file of {','.join(header)}") from error
    if not times:
        raise DataError(f"{path} has no rows; give at least one line of {','.join(header)}")
    return np.array(nodes, dtype=np.int64), np.array(times, dtype=np.float64), found


def write_table(path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a table that `read_table` reads back exactly; folders on the way are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["time_s", "node", *columns])
        writer.writerows(rows)
    return path


def metres(name: str, text: str) -> float:
    """A finite number of metres.

    Raises:
        ValueError: anything else.
    """
    value = _float(text)
    if not math.isfinite(value):
        raise ValueError(f"{name} = {text!r}; give a number of metres")
    return value


def _seconds(text: str) -> float:
    value = _float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"time_s = {text!r}; give seconds from 0 on")
    return value


def _number(text: str) -> int:
    try:
        node = int(text)
    except ValueError:
        node = -1
    if node < 0:
        raise ValueError(f"node = {text!r}; give the node's partition-id, a whole number from 0 on")
    return node


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
