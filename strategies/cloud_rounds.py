"""`CloudRounds`: what a cloud round of `Hierarchical` is. Ask the edges, bring late ones up to date, merge.

The loop around it is `drive`; how an edge is reached is the tier's. Nothing here knows a terminal, but for being told
by the tier who was counted where.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from logging import getLogger
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from flower_edge.errors import RoundFailed
from flower_edge.events import Event
from flower_edge.rounds import Kind, Round
from flower_edge.runtime.edge_messages import EDGE_RECORD, edge_order
from flower_edge.runtime.generators import derive_seed, seeded_call
from flower_edge.runtime.narrowed_grid import minimum_nodes
from flower_edge.runtime.virtual_clock import VirtualClock
from flower_edge.runtime.wrapped_grid import WrappedGrid, announce, find
from flower_edge.wire import ModelSpec, cast_like, check_model

from .asynchronous import FedBuff
from .edge_replies import as_reply, counts_of, events_of, metrics_of, read_reply, row_of, traffic_of
from .layered import LayeredGrid
from .loop import RoundReport
from .merging import EdgeResult, divergence, merge_edges, mixed, moved, settle

if TYPE_CHECKING:
    from .hierarchical import Hierarchical

__all__ = ["CloudRounds", "Progress"]

log = getLogger("flwr.edge")

#: What of a round's timeout the edges may use; the rest is for the hop between them and the centre.
EDGE_SHARE_OF_TIMEOUT = 0.95

#: How an edge that was out of reach is merged when it is back, where the centre otherwise waits for all.
ALONE = FedBuff(1)


@dataclass
class Progress:
    """Where a run of `Hierarchical` is.

    Attributes:
        edge_rounds: κ2 now.
        lowest: the divergence `LowerEdgeRounds` compares with.
        version: how many models the centre has merged.
        done: edge rounds so far; where the centre does not wait, by cell.
        under_way: version each edge under way began from, by cell.
        versions: the models of those versions.
    """

    edge_rounds: int
    lowest: float | None = None
    version: int = 0
    done: int = 0
    done_by_cell: dict[str, int] = field(default_factory=dict)
    under_way: dict[str, int] = field(default_factory=dict)
    versions: dict[int, ArrayRecord] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs. Edges under way are not part of it."""
        return {
            "edge_rounds": self.edge_rounds,
            "lowest": self.lowest,
            "version": self.version,
            "done": self.done,
            "done_by_cell": dict(self.done_by_cell),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.edge_rounds, self.lowest = state["edge_rounds"], state["lowest"]
        self.version, self.done = state["version"], state["done"]
        self.done_by_cell = dict(state["done_by_cell"])
        self.under_way, self.versions = {}, {}


class CloudRounds:
    """The work of a cloud round."""

    def __init__(self, strategy: Hierarchical, spec: ModelSpec) -> None:
        self.strategy = strategy
        self.spec = spec
        self._cells: Mapping[str, int] = {}
        self._edge_rounds = strategy.edge_rounds

    # -- training ----------------------------------------------------------------------------------------------------

    def train(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """Edge rounds at the edges, then the centre's merge."""
        self._edge_rounds = self._progress.edge_rounds
        if self.strategy.asynchronous is None:
            results = self._ask_all(grid, number, arrays, config, timeout_s)
            self._progress.done += self._edge_rounds
        else:
            results = self._ask_some(grid, number, arrays, config, timeout_s)
        results, late = self._up_to_date(settle(results), arrays)
        good = [result for result in results if result.arrays is not None]
        for result in results:
            if result.arrays is None:
                log.warning("\tround %d: cell %s skipped: %s", number, result.cell, result.trouble)
        events = [*self.strategy.tier.events(), *events_of(results), *late]
        if not good:
            return self._nobody(grid, number, results, events)
        merged = self._merge(number, good, arrays)
        apart = divergence(good, merged)
        mean_apart = sum(result.weight * apart[result.cell] for result in good) / sum(result.weight for result in good)
        self._progress.version += 1
        counts = {
            **counts_of(results, good),
            "divergence": mean_apart,
            "divergence_max": max(apart.values()),
            "edge_rounds": float(self._edge_rounds),
        }
        events += self._lower(mean_apart)
        cells = {result.cell: row_of(result) for result in results}
        for cell, distance in apart.items():
            cells[cell]["divergence"] = distance
        return RoundReport(
            arrays=merged,
            metrics=metrics_of(good),
            counts=counts,
            cells=cells,
            traffic=traffic_of(results),
            events=events,
        )

    def _ask_all(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> list[EdgeResult]:
        """Every edge, and the centre waits for all of them."""
        layered, base = _layers(grid)
        cells = self._look(grid, Round(number))
        messages = self._messages(base, number, cells, arrays, config, timeout_s)

        def deliver(outgoing: list[Message]) -> list[Message]:
            return self.strategy.tier.deliver(base, outgoing, timeout_s)

        replies = layered.hop(messages, deliver) if layered is not None else deliver(messages)
        by_node = {reply.metadata.src_node_id: reply for reply in replies}
        asked = {message.metadata.dst_node_id for message in messages}
        return [
            read_reply(cell, by_node.get(node), "train", self.spec, self._progress.version)
            for cell, node in cells.items()
            if node in asked
        ]

    def _ask_some(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> list[EdgeResult]:
        """Every edge that is not at work already; the centre waits for as many as its buffer takes."""
        rule, now, tier = self.strategy.asynchronous, self._progress, self.strategy.tier
        assert rule is not None
        layered, base = _layers(grid)
        cells = self._look(grid, Round(number))
        names = {node: cell for cell, node in cells.items()}
        free = {cell: node for cell, node in cells.items() if cell not in now.under_way}
        messages = self._messages(base, number, free, arrays, config, timeout_s)
        for message in messages:
            cell = names[message.metadata.dst_node_id]
            now.under_way[cell] = now.version
            now.done_by_cell[cell] = now.done_by_cell.get(cell, 0) + self._edge_rounds
        now.versions[now.version] = arrays
        tier.send(base, messages if layered is None else layered.outgoing(messages))
        results: list[EdgeResult] = []
        end_s = time.monotonic() + timeout_s
        while now.under_way and sum(result.arrays is not None for result in results) < rule.buffer:
            replies = tier.receive(base, 1, max(0.0, end_s - time.monotonic()))
            if not replies:
                break
            for reply in replies if layered is None else layered.incoming(replies):
                cell = names.get(reply.metadata.src_node_id, "")
                version = now.under_way.pop(cell, None)
                if version is None:
                    continue
                result = replace(read_reply(cell, reply, "train", self.spec, now.version), version=version)
                if result.arrays is not None and (why := rule.too_late(now.version - version)):
                    result = replace(result, arrays=None, weight=0.0, trouble=why)
                results.append(result)
        return results

    def _up_to_date(self, results: list[EdgeResult], arrays: ArrayRecord) -> tuple[list[EdgeResult], list[Event]]:
        """Models of late edges as they count against the centre's model now, and what is told about them."""
        now, rule = self._progress, self.strategy.asynchronous or ALONE
        current: list[EdgeResult] = []
        events: list[Event] = []
        for result in results:
            if result.arrays is None:
                current.append(result)
                continue
            staleness = now.version - result.version
            scale = rule.scale(staleness)
            if result.difference:
                arrays_now = moved(arrays, result.arrays, None, scale)
            elif scale == 1.0 and (staleness == 0 or rule.against == "current"):
                arrays_now = result.arrays
            else:
                since = arrays if rule.against == "current" else now.versions[result.version]
                arrays_now = moved(arrays, result.arrays, since, scale)
            current.append(replace(result, arrays=arrays_now))
            if staleness:
                text = f"{result.cell} is merged {staleness} versions after it began, at {scale:.3g} of its change"
                values = {"staleness": staleness, "scale": scale}
                events.append(Event("late-merged", text, cell=result.cell, values=values))
        needed = set(now.under_way.values())
        now.versions = {version: kept for version, kept in now.versions.items() if version in needed}
        return current, events

    def _merge(self, number: int, good: list[EdgeResult], arrays: ArrayRecord) -> ArrayRecord:
        centre = self.strategy.centre
        rule = self.strategy.asynchronous
        if centre is None:
            merged = merge_edges(good, self.spec)
        else:
            found, _ = centre.aggregate_train(number, [as_reply(result, self.spec) for result in good])
            if found is None:
                raise RoundFailed(
                    f"round {number}: {type(centre).__name__} at the centre made no model of {len(good)} edges"
                )
            check_model(found, self.spec, sender=f"{type(centre).__name__} at the centre")
            merged = cast_like(found, self.spec)
        return merged if rule is None else mixed(arrays, merged, rule.mixing, self.spec)

    def _nobody(self, grid: Grid, number: int, results: list[EdgeResult], events: list[Event]) -> RoundReport:
        """No edge contributed: wait for better times, or say why."""
        why = "; ".join(f"{result.cell}: {result.trouble}" for result in results) or "there are no cells"
        idle_s = self.strategy.idle_s
        if idle_s is None:
            raise RoundFailed(
                f"round {number}: no edge contributed ({why}); where terminals come and go, idle_s= lets time pass"
            )
        clock = find(grid, VirtualClock)
        if clock is None:
            time.sleep(idle_s)
        else:
            clock.wait_until(clock.now_s + idle_s)
        log.warning("\tround %d: no edge contributed; the model stays, %g s pass", number, idle_s)
        events.append(Event("idle", f"no edge contributed; the model stays, {idle_s:g} s pass"))
        return RoundReport(counts=counts_of(results, []), traffic=traffic_of(results), events=events)

    def _lower(self, found: float) -> list[Event]:
        rule, now = self.strategy.lower, self._progress
        if rule is None:
            return []
        before = now.edge_rounds
        now.edge_rounds, now.lowest = rule.next(before, found, now.lowest)
        if now.edge_rounds == before:
            return []
        text = f"the edges drift apart (divergence {found:.4g}): {now.edge_rounds} edge rounds instead of {before}"
        log.info("\t%s", text)
        return [Event("edge-rounds-lowered", text, values={"edge_rounds": now.edge_rounds, "divergence": found})]

    # -- evaluation --------------------------------------------------------------------------------------------------

    def evaluate(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """Let the terminals evaluate the merged model, through their edges; edges still at work are not asked."""
        round = Round(number, kind="evaluate")
        announce(grid, round)
        layered, base = _layers(grid)
        cells = {cell: node for cell, node in self._cells.items() if cell not in self._progress.under_way}
        config["server-round"] = number
        messages = [
            Message(
                RecordDict(
                    {"arrays": arrays, "config": config, EDGE_RECORD: self._order(cell, number, timeout_s, "evaluate")}
                ),
                node,
                "evaluate",
            )
            for cell, node in cells.items()
        ]

        def deliver(outgoing: list[Message]) -> list[Message]:
            return self.strategy.tier.deliver(base, outgoing, timeout_s)

        replies = layered.hop(messages, deliver) if layered is not None else deliver(messages)
        by_node = {reply.metadata.src_node_id: reply for reply in replies}
        results = [
            read_reply(cell, by_node.get(node), "evaluate", self.spec, self._progress.version)
            for cell, node in cells.items()
        ]
        good = [result for result in results if result.weight > 0]
        events = [*self.strategy.tier.events()]
        for result in results:
            events += result.events
            if result.trouble:
                log.warning("\tround %d: evaluation in cell %s: %s", number, result.cell, result.trouble)
                text = f"evaluation in cell {result.cell}: {result.trouble}"
                events.append(Event("evaluation-failed", text, cell=result.cell))
        return RoundReport(
            metrics=metrics_of(good) if good else None,
            cells={result.cell: row_of(result) for result in good},
            traffic=traffic_of(results),
            events=events,
        )

    # -- messages ----------------------------------------------------------------------------------------------------

    @property
    def _progress(self) -> Progress:
        return self.strategy.progress

    def _look(self, grid: Grid, round: Round) -> Mapping[str, int]:
        """The cells of a cloud round."""
        announce(grid, round)
        # Layers around Hierarchical are about the centre's hop: the terminals are asked below them.
        tier = self.strategy.tier
        self._cells = tier.cells(grid if tier.nodes_are_edges else _layers(grid)[1], round)
        return self._cells

    def _order(self, cell: str, number: int, timeout_s: float, kind: Kind) -> ConfigRecord:
        now, rounds = self._progress, self._edge_rounds
        done = now.done if self.strategy.asynchronous is None else now.done_by_cell.get(cell, 0)
        # In `evaluate`, this cloud round's edge rounds are done already.
        first = done + 1 - (rounds if kind == "evaluate" else 0)
        # All of an edge's rounds, and the way back, have to fit into the centre's time.
        each_s = EDGE_SHARE_OF_TIMEOUT * timeout_s / (rounds if kind == "train" else 1)
        return edge_order(cell, number, first, rounds, each_s, self.strategy.seed, now.version)

    def _messages(
        self,
        base: Grid,
        number: int,
        cells: Mapping[str, int],
        arrays: ArrayRecord,
        config: ConfigRecord,
        timeout_s: float,
    ) -> list[Message]:
        """One message per edge; with a strategy at the centre, those it makes for the edges it samples."""
        centre = self.strategy.centre
        names = {node: cell for cell, node in cells.items()}
        config["server-round"] = number
        if centre is None or not cells:
            messages = [
                Message(RecordDict({"arrays": arrays, "config": config}), node, "train") for node in cells.values()
            ]
        else:
            if len(cells) < (need := minimum_nodes(centre)):
                name = type(centre).__name__
                raise RoundFailed(
                    f"round {number}: {len(cells)} edges can be asked and {name} at the centre needs {need}; "
                    f"centre={name}(min_train_nodes={len(cells)}, min_available_nodes={len(cells)})"
                )
            seed = self.strategy.seed
            with nullcontext() if seed is None else seeded_call(derive_seed(seed, "configure", "centre", number)):
                messages = list(centre.configure_train(number, arrays, config, _Edges(base, list(cells.values()))))
        for message in messages:
            order = self._order(names[message.metadata.dst_node_id], number, timeout_s, "train")
            message.content = RecordDict({**message.content, EDGE_RECORD: order})
        return messages


class _Edges(WrappedGrid):
    """The Grid as a strategy at the centre sees it: its nodes are the edges."""

    def __init__(self, inner: Grid, edges: list[int]) -> None:
        super().__init__(inner)
        self._edges = edges

    def get_node_ids(self) -> Iterable[int]:
        return list(self._edges)


def _layers(grid: Grid) -> tuple[LayeredGrid | None, Grid]:
    return (grid, grid.inner) if isinstance(grid, LayeredGrid) else (None, grid)
