"""Mobility for experiments: in each period a given share of the terminals moves to another cell.

No positions and no map: how much moves is the one thing that is set, so that two runs can differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ConfigError
from .arguments import Indices, cell_names, moment, node_count, positive, share_of
from .draws import Draws
from .snapshots import Snapshots

__all__ = ["Jumping"]


class Jumping:
    """In each period round(share × nodes) nodes move, each once, at a random time, to a random other cell.

    Who moves and where to is drawn anew for each period. With one cell nobody moves.

    Args:
        cells: names of the cells.
        nodes: how many nodes there are.
        share: of the nodes that move in a period, 0 to 1.
        period_s: how long a period is; the first begins at 0 s.
        seed: of who moves when and where to.
        start: the cell of each node at 0 s, [nodes], -1 for none; without it blocks of equal size in the order of the
            nodes. A node that is nowhere enters any of the cells when it moves.

    Raises:
        ConfigError: a number out of range, or a start that is no cell.

    >>> located = Jumping(["a", "b"], nodes=10, share=0.3, period_s=60.0, seed=1)
    >>> located.where(0.0)
    array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    >>> int((located.where(60.0) != located.where(0.0)).sum())
    3
    """

    def __init__(
        self,
        cells: Sequence[str],
        nodes: int,
        share: float,
        period_s: float,
        seed: int,
        start: ArrayLike | None = None,
    ) -> None:
        self._cells = cell_names(cells)
        self._everyone = np.arange(node_count(nodes))
        self._movers = round(share_of("share", share, whole=True) * nodes) if len(self._cells) > 1 else 0
        self._period_s = positive("period_s", period_s)
        self._who, self._when, self._to = (Draws(seed, f"jump-{what}") for what in ("who", "when", "to"))
        first = np.asarray(_blocks(nodes, len(self._cells)) if start is None else start, dtype=np.int64)
        if first.shape != (nodes,) or ((first < -1) | (first >= len(self._cells))).any():
            raise ConfigError(f"start does not give one of {len(self._cells)} cells, or -1, for each of {nodes} nodes")
        self._periods = Snapshots(0, first.copy())

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cells."""
        return self._cells

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return len(self._everyone)

    def where(self, time_s: float, before: Indices | None = None) -> Indices:
        """The cell of each node at `time_s`, int64 [nodes]; it depends on the time only."""
        del before
        period = int(moment(time_s) // self._period_s)
        done, where = self._periods.last_before(period)
        if done < period:
            for k in range(int(done), period):
                movers = self._moving(k)
                where = self._moved(where, movers, k)
            self._periods.remember(period, where)
        movers = self._moving(period)
        at_s = (period + self._when.uniform(movers, period)) * self._period_s
        return self._moved(where, movers[at_s <= time_s], period)

    def _moving(self, period: int) -> Indices:
        """Exactly as many as the share says, by lot."""
        if not self._movers:
            return np.empty(0, np.int64)
        lots = self._who.uniform(self._everyone, period)
        return np.sort(np.argpartition(lots, self._movers - 1)[: self._movers])

    def _moved(self, where: Indices, movers: Indices, period: int) -> Indices:
        """Where all are once `movers` have moved; any cell but a node's own is as likely."""
        own = where[movers]
        others = np.where(own < 0, len(self._cells), len(self._cells) - 1)
        to = np.floor(self._to.uniform(movers, period) * others).astype(np.int64)
        now = where.copy()
        now[movers] = np.where((own >= 0) & (to >= own), to + 1, to)
        return now


def _blocks(nodes: int, cells: int) -> Indices:
    sizes = [len(part) for part in np.array_split(np.arange(nodes), cells)]
    return np.repeat(np.arange(cells), sizes)
