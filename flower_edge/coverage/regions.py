"""Edges at places, each with a radius: which edge a terminal at a position belongs to.

A value: positions in, indices of cells out. Nothing here moves or remembers; who was where is handed in as `before`.

Letters:
    where[i]   index of the cell of node i, -1 out of every coverage   int64 [nodes]
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ConfigError
from .arguments import Floats, Indices, area, cell_names, each, places
from .discs import Discs

__all__ = ["Regions"]


class Regions:
    """Cells as discs around their edges.

    Args:
        names: one per cell, no two the same.
        positions_m: where the edges are, [cells, 2].
        radius_m: how far an edge reaches, that distance included; one for all, or one per cell [cells].
        margin_m: a terminal that is in a cell stays until another edge is nearer by more than this, so that one on the
            border between two cells is not handed to and fro. The same idea as event A3 of mobile networks (3GPP TS
            38.331: a neighbour becomes an offset better than the serving cell), which compares signals, not distances.

    Raises:
        ConfigError: no cell, names that repeat, or numbers that do not fit them.
    """

    def __init__(
        self, names: Sequence[str], positions_m: ArrayLike, radius_m: ArrayLike, margin_m: float = 0.0
    ) -> None:
        self.names = cell_names(names)
        self.positions_m = places("positions_m", positions_m)
        if len(self.positions_m) != len(self.names):
            raise ConfigError(
                f"{len(self.names)} cells and {len(self.positions_m)} positions; give one position (x, y) per cell"
            )
        self.radius_m = each("radius_m", radius_m, len(self.names), "cells")
        if not (math.isfinite(margin_m) and margin_m >= 0):
            raise ConfigError(f"margin_m = {margin_m}; give 0 or more")
        self.margin_m = float(margin_m)
        self._discs = Discs(self.positions_m, self.radius_m)

    @classmethod
    def grid(
        cls,
        cells: int,
        area_m: tuple[float, float],
        radius_m: float | None = None,
        margin_m: float = 0.0,
        *,
        prefix: str = "edge",
    ) -> Regions:
        """Cells laid out in rows over an area, as evenly as their number allows.

        Args:
            cells: how many, at least 1; they are called `<prefix>-0`, `<prefix>-1`, … row by row from (0, 0).
            area_m: width and height.
            radius_m: of each cell; without it the least with which the whole area is covered in this layout.
            margin_m: as in the class.
            prefix: of the names.

        Raises:
            ConfigError: a number out of range.

        >>> Regions.grid(2, (400.0, 200.0)).positions_m
        array([[100., 100.],
               [300., 100.]])
        """
        if cells < 1:
            raise ConfigError(f"cells = {cells}; there is at least one")
        width_m, height_m = area(area_m)
        # Rows of columns as equal as can be; the row with the fewest has the widest cells.
        reach_m = [math.hypot(width_m / (cells // rows), height_m / rows) / 2 for rows in range(1, cells + 1)]
        rows = int(np.argmin(reach_m)) + 1
        positions_m = [
            ((column + 0.5) * width_m / len(members), (row + 0.5) * height_m / rows)
            for row, members in enumerate(np.array_split(np.arange(cells), rows))
            for column in range(len(members))
        ]
        # A little more than the corner's distance, which is rounded.
        covering_m = reach_m[rows - 1] * (1 + 1e-9)
        names = [f"{prefix}-{i}" for i in range(cells)]
        return cls(names, positions_m, covering_m if radius_m is None else radius_m, margin_m)

    def __len__(self) -> int:
        return len(self.names)

    def nearest_in_range(self, positions_m: ArrayLike, before: ArrayLike | None = None) -> Indices:
        """For each position the nearest edge whose radius reaches it.

        Args:
            positions_m: (x, y), finite, [nodes, 2].
            before: the answer last time, [nodes]; with a margin, nodes stay in reach of it until another edge is
                nearer by more than the margin. Without, or with a margin of 0, only the positions count.

        Returns:
            int64 [nodes]: index of the cell, -1 where no edge reaches; of edges exactly as near the first.

        Raises:
            ConfigError: not one position per node, or a `before` that does not fit.

        >>> Regions(["a", "b"], [[0, 0], [10, 0]], radius_m=6).nearest_in_range([[1, 0], [5, 0], [9, 9]])
        array([ 0,  0, -1])
        """
        at_m = places("positions_m", positions_m)
        found = self._discs.nearest(at_m)
        if before is None:
            return found
        last = np.asarray(before, dtype=np.int64)
        if last.shape != (len(at_m),) or ((last < -1) | (last >= len(self))).any():
            raise ConfigError(f"before does not give one of {len(self)} cells, or -1, for each of {len(at_m)} nodes")
        # Without a margin the nearest edge is the answer, also where another one as near had the node before.
        nodes = np.flatnonzero((last >= 0) & (found != last)) if self.margin_m > 0 else np.empty(0, np.int64)
        held_m = self.distance_m(at_m[nodes], last[nodes])
        near_m = self.distance_m(at_m[nodes], found[nodes])  # infinite where no edge reaches
        stays = (held_m <= self.radius_m[last[nodes]]) & (held_m - near_m <= self.margin_m)
        found[nodes[stays]] = last[nodes[stays]]
        return found

    def distance_m(self, positions_m: Floats, where: Indices) -> Floats:
        """How far each node is from the edge of its cell, float64 [nodes]; infinite for cell -1.

        >>> Regions(["a"], [[0, 0]], radius_m=9).distance_m(np.array([[3.0, 4.0], [3.0, 4.0]]), np.array([0, -1]))
        array([ 5., inf])
        """
        way_m = positions_m - self.positions_m[where]
        return np.where(where >= 0, np.sqrt((way_m**2).sum(axis=1)), np.inf)
