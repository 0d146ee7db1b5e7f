"""In which cell each terminal is: the one question coverage asks, and two answers to it.

`ByPosition` looks at where terminals are; `ByFunction` asks a function of yours. More answers: `ByTrace` from a file
(attachment.py), `Jumping` for experiments (jumping.py), `OutOfCoverage` around any of them (absences.py). Nothing here
trains or sends, and node i is the node with partition-id i.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from ..errors import ConfigError
from .arguments import Indices, cell_names, moment, node_count
from .mobility import Mobility
from .regions import Regions

__all__ = ["ByFunction", "ByPosition", "Located"]


@runtime_checkable
class Located(Protocol):
    """Who is where at any time."""

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cells; `where` gives positions in it."""
        ...

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        ...

    def where(self, time_s: float, before: Indices | None = None) -> Indices:
        """The cell of each node.

        Args:
            time_s: seconds, from 0 on.
            before: the answer last time, for answers in which a node stays where it was for a while (see
                `Regions.margin_m`); all others depend on the time only.

        Returns:
            int64 [nodes]: index into `cells`, -1 out of coverage.
        """
        ...


class ByPosition:
    """The nearest edge in reach of where a terminal is.

    >>> from flower_edge.coverage import Regions, Still
    >>> located = ByPosition(Still([[1, 0], [50, 50]]), Regions(["a", "b"], [[0, 0], [10, 0]], radius_m=6))
    >>> located.where(0.0)
    array([ 0, -1])
    """

    def __init__(self, mobility: Mobility, regions: Regions) -> None:
        self.mobility = mobility
        self.regions = regions

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the regions."""
        return self.regions.names

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return self.mobility.nodes

    def where(self, time_s: float, before: Indices | None = None) -> Indices:
        """The cell of each node, -1 out of coverage; with a margin it depends on `before`. int64 [nodes]."""
        return self.regions.nearest_in_range(self.mobility.positions_m(time_s), before)


class ByFunction:
    """Whatever a function says.

    Args:
        cells: names of the cells.
        nodes: how many nodes there are.
        function: time in seconds -> for each node the name of its cell, or None out of coverage. It should give the
            same for the same time; a run that is resumed asks again.

    Raises:
        ConfigError: cells without names of their own.

    >>> located = ByFunction(["home", "work"], 2, lambda time_s: ["home", "work" if 9 <= time_s / 3600 < 17 else None])
    >>> located.where(8 * 3600.0), located.where(12 * 3600.0)
    (array([ 0, -1]), array([0, 1]))
    """

    def __init__(self, cells: Sequence[str], nodes: int, function: Callable[[float], Sequence[str | None]]) -> None:
        self._cells = cell_names(cells)
        self._nodes = node_count(nodes)
        self._function = function
        self._index: dict[str | None, int] = {name: i for i, name in enumerate(self._cells)} | {None: -1}

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cells."""
        return self._cells

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return self._nodes

    def where(self, time_s: float, before: Indices | None = None) -> Indices:
        """What the function says at `time_s`, int64 [nodes].

        Raises:
            ConfigError: it names a cell that there is not, or not one for each node.
        """
        del before  # a function of time only
        named = self._function(moment(time_s))
        if len(named) != self._nodes:
            raise ConfigError(
                f"the function gave {len(named)} cells at {time_s} s for {self._nodes} nodes; give one each"
            )
        try:
            return np.fromiter((self._index[name] for name in named), np.int64, self._nodes)
        except KeyError as error:
            raise ConfigError(
                f"the function put a node into {error.args[0]!r} at {time_s} s; cells are {', '.join(self._cells)}, "
                "and None is out of coverage"
            ) from error
