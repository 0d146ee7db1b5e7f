"""`CellTier`: edges inside the ServerApp, whose terminals are nodes of the centre's own Grid.

Each edge has the Grid narrowed to its cell, and the same `EdgeRounds` that an edge in a ClientApp runs. Where the
cells are moving (`Coverage`), they are looked at again before every edge round, and what the layers of one edge know
of a terminal goes with it to the next. Nothing here trains or merges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from logging import getLogger
from typing import Any

from flwr.app import Error, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import ConfigError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.client_call import reason_of
from flower_edge.runtime.clock.lanes import Lane
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.edge_messages import COUNTED_NODES, COUNTED_ORDER, COUNTED_WEIGHTS, EDGE_RECORD
from flower_edge.runtime.edge_rounds import EdgeRounds
from flower_edge.runtime.error_codes import CLIENT_RAISED, NODE_UNAVAILABLE
from flower_edge.runtime.flower_private import clone_message, set_metadata
from flower_edge.runtime.narrowed_grid import NarrowedGrid
from flower_edge.runtime.strategy_state import innermost
from flower_edge.runtime.wrapped_grid import find
from flower_edge.wire import copy_content

from ..layered import refuse_layered_inside
from .cells import Cells
from .tiers import EdgeFactory

__all__ = ["CellTier", "Reachable"]

log = getLogger("flwr.edge")

#: Whether the centre reaches a cell in a cloud round.
Reachable = Callable[[Round, str], bool]

#: Orders of acceptance without a clock are one whole number of 64 bits: cloud round, edge round, count.
_MOST_EDGE_ROUNDS, _MOST_REPLIES = 2**14, 2**26


class CellTier:
    """Edges inside the ServerApp; terminals are nodes of its Grid.

    Args:
        edge: makes the inner strategy of a cell from its name, once per cell and run: any Flower strategy, or
            `Layered` around one. It keeps its state for the whole run.
        cells: which nodes belong to which cell, asked once per cloud round; cells that are `moving` (`Coverage`) are
            asked before every edge round, too.
        reachable: whether the centre reaches a cell in a cloud round, to try what happens when it does not: the edge
            trains on alone, and what it has learned goes up when it is back.
    """

    nodes_are_edges = False

    def __init__(self, edge: EdgeFactory, cells: Cells, *, reachable: Reachable | None = None) -> None:
        self._factory = edge
        self._cells = cells
        self._reachable = reachable
        self._moving = bool(getattr(cells, "moving", False))
        self._forget(recorded=False)

    def _forget(self, *, recorded: bool) -> None:
        self._edges: dict[str, tuple[EdgeRounds, NarrowedGrid]] = {}
        self._saved: dict[str, Any] = {}
        self._recorded = recorded
        self._addresses: dict[str, int] = {}
        self._under_way: list[tuple[Lane[Message] | None, Grid, Message]] = []
        self._accepted: dict[str, dict[int, tuple[float, int]]] = {}
        self._order = 0
        self._there: tuple[tuple[int, int, str], frozenset[int]] | None = None

    def begin(self, *, recorded: bool) -> None:
        """A run begins: its edges are made anew."""
        self.end()
        self._forget(recorded=recorded)
        if callable(again := getattr(self._cells, "begin", None)):
            again()

    def cells(self, grid: Grid, round: Round) -> Mapping[str, int]:
        """The cells of this round, in the cell function's order; a cell keeps its address.

        Raises:
            ConfigError: a node in two cells.
            ResumeError: the run is recorded, and an inner strategy does not say what its state is.
        """
        members = self._look(grid, round)
        seen: set[int] = set()
        for name, nodes in members.items():
            if not isinstance(name, str):
                raise ConfigError(f"cell {name!r} is a {type(name).__name__}; the names of cells are texts")
            own = list(map(int, nodes))
            before = len(seen)
            seen.update(own)
            if len(seen) < before + len(own):
                _refuse_twice(members)
            self._edge(grid, name)[1].nodes = own
            self._addresses.setdefault(name, len(self._addresses) + 1)
        there = self.there(grid, round)
        if seen and there and there.isdisjoint(seen):
            raise ConfigError(
                f"the cells name nodes {sorted(seen)[:4]}…, and none of them is on the grid, "
                f"whose ids are {sorted(there)[:4]}…; take them from grid.get_node_ids()"
            )
        return {name: self._addresses[name] for name in members}

    def _look(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
        members = self._cells(grid, round)
        if not isinstance(members, Mapping):
            raise ConfigError(
                f"the cell function returned a {type(members).__name__}; expected {{name: [node ids]}}, "
                'such as {"edge-0": [...], "edge-1": [...]}'
            )
        moved = getattr(self._cells, "handed_over", None)
        for handover in moved() if callable(moved) else ():
            # An edge that has never been asked has nothing to hand over, and nothing that could take it.
            if all(cell in self._edges or cell in self._saved for cell in (handover.source, handover.target)):
                source, target = (self._edge(grid, cell)[0].layered for cell in (handover.source, handover.target))
                give, take = getattr(source, "hand_over", None), getattr(target, "take_over", None)
                if give is not None and take is not None:
                    take(handover.node_id, give(handover.node_id))
        return members

    def members_now(self, grid: Grid, round: Round) -> list[int] | None:
        """Members of `round.cell` as they are now, where the cells are moving."""
        return list(map(int, self._look(grid, round).get(round.cell, []))) if self._moving else None

    def there(self, grid: Grid, round: Round) -> frozenset[int]:
        """The nodes of the Grid, listed once for all edges of one edge round: with many edges a listing is dear."""
        moment = (round.cloud, round.edge, round.kind)
        if self._there is None or self._there[0] != moment:
            self._there = moment, frozenset(grid.get_node_ids())
        return self._there[1]

    # -- messages ----------------------------------------------------------------------------------------------------

    def deliver(self, grid: Grid, messages: list[Message], timeout_s: float) -> list[Message]:
        """Let each edge handle its message: one after the other here, at the same time on a virtual clock."""
        clock = find(grid, VirtualClock)
        if clock is None:
            return [self._handle(grid, message) for message in messages]
        return clock.side_by_side([_Job(self._handle, grid, message) for message in messages])

    def send(self, grid: Grid, messages: list[Message]) -> None:
        """Let each edge begin; without a virtual clock an edge works when its reply is waited for."""
        clock = find(grid, VirtualClock)
        for message in messages:
            job = _Job(self._handle, grid, message)
            self._under_way.append((None if clock is None else clock.spawn(job), grid, message))

    def receive(self, grid: Grid, count: int, timeout_s: float) -> list[Message]:
        """Wait for the `count` edges that are done first: on a virtual clock by its time, else in their order.

        `timeout_s` is not looked at: edges in this process always answer.
        """
        if (clock := find(grid, VirtualClock)) is None:
            now, self._under_way = self._under_way[:count], self._under_way[count:]
            return [self._handle(own, message) for _, own, message in now]
        lanes = [lane for lane, _, _ in self._under_way if lane is not None]
        done = clock.wait_for(lanes, min(count, len(lanes)))[:count]
        self._under_way = [entry for entry in self._under_way if entry[0] not in done]
        return [lane.result() for lane in done]

    def forget(self, edges: list[int]) -> None:
        """Nothing: edges in this process always answer."""

    def end(self) -> None:
        """The run is over: edges that are still at work are stopped, and what their strategies hold open is closed."""
        under_way, self._under_way = self._under_way, []
        for lane, grid, _ in under_way:
            if lane is not None and (clock := find(grid, VirtualClock)) is not None:
                clock.cancel([lane])
        for edge, _ in self._edges.values():
            if callable(close := getattr(edge.strategy, "close", None)):
                close()

    def _handle(self, grid: Grid, message: Message) -> Message:
        order = message.content.config_records[EDGE_RECORD]
        cell, cloud_round = str(order["cell"]), order["cloud-round"]
        edge, _ = self._edge(grid, cell)
        set_metadata(message, message_id=f"{cell}:{cloud_round!r}:{message.metadata.message_type}")
        delivered = clone_message(message, copy_content(message.content))
        training = message.metadata.message_type == "train"
        round = Round(int(cloud_round), kind="train" if training else "evaluate")  # type: ignore[arg-type]
        try:
            if self._reachable is not None and not self._reachable(round, cell):
                what = edge.carry_on() if training else "is not asked"
                reason = f"out of the centre's reach; it {what}"
                return Message(Error(NODE_UNAVAILABLE, reason), reply_to=delivered)
            reply = edge.handle(delivered)
        except Exception as error:
            # As a Grid would: an edge that fails answers with an error, and the centre goes on with the others.
            self._accepted.pop(cell, None)
            log.warning("cell %s: %s", cell, reason_of(error))
            return Message(Error(CLIENT_RAISED, reason_of(error)), reply_to=delivered)
        if training and self._moving:
            counted = self._accepted.pop(cell, {})
            report = reply.content.config_records[EDGE_RECORD]
            report[COUNTED_NODES] = list(counted)
            report[COUNTED_WEIGHTS] = [float(weight) for weight, _ in counted.values()]
            report[COUNTED_ORDER] = [order for _, order in counted.values()]
        return reply

    def _note(self, round: Round, weights: Mapping[int, float], *, in_turn: bool) -> None:
        """Keep what an edge round has merged, and when.

        On a virtual clock edges run side by side and accept in the order of its time. Without one they run in turn,
        and the n-th edge rounds of a cloud round are taken to be at the same time.
        """
        if not self._moving:
            return
        entries = self._accepted.setdefault(round.cell, {})
        for node, weight in weights.items():
            self._order += 1
            moment = (round.cloud * _MOST_EDGE_ROUNDS + round.edge) if in_turn else 0
            entries[node] = (weight, moment * _MOST_REPLIES + self._order % _MOST_REPLIES if in_turn else self._order)

    def events(self) -> list[Event]:
        """What the cell function tells: who entered, left, was handed over."""
        told = getattr(self._cells, "events", None)
        return list(told()) if callable(told) else []

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """State of every edge there has been, and of the cell function if it has one."""
        cells = getattr(self._cells, "state_dict", None)
        return {
            "edges": {**self._saved, **{name: edge.state_dict() for name, (edge, _) in self._edges.items()}},
            "cells": cells() if callable(cells) else None,
            "order": self._order,
            "accepted": {
                cell: [[node, weight, order] for node, (weight, order) in entries.items()]
                for cell, entries in self._accepted.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; an edge takes its state when its cell appears. Edges under way begin anew."""
        self._edges, self._saved = {}, dict(state["edges"])
        load = getattr(self._cells, "load_state_dict", None)
        if callable(load) and state["cells"] is not None:
            load(state["cells"])
        self._order = state["order"]
        self._accepted = {
            cell: {node: (weight, order) for node, weight, order in entries}
            for cell, entries in state["accepted"].items()
        }

    def _edge(self, grid: Grid, cell: str) -> tuple[EdgeRounds, NarrowedGrid]:
        if cell not in self._edges:
            strategy = self._made(cell)
            terminals = _Cell(grid, self)
            in_turn = find(grid, VirtualClock) is None
            edge = EdgeRounds(
                cell,
                strategy,
                terminals,
                accepted=lambda round, weights: self._note(round, weights, in_turn=in_turn),
                keeps_model=self._reachable is not None,
            )
            if self._recorded:
                edge.state_dict()
            if cell in self._saved:
                edge.load_state_dict(self._saved.pop(cell))
            self._edges[cell] = (edge, terminals)
        return self._edges[cell]

    def _made(self, cell: str) -> Strategy:
        strategy: object = self._factory(cell)
        if not isinstance(strategy, Strategy):
            raise ConfigError(
                f"edge({cell!r}) returned {strategy!r}, which is no Flower strategy; return a new one for every cell: "
                "edge=lambda cell: FedAvg(...)"
            )
        refuse_layered_inside(strategy)
        if any(innermost(strategy) is innermost(edge.strategy) for edge, _ in self._edges.values()):
            raise ConfigError(
                f"edge({cell!r}) returned a strategy that another cell already has, and what it remembers would leak "
                f"between them; make a new one for every cell: edge=lambda cell: {type(strategy).__name__}(...)"
            )
        return strategy


def _refuse_twice(members: Mapping[str, list[int]]) -> None:
    """Say which node is listed twice."""
    seen: dict[int, str] = {}
    for name, nodes in members.items():
        for node in map(int, nodes):
            if seen.get(node) == name:
                raise ConfigError(f"node {node} is listed twice in the cell {name!r}; list every terminal once")
            if node in seen:
                raise ConfigError(
                    f"node {node} is in the cells {seen[node]!r} and {name!r}; "
                    "a terminal belongs to one cell in a round"
                )
            seen[node] = name


class _Cell(NarrowedGrid):
    """The Grid narrowed to a cell; who is in it is looked up again when an edge round begins."""

    def __init__(self, inner: Grid, tier: CellTier) -> None:
        super().__init__(inner, [])
        self._tier = tier
        self._round = Round(0)

    def there(self) -> Set[int]:
        return self._tier.there(self.inner, self._round)

    def announced(self, round: Round) -> None:
        super().announced(round)
        self._round = round
        members = self._tier.members_now(self.inner, round)
        if members is not None:
            self.nodes = members


class _Job:
    """One edge's work on one message, to be run when its lane's turn comes."""

    def __init__(self, handle: Callable[[Grid, Message], Message], grid: Grid, message: Message) -> None:
        self._handle, self._grid, self._message = handle, grid, message

    def __call__(self) -> Message:
        return self._handle(self._grid, self._message)
