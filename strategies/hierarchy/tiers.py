"""How the centre reaches its edges: the `Tier` promise, and the answer for edges that are nodes of the Grid.

`LocalTier`: every node of the Grid is an edge, an `edge_app` from `flower_edge.clients`. An edge in front of a
SuperLink of its own is reached the same way. `CellTier`, whose edges live in the ServerApp, is in `cell_tier`. Both
answer the same messages with the same `EdgeRounds`, so they give equal models for one seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import ConfigError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.flower_private import set_metadata
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.wrapped_grid import chain, find, undisturbed

from .cells import place_of

__all__ = ["EdgeFactory", "LocalTier", "Tier"]

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

    def send(self, grid: Grid, messages: list[Message]) -> None:
        """Bring messages to the edges without waiting for them."""
        ...

    def receive(self, grid: Grid, count: int, timeout_s: float) -> list[Message]:
        """Wait until `count` edges that were sent a message have answered, all that are under way, or the timeout."""
        ...

    def forget(self, edges: list[int]) -> None:
        """Give up what these edges, by address, are still doing."""
        ...

    def end(self) -> None:
        """The run is over: give up what is still under way."""
        ...

    def events(self) -> list[Event]:
        """What happened between edges since the last call: who entered, left, was handed over."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What of the edges lives here and belongs in a checkpoint."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        ...


class LocalTier:
    """Every node of the Grid is an edge that runs its own rounds, see `flower_edge.clients.edge_app`.

    An edge is called by its node property `cell`; without one `edge-<partition-id>`, and where that is not known
    either `edge-0`, `edge-1`, … in the order in which the edges were first seen. It keeps its name for the run.

    Args:
        poll_s: seconds between two looks for replies where the centre does not wait for all edges.
    """

    nodes_are_edges = True

    def __init__(self, *, poll_s: float = 0.1) -> None:
        self._names: dict[int, str] = {}
        self._under_way: dict[str, int] = {}
        self._came: list[Message] = []
        self._poll_s = poll_s

    def begin(self, *, recorded: bool) -> None:
        """A run begins: edges are named anew. What they remember is theirs, and lives as long as Flower's run."""
        self._names, self._under_way, self._came = {}, {}, []

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
        replies = list(grid.send_and_receive(messages, timeout=timeout_s))
        asked = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
        for reply in replies:
            if (node := asked.get(reply.metadata.reply_to_message_id)) is not None:
                set_metadata(reply, src_node_id=node)
        return replies

    def send(self, grid: Grid, messages: list[Message]) -> None:
        """Send the messages over the Grid."""
        for message, message_id in zip(messages, list(grid.push_messages(messages)), strict=True):
            if message_id is not None:
                self._under_way[message_id] = message.metadata.dst_node_id

    def receive(self, grid: Grid, count: int, timeout_s: float) -> list[Message]:
        """Take replies from the Grid as they come; virtual time passes where there is a virtual clock."""
        end_s = time.monotonic() + timeout_s
        with undisturbed(grid):
            while self._under_way and len(self._came) < count:
                came = list(grid.pull_messages(list(self._under_way)))
                for reply in came:
                    # A SuperLink answers for a lost node with itself as the source: the message tells who was meant.
                    node = self._under_way.pop(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)
                    set_metadata(reply, src_node_id=node)
                self._came += came
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    break
                if not came and not any(advance() is not None for advance in _advances(grid)):
                    time.sleep(min(self._poll_s, left_s))
        replies, self._came = self._came[:count], self._came[count:]
        return replies

    def forget(self, edges: list[int]) -> None:
        """A reply of theirs that still comes is not listened to."""
        self._under_way = {i: node for i, node in self._under_way.items() if node not in edges}

    def end(self) -> None:
        """Forget what is under way; an edge that still answers is not listened to."""
        self._under_way, self._came = {}, []

    def events(self) -> list[Event]:
        """None: what happens at such an edge comes with its replies."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """The names given by order; the edges keep all else themselves, in their `Context`."""
        return {"names": dict(self._names)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._names = dict(state["names"])


def _advances(grid: Grid) -> Iterator[Callable[[], float | None]]:
    """What lets virtual time pass, if the chain has such a thing: nothing arrives until somebody moves the clock."""
    for link in chain(grid):
        if callable(advance := getattr(link, "advance_to_next", None)):
            yield advance
