"""`BridgeTier`: the answer to the `Tier` promise for edges with a SuperLink of their own.

Every node of the centre's Grid is the SuperNode of an edge host, whose ClientApp is `bridge_app`. What it asks there is
`EdgeRounds` again, so the models are those of `CellTier` and `LocalTier`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from logging import getLogger
from typing import Any

from flwr.serverapp import Grid

from flower_edge.errors import ConfigError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.wrapped_grid import find

from .tiers import LocalTier

__all__ = ["BridgeTier"]

log = getLogger("flwr.edge")


class BridgeTier(LocalTier):
    """Edges that are hosts: each a node of the centre's Grid, with a SuperLink and terminals of its own.

    Unlike the edges of a `LocalTier` they come, go and come again under another node id while the run goes on. An edge
    is known by its name, `cell` in its node config. Of two nodes of one name the one that came last is it: Flower lists
    a SuperNode that was killed for up to a minute more. Edges are asked in the order of their names.

    Give it a Grid that looks often and knows properties: `GridProxy(grid, expected_nodes=2)`.

    Args:
        poll_s: seconds between two looks for replies where the centre does not wait for all edges.
    """

    def __init__(self, *, poll_s: float = 0.1) -> None:
        super().__init__(poll_s=poll_s)
        self._seen: dict[int, int] = {}
        self._address: dict[str, int] = {}
        self._told: list[Event] = []

    def begin(self, *, recorded: bool) -> None:
        """A run begins: edges are named anew. What they keep is on their disks, under this run's name."""
        super().begin(recorded=recorded)
        self._seen, self._address, self._told = {}, {}, []

    def cells(self, grid: Grid, round: Round) -> Mapping[str, int]:
        """One cell per edge host that is on the grid, by name. Who does not say which edge it is, is not asked.

        Raises:
            ConfigError: the Grid knows no properties.
        """
        there = list(grid.get_node_ids())
        began = _activated(grid)
        # Those that came together, by the time the SuperLink noted; a node is never older than one seen before it.
        for node in sorted(there, key=lambda node: (began.get(node, ""), node)):
            if node not in self._names and (name := _name_of(grid, node)):
                self._names[node] = name
                self._seen.setdefault(node, len(self._seen))
        named: dict[str, int] = {}
        for node in sorted((node for node in there if node in self._names), key=lambda node: self._seen[node]):
            named[self._names[node]] = node
        for cell, node in named.items():
            before = self._address.get(cell)
            if before not in (None, node):
                text = f"edge {cell} is back, as node {node}"
                log.info("\t%s", text)
                self._told.append(Event("edge-back", text, cell=cell))
            self._address[cell] = node
        return dict(sorted(named.items()))

    def events(self) -> list[Event]:
        """Edges that came back under another node id."""
        told, self._told = self._told, []
        return told

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; the nodes of the run before may be gone, and are then not asked."""
        super().load_state_dict(state)
        self._seen = {node: place for place, node in enumerate(self._names)}


def _name_of(grid: Grid, node: int) -> str:
    """What an edge host calls itself: `cell`, else by its `partition-id`; "" where it did not answer."""
    proxy = find(grid, GridProxy)
    if proxy is None:
        raise ConfigError("edges tell their names when they are asked; start on GridProxy(grid, expected_nodes=...)")
    told = proxy.properties(node)
    if (cell := told.get("cell")) is not None:
        return str(cell)
    partition = told.get("partition-id")
    if partition is None:
        log.warning("\tnode %s does not say which edge it is; set cell='edge-0' in its node config", node)
    return "" if partition is None else f"edge-{partition}"


def _activated(grid: Grid) -> dict[int, str]:
    """When each node came on, in the SuperLink's words, which sort by time; nothing where the grid does not tell."""
    try:
        nodes: Iterable[Any] = grid.get_nodes()
    except (AttributeError, NotImplementedError):
        return {}
    return {int(node.node_id): str(getattr(node, "last_activated_at", "") or "") for node in nodes}
