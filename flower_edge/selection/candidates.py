"""`Candidates`: the nodes a choice is made from, and what is known of each, as columns.

A frozen table. Nothing here asks a node, learns or chooses.

Columns that the scores of this room read (others may be there, for the eligibility rule):

    loss          training loss the node last reported, in the loss's own units
    loss_rms      root of its mean squared loss per sample, where nodes report it
    num_examples  samples it trains on
    duration_s    seconds from sending to reply: the last one, or an estimate
    compute_s     seconds of computing in it
    up_s          seconds its upload takes at its own rate
    up_bits       size of the upload
    picks         how often it was chosen
    last_asked    the number of the choice that took it last
    last_round    the number of the choice it answered last
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

__all__ = ["Candidates", "Column", "Positions"]

Column = NDArray[Any]
#: Places in a table of candidates, in some order.
Positions = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Nodes and what is known of them.

    Attributes:
        nodes: uint64 [nodes], ids as Flower gives them, each once.
        columns: name to [nodes] values; numbers are float64 with NaN for unknown, texts are objects with `None`.

    Raises:
        ConfigError: a column that is not one value per node.

    >>> table = Candidates(np.array([7, 8, 9]), {"battery": np.array([0.9, np.nan, 0.2])})
    >>> table.take(np.array([2, 0])).nodes, table.column("load")
    (array([9, 7]), array([nan, nan, nan]))
    """

    nodes: NDArray[np.uint64]
    columns: Mapping[str, Column] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if values.shape != self.nodes.shape:
                raise ConfigError(
                    f"column {name!r} has shape {values.shape} for {len(self.nodes)} candidates; "
                    "give one value per node, NaN where it is unknown"
                )

    @classmethod
    def of(cls, rows: Mapping[int, Mapping[str, bool | int | float | str]]) -> Candidates:
        """A table from what each node told; what a node did not tell is unknown.

        >>> Candidates.of({7: {"load": 0.5}, 8: {"place": "hall"}}).columns
        {'load': array([0.5, nan]), 'place': array([None, 'hall'], dtype=object)}
        """
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        columns = {name: as_column([row.get(name) for row in rows.values()]) for name in names}
        return cls(np.fromiter(rows, np.uint64, len(rows)), columns)

    def __len__(self) -> int:
        return len(self.nodes)

    def column(self, name: str) -> NDArray[np.float64]:
        """A column of numbers, float64 [nodes]; NaN throughout where nobody knows it or it holds texts."""
        values = self.columns.get(name)
        if values is None or values.dtype.kind not in "fiub":
            return np.full(len(self.nodes), np.nan)
        return np.asarray(values, np.float64)

    def row(self, position: int) -> dict[str, float | str]:
        """What is known of one candidate, in plain values.

        >>> Candidates(np.array([7, 8]), {"load": np.array([0.5, np.nan]), "picks": np.zeros(2)}).row(1)
        {'picks': 0.0}
        """
        values = ((name, column[position]) for name, column in self.columns.items())
        return {
            name: value if isinstance(value, str) else float(value)
            for name, value in values
            if value is not None and value == value
        }

    def take(self, positions: Positions) -> Candidates:
        """Some of the candidates, in the order given."""
        return Candidates(self.nodes[positions], {name: values[positions] for name, values in self.columns.items()})


def as_column(values: Iterable[bool | int | float | str | None]) -> Column:
    """Values of one name, one per node: float64 with NaN for `None`, or objects where one of them is a text.

    >>> as_column([True, None, 3])
    array([ 1., nan,  3.])
    """
    listed = list(values)
    if any(isinstance(value, str) for value in listed):
        texts = np.empty(len(listed), object)
        texts[:] = listed
        return texts
    return np.array([np.nan if value is None else float(value) for value in listed], np.float64)
