"""`Experience`: what replies have taught about nodes, as columns that grow with the nodes that were seen.

A value: every change gives a new one, and it goes to a checkpoint and to another edge as plain values. It does not
know where a number came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .candidates import Candidates, Column, as_column

__all__ = ["Experience"]

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Experience:
    """Columns of numbers and texts by node, NaN or `None` for what is not known.

    Attributes:
        nodes: uint64 [nodes], ids, rising.
        columns: name to [nodes] values, as in `Candidates`.

    >>> seen = Experience().noted("loss", {9: 0.5}).noted("picks", {7: 1.0})
    >>> seen.nodes, seen.columns["loss"]
    (array([7, 9], dtype=uint64), array([nan, 0.5]))
    >>> seen.of(np.array([9, 8])).column("loss")
    array([0.5, nan])
    """

    nodes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    columns: Mapping[str, Column] = field(default_factory=dict)

    def noted(self, name: str, values: Mapping[int, bool | int | float | str]) -> Experience:
        """With values of one column for some nodes, new ones among them."""
        if not values:
            return self
        ids = np.fromiter(values, np.uint64, len(values))
        grown = self._with(ids)
        fresh = as_column(values.values())
        column = grown.columns.get(name)
        if column is None:
            column = _unknown(len(grown.nodes), fresh.dtype)
        elif column.dtype != fresh.dtype:
            # One node tells a number where another told a text: both are kept as they are.
            column, fresh = column.astype(object), fresh.astype(object)
        else:
            column = column.copy()
        column[np.searchsorted(grown.nodes, ids)] = fresh
        return Experience(grown.nodes, {**grown.columns, name: column})

    def counted(self, name: str, nodes: NDArray[np.uint64]) -> Experience:
        """With one more in a column of counts for each of the nodes; who had none has one."""
        grown = self._with(nodes)
        column = np.array(grown.columns.get(name, np.full(len(grown.nodes), np.nan)), np.float64)
        places = np.searchsorted(grown.nodes, nodes)
        column[places] = np.nan_to_num(column[places]) + 1.0
        return Experience(grown.nodes, {**grown.columns, name: column})

    def marked(self, name: str, nodes: NDArray[np.uint64], value: float) -> Experience:
        """With the same number in a column for each of the nodes."""
        grown = self._with(nodes)
        column = np.array(grown.columns.get(name, np.full(len(grown.nodes), np.nan)), np.float64)
        column[np.searchsorted(grown.nodes, nodes)] = value
        return Experience(grown.nodes, {**grown.columns, name: column})

    def of(self, nodes: NDArray[np.uint64]) -> Candidates:
        """A table of these nodes, in their order."""
        if not len(self.nodes):
            return Candidates(nodes, {name: _unknown(len(nodes), self.columns[name].dtype) for name in self.columns})
        places = np.minimum(np.searchsorted(self.nodes, nodes), len(self.nodes) - 1)
        strange = self.nodes[places] != nodes
        columns = {name: values[places] for name, values in self.columns.items()}
        if strange.any():
            for values in columns.values():
                values[strange] = None if values.dtype == object else np.nan
        return Candidates(nodes, columns)

    def with_row(self, node: int, row: Mapping[str, bool | int | float | str]) -> Experience:
        """With all that is known of one node, in plain values; what it has no value for is unknown.

        >>> Experience().noted("loss", {9: 0.5}).with_row(7, {"picks": 2}).columns
        {'loss': array([nan, 0.5]), 'picks': array([ 2., nan])}
        """
        place = int(np.searchsorted(self.nodes, np.uint64(node)))
        behind = place + 1 if node in self else place
        nodes = _spliced(self.nodes, place, behind, node)
        columns: dict[str, Column] = {}
        for name in {**self.columns, **row}:
            value, column = row.get(name), self.columns.get(name)
            if column is None:
                column = _unknown(len(self.nodes), np.dtype(object if isinstance(value, str) else np.float64))
            elif isinstance(value, str) and column.dtype != object:
                column = column.astype(object)
            missing = None if column.dtype == object else np.nan
            columns[name] = _spliced(column, place, behind, missing if value is None else value)
        return Experience(nodes, columns)

    def without(self, node: int) -> Experience:
        """With nothing known of a node."""
        kept = self.nodes != node
        return Experience(self.nodes[kept], {name: values[kept] for name, values in self.columns.items()})

    def __contains__(self, node: int) -> bool:
        """Whether anything was ever noted of a node."""
        place = int(np.searchsorted(self.nodes, np.uint64(node)))
        return place < len(self.nodes) and bool(self.nodes[place] == node)

    def row(self, node: int) -> dict[str, Any]:
        """What is known of one node, in plain values.

        >>> Experience().noted("loss", {7: 0.5}).noted("picks", {8: 1}).row(7)
        {'loss': 0.5}
        """
        return self.of(np.array([node], np.uint64)).row(0) if node in self else {}

    def dump(self) -> dict[str, Any]:
        """As plain values and arrays, for a checkpoint."""
        texts = {name: list(values) for name, values in self.columns.items() if values.dtype == object}
        numbers = {name: values for name, values in self.columns.items() if values.dtype != object}
        return {"nodes": self.nodes, "numbers": numbers, "texts": texts}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> Experience:
        """Inverse of `dump`."""
        columns: dict[str, Column] = {name: np.asarray(values, np.float64) for name, values in saved["numbers"].items()}
        for name, values in saved["texts"].items():
            columns[name] = np.empty(len(values), object)
            columns[name][:] = values
        return cls(np.asarray(saved["nodes"], np.uint64), columns)

    def _with(self, ids: Iterable[int] | NDArray[np.uint64]) -> Experience:
        new = np.setdiff1d(np.asarray(ids, np.uint64), self.nodes)
        if not len(new):
            return self
        nodes = np.concatenate([self.nodes, new])
        order = np.argsort(nodes)
        return Experience(
            nodes[order],
            {
                name: np.concatenate([values, _unknown(len(new), values.dtype)])[order]
                for name, values in self.columns.items()
            },
        )


def _spliced(values: Column, place: int, behind: int, value: Any) -> Column:
    """The values before `place`, a new one, and those from `behind` on."""
    out = np.empty(place + 1 + len(values) - behind, values.dtype)
    out[:place], out[place], out[place + 1 :] = values[:place], value, values[behind:]
    return out


def _unknown(count: int, dtype: Any) -> Column:
    """Nothing known: NaN, or `None` among texts."""
    return np.full(count, np.nan if np.issubdtype(dtype, np.floating) else None, dtype)
