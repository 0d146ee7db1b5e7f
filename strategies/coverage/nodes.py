"""`Terminals`: which node of the Grid is which terminal, and of which nobody can say.

A node that cannot be placed takes no part, and no run ends for it: a client too old to tell its partition, one that was
started twice. A Grid on which that is so of every node is set up wrongly, and refused. Nothing here looks where a
terminal is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from flwr.serverapp import Grid

from flower_edge.errors import ConfigError

from ..hierarchy.cells import place_of

__all__ = ["Terminals"]


@dataclass(frozen=True)
class _Unplaced:
    """Why a node is no terminal, and whether that is a mistake in how the run was set up."""

    why: str
    mistake: bool


class Terminals:
    """Nodes and terminals of one run.

    Args:
        count: how many terminals there are, from 0 on.
        key_of: index of a node id; default: its `partition-id`, as `GridProxy` or `LocalGrid` tell it.

    Attributes:
        ids: nodes on the Grid that are terminals, in the Grid's order; the same list while nothing changes.
        rows: int64 [ids], their terminals.
    """

    def __init__(self, count: int, key_of: Callable[[int], int] | None) -> None:
        self.ids: list[int] = []
        self.rows: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._count, self._key_of = count, key_of
        self._index: dict[int, int] = {}
        self._listed: list[int] = []
        self._unplaced: dict[int, str] = {}
        self._begun = False

    def index_of(self, grid: Grid, node_id: int) -> int | None:
        """A node's terminal; `None` where nobody can say."""
        if (known := self._index.get(node_id)) is not None:
            return known
        found = self._placed(grid, node_id)
        return found if isinstance(found, int) else None

    def take_up(self, grid: Grid) -> dict[int, str]:
        """List the Grid's nodes anew.

        Returns:
            Nodes that are no terminals, and were not told before, with the reason.

        Raises:
            ConfigError: as a run begins, a node that is not one of the terminals, or two nodes that are the same one;
                at any time, not one node that is a terminal.
        """
        listed = list(grid.get_node_ids())
        if not listed:
            self.ids, self.rows, self._listed = [], np.empty(0, np.int64), []
        if listed == self._listed and not (listed and self._unplaced):
            return {}
        first = not self._begun
        unplaced: dict[int, str] = {}
        for node in [node for node in listed if node not in self._index]:
            found = self._placed(grid, node)
            if isinstance(found, int):
                self._index[node] = found
                continue
            if first and found.mistake:
                raise ConfigError(f"node {node} {found.why}")
            unplaced[node] = found.why
        if not self._index:
            node, why = next(iter(unplaced.items()))
            raise ConfigError(f"node {node} {why}; so it is with every node of the Grid")
        ids = [node for node in listed if node not in unplaced] if unplaced else listed
        twice = self._twice(ids)
        if twice and first:
            other = next(iter(twice))
            raise ConfigError(f"node {other} {twice[other]}")
        for node, why in twice.items():
            del self._index[node]
            unplaced[node] = why
        if twice:
            ids = [node for node in ids if node not in twice]
        news = {node: why for node, why in unplaced.items() if node not in self._unplaced}
        self._begun, self._listed, self._unplaced = True, listed, unplaced
        if ids != self.ids:
            self.ids, self.rows = ids, self._rows_of(ids)
        return news

    def _rows_of(self, ids: Iterable[int]) -> npt.NDArray[np.int64]:
        return np.fromiter((self._index[node] for node in ids), np.int64)

    def _twice(self, ids: list[int]) -> dict[int, str]:
        """Nodes that are a terminal which another node is already, with the reason; who was there before stays."""
        rows = self._rows_of(ids)
        if len(np.unique(rows)) == len(rows):
            return {}
        before = set(self.ids)
        holder: dict[int, int] = {}
        twice: dict[int, str] = {}
        for node in sorted(ids, key=lambda node: node not in before):
            index = self._index[node]
            if (other := holder.setdefault(index, node)) != node:
                twice[node] = f"is terminal {index}, and so is node {other}; give every node a partition-id of its own"
        return twice

    def _placed(self, grid: Grid, node_id: int) -> int | _Unplaced:
        if self._key_of is not None:
            index: object = self._key_of(node_id)
        elif (place := place_of(grid, node_id)) is not None:
            index = place[0]
        else:
            return _Unplaced(
                "has no partition-id that is known here; put GridProxy around the Flower grid and "
                "answer_properties(app) on the client, or pass key_of to Coverage",
                mistake=False,
            )
        if type(index) is int and 0 <= index < self._count:
            return index
        return _Unplaced(
            f"is terminal {index!r}, and this coverage locates {self._count} terminals, from 0 on; locate as many as "
            "there are partitions",
            mistake=True,
        )

    def state_dict(self) -> list[list[int | str]]:
        """Nodes that are no terminals, and why, so that they are not told again."""
        return [[node, why] for node, why in self._unplaced.items()]

    def load_state_dict(self, state: list[list[int | str]]) -> None:
        """Inverse of `state_dict`, in a run that goes on."""
        self._unplaced = {int(node): str(why) for node, why in state}
        self._begun = True
