"""How the centre reaches its edges: the `Tier` promise and its answers.

`CellTier`: the terminals are nodes of the centre's own Grid; the edges live in the ServerApp, each on a Grid narrowed
to its cell. `LocalTier`: every node of the Grid is an edge, an `edge_app` from `flower_edge.clients`. Both answer the
same messages with the same `EdgeRounds`, so they give equal models for one seed. An edge in front of a SuperLink of
its own is reached as `LocalTier` reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from logging import getLogger
from typing import Any, Protocol

from flwr.app import Error, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import ConfigError
from flower_edge.rounds import Round
from flower_edge.runtime.client_call import reason_of
from flower_edge.runtime.edge_rounds import EDGE_RECORD, EdgeRounds
from flower_edge.runtime.error_codes import CLIENT_RAISED
from flower_edge.runtime.flower_private import clone_message, set_metadata
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.narrowed_grid import NarrowedGrid
from flower_edge.runtime.virtual_clock import VirtualClock
from flower_edge.runtime.wrapped_grid import find
from flower_edge.wire import copy_content

from .cells import Cells, place_of
from .layered import refuse_layered_inside

__all__ = ["CellTier", "EdgeFactory", "LocalTier", "Tier"]

log = getLogger(__name__)

EdgeFactory = Callable[[str], Strategy]


class Tier(Protocol):
    """The edges, as the centre sees them."""

    @property
    def nodes_are_edges(self) -> bool:
        """Whether the Grid's nodes are the edges, so that a layer around `Hierarchical` can narrow them."""
        ...

    def begin(self, *, recorded: bool) -> None:
        """A run begins: forget the edges of the run before. A `recorded` run will be checkpointed."""
        ...

    def cells(self, grid: Grid, round: Round) -> Mapping[str, int]:
        """The edges of this round: name of each cell to the node id its messages are addressed to."""
        ...

    def deliver(self, grid: Grid, messages: list[Message], timeout_s: float) -> list[Message]:
        """Bring messages to the edges they are addressed to, and their replies back."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What of the edges lives here and belongs in a checkpoint."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        ...


class CellTier:
    """Edges inside the ServerApp; terminals are nodes of its Grid.

    Args:
        edge: makes the inner strategy of a cell from its name, once per cell and run: any Flower strategy, or
            `Layered` around one. It keeps its state for the whole run.
        cells: which nodes belong to which cell, asked once per cloud round.
    """

    nodes_are_edges = False

    def __init__(self, edge: EdgeFactory, cells: Cells) -> None:
        self._factory = edge
        self._cells = cells
        self._edges: dict[str, tuple[EdgeRounds, NarrowedGrid]] = {}
        self._saved: dict[str, Any] = {}
        self._recorded = False

    def begin(self, *, recorded: bool) -> None:
        """A run begins: its edges are made anew."""
        self._edges, self._saved, self._recorded = {}, {}, recorded

    def cells(self, grid: Grid, round: Round) -> Mapping[str, int]:
        """The cells of this round, in the cell function's order; addresses count from 1.

        Raises:
            ConfigError: a node in two cells.
            ResumeError: the run is recorded, and an inner strategy does not say what its state is.
        """
        members = self._cells(grid, round)
        seen: dict[int, str] = {}
        for name, nodes in members.items():
            if not isinstance(name, str):
                raise ConfigError(f"cell {name!r} is a {type(name).__name__}; the names of cells are texts")
            for node in nodes:
                if node in seen:
                    raise ConfigError(
                        f"node {node} is in the cells {seen[node]!r} and {name!r}; "
                        "a terminal belongs to one cell in a round"
                    )
                seen[node] = name
            self._edge(grid, name)[1].nodes = list(nodes)
        there = set(grid.get_node_ids())
        if seen and there and not there & set(seen):
            raise ConfigError(
                f"the cells name nodes {sorted(seen)[:4]}…, and none of them is on the grid, "
                f"whose ids are {sorted(there)[:4]}…; take them from grid.get_node_ids()"
            )
        return {name: address for address, name in enumerate(members, start=1)}

    def deliver(self, grid: Grid, messages: list[Message], timeout_s: float) -> list[Message]:
        """Let each edge handle its message: one after the other here, at the same time on a virtual clock."""
        clock = find(grid, VirtualClock)
        if clock is None:
            return [self._handle(grid, message) for message in messages]
        replies = []
        with clock.side_by_side() as lane:
            for message in messages:
                with lane():
                    replies.append(self._handle(grid, message))
        return replies

    def _handle(self, grid: Grid, message: Message) -> Message:
        order = message.content.config_records[EDGE_RECORD]
        cell = str(order["cell"])
        edge, _ = self._edge(grid, cell)
        set_metadata(message, message_id=f"{cell}:{order['cloud-round']!r}:{message.metadata.message_type}")
        delivered = clone_message(message, copy_content(message.content))
        try:
            return edge.handle(delivered)
        except Exception as error:
            # As a Grid would: an edge that fails answers with an error, and the centre goes on with the others.
            log.warning("cell %s: %s", cell, reason_of(error))
            return Message(Error(CLIENT_RAISED, reason_of(error)), reply_to=delivered)

    def state_dict(self) -> dict[str, Any]:
        """State of every edge there has been."""
        return {"edges": {**self._saved, **{name: edge.state_dict() for name, (edge, _) in self._edges.items()}}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; an edge takes its state when its cell appears."""
        self._edges, self._saved = {}, dict(state["edges"])

    def _edge(self, grid: Grid, cell: str) -> tuple[EdgeRounds, NarrowedGrid]:
        if cell not in self._edges:
            strategy = self._factory(cell)
            refuse_layered_inside(strategy)
            terminals = NarrowedGrid(grid, [])
            edge = EdgeRounds(cell, strategy, terminals)
            if self._recorded:
                edge.state_dict()
            if cell in self._saved:
                edge.load_state_dict(self._saved.pop(cell))
            self._edges[cell] = (edge, terminals)
        return self._edges[cell]


class LocalTier:
    """Every node of the Grid is an edge that runs its own rounds, see `flower_edge.clients.edge_app`.

    An edge is called by its node property `cell`; without one `edge-<partition-id>`, and where that is not known
    either `edge-0`, `edge-1`, … in the order in which the edges were first seen. It keeps its name for the run.
    """

    nodes_are_edges = True

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def begin(self, *, recorded: bool) -> None:
        """A run begins: edges are named anew. What they remember is theirs, and lives as long as Flower's run."""
        self._names = {}

    def cells(self, grid: Grid, round: Round) -> Mapping[str, int]:
        """One cell per node of the Grid.

        Raises:
            ConfigError: two nodes call themselves the same.
        """
        named: dict[str, int] = {}
        for node in grid.get_node_ids():
            if node not in self._names:
                self._names[node] = self._name(grid, node)
            name = self._names[node]
            if name in named:
                raise ConfigError(f"nodes {named[name]} and {node} both call themselves cell {name!r}; name each once")
            named[name] = node
        return named

    def _name(self, grid: Grid, node: int) -> str:
        proxy = find(grid, GridProxy)
        if proxy is not None and (own := proxy.properties(node).get("cell")) is not None:
            return str(own)
        place = place_of(grid, node)
        return f"edge-{len(self._names) if place is None else place[0]}"

    def deliver(self, grid: Grid, messages: list[Message], timeout_s: float) -> list[Message]:
        """Send the messages over the Grid, all edges at once."""
        return list(grid.send_and_receive(messages, timeout=timeout_s))

    def state_dict(self) -> dict[str, Any]:
        """The names given by order; the edges keep all else themselves, in their `Context`."""
        return {"names": dict(self._names)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._names = dict(state["names"])
