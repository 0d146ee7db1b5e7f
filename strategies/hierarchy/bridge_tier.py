"""`BridgeTier`: the answer to the `Tier` promise for edges with a SuperLink of their own.

Every node of the centre's Grid is the SuperNode of an edge host, whose ClientApp is `bridge_app`. What it asks there is
`EdgeRounds` again, so the models are those of `CellTier` and `LocalTier`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from logging import getLogger
from typing import Any

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from flower_edge.errors import ConfigError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.edge_messages import EDGE_RECORD, EVALUATES_KEY, SCHEMA, WEIGHT_KEY
from flower_edge.runtime.flower_private import set_metadata
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.wrapped_grid import find
from flower_edge.wire import PACKET_SCHEMA

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
        self._never_evaluate: set[int] = set()

    def begin(self, *, recorded: bool) -> None:
        """A run begins: edges are named anew. What they keep is on their disks, under this run's name."""
        super().begin(recorded=recorded)
        self._seen, self._address, self._told = {}, {}, []
        self._never_evaluate = set()

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

    def deliver(self, grid: Grid, messages: list[Message], timeout_s: float) -> list[Message]:
        """Send the messages over the Grid, all edges at once.

        An edge that has said its strategy evaluates nothing is not sent a model to evaluate: its answer is known, and
        the way there and back costs a round of ten edge rounds a tenth more.
        """
        known = [message for message in messages if self._is_known(message)]
        replies = super().deliver(grid, [message for message in messages if message not in known], timeout_s)
        return [*map(self._noted, replies), *map(_nothing_evaluated, known)]

    def receive(self, grid: Grid, count: int, timeout_s: float) -> list[Message]:
        """As `LocalTier`."""
        return [self._noted(reply) for reply in super().receive(grid, count, timeout_s)]

    def _is_known(self, message: Message) -> bool:
        # A code has to reach the edge whatever it is for: the next one may build on it.
        records = message.content.array_records.values()
        plain = all(array.stype != PACKET_SCHEMA for record in records for array in record.values())
        evaluates = message.metadata.message_type == "evaluate"
        return evaluates and plain and message.metadata.dst_node_id in self._never_evaluate

    def _noted(self, reply: Message) -> Message:
        if reply.has_content() and (record := reply.content.config_records.get(EDGE_RECORD)) is not None:
            evaluates, node = record.pop(EVALUATES_KEY, None), reply.metadata.src_node_id
            if evaluates is not None:
                (self._never_evaluate.discard if evaluates else self._never_evaluate.add)(node)
        return reply

    def events(self) -> list[Event]:
        """Edges that came back under another node id."""
        told, self._told = self._told, []
        return told

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; the nodes of the run before may be gone, and are then not asked."""
        super().load_state_dict(state)
        self._seen = {node: place for place, node in enumerate(self._names)}


def _nothing_evaluated(message: Message) -> Message:
    """What an edge answers whose strategy evaluates nothing."""
    cell = str(message.content.config_records[EDGE_RECORD]["cell"])
    set_metadata(message, message_id=f"{cell}:evaluates-nothing")
    report = ConfigRecord({"schema": SCHEMA, "cell": cell})
    return Message(RecordDict({"metrics": MetricRecord({WEIGHT_KEY: 0.0}), EDGE_RECORD: report}), reply_to=message)


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
