"""`CloudRounds`: what a cloud round of `Hierarchical` is. Ask the edges, bring late ones up to date, merge.

The loop around it is `drive`; how an edge is reached is the tier's. Nothing here knows a terminal, but for being told
by the tier who was counted where.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from logging import getLogger
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import RoundFailed
from flower_edge.events import Event
from flower_edge.rounds import Kind, Round
from flower_edge.runtime.edge_messages import EDGE_RECORD, WEIGHT_KEY, edge_order
from flower_edge.runtime.generators import derive_seed, seeded_call
from flower_edge.runtime.narrowed_grid import minimum_nodes
from flower_edge.runtime.strategy_state import go_on_from, innermost
from flower_edge.runtime.wrapped_grid import WrappedGrid, announce
from flower_edge.wire import ModelSpec, cast_like, check_model

from ..idling import let_pass
from ..layered import LayeredGrid
from ..round_work import RoundReport
from .asynchronous import FedBuff
from .edge_replies import (
    as_reply,
    counts_of,
    events_of,
    links_told,
    metrics_of,
    read_reply,
    row_of,
    traffic_of,
    troubles_of,
)
from .merging import EdgeResult, divergence, merge_edges, mixed, moved, refuse_bytes, settle
from .progress import Progress, UnderWay

if TYPE_CHECKING:
    from .hierarchical import Hierarchical

__all__ = ["CloudRounds"]

log = getLogger("flwr.edge")

#: What of a round's timeout the edges may use; the rest is for the hop between them and the centre.
EDGE_SHARE_OF_TIMEOUT = 0.95

#: How an edge that was out of reach is merged when it is back, where the centre otherwise waits for all.
ALONE = FedBuff(1)


class CloudRounds:
    """The work of a cloud round."""

    def __init__(self, strategy: Hierarchical, spec: ModelSpec) -> None:
        self.strategy = strategy
        self.spec = spec
        self._cells: Mapping[str, int] = {}
        self._names: dict[int, str] = {}  # of all edges there have been: one may answer when it is not listed
        self._why_nobody = ""
        self._edge_rounds = strategy.edge_rounds

    # -- training ----------------------------------------------------------------------------------------------------

    def train(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """Edge rounds at the edges, then the centre's merge."""
        self._edge_rounds, self._why_nobody = self._progress.edge_rounds, ""
        if self.strategy.asynchronous is None:
            results = self._ask_all(grid, number, arrays, config, timeout_s)
            self._progress.done += self._edge_rounds
        else:
            results = self._ask_some(grid, number, arrays, config, timeout_s)
        results, late = self._up_to_date(settle(results), arrays)
        good = [result for result in results if result.arrays is not None]
        for result in results:
            self._progress.attend(result.cell, counted=result.arrays is not None, why=result.trouble)
            if result.arrays is None:
                log.warning("\tround %d: cell %s skipped: %s", number, result.cell, result.trouble)
        events = [*self.strategy.tier.events(), *events_of(results), *late]
        if not good:
            return self._nobody(grid, number, results, events)
        merged = self._merge(number, good, arrays)
        if merged is None:
            return self._nobody(grid, number, results, events)
        apart = divergence(good, merged)
        mean_apart = sum(result.weight * apart[result.cell] for result in good) / sum(result.weight for result in good)
        counts = {
            **counts_of(results, good),
            "divergence": mean_apart,
            "divergence_max": max(apart.values()),
            "edge_rounds": float(self._edge_rounds),
        }
        if len(good) > 1:
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
            links=links_told(results, number),
        )

    def adopted(self, before: ArrayRecord, after: ArrayRecord) -> None:
        """A merge that the layers let through is a new version."""
        if after is not before:
            self._progress.version += 1

    def stop(self, round: Round) -> str | None:
        """None of its own: the layers around `Hierarchical` have them."""
        return None

    def _ask_all(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> list[EdgeResult]:
        """Every edge, and the centre waits for all of them."""
        layered, base = _layers(grid)
        cells = self._look(grid, Round(number))
        messages = self._messages(base, number, cells, arrays, config, timeout_s)

        came: dict[int, Message] = {}

        def deliver(outgoing: list[Message]) -> list[Message]:
            replies = self.strategy.tier.deliver(base, outgoing, timeout_s)
            came.update({reply.metadata.src_node_id: reply for reply in replies})
            return replies

        replies = layered.hop(messages, deliver) if layered is not None else deliver(messages)
        by_node = {reply.metadata.src_node_id: reply for reply in replies}
        asked = {message.metadata.dst_node_id for message in messages}
        return [
            read_reply(cell, by_node.get(node), "train", self.spec, self._progress.version, came.get(node))
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
        self._names.update({node: cell for cell, node in cells.items()})
        results = self._given_up(timeout_s)
        free = {cell: node for cell, node in cells.items() if cell not in now.under_way}
        messages = self._messages(base, number, free, arrays, config, timeout_s)
        messages = messages if layered is None else layered.outgoing(messages)
        for message in messages:
            cell = self._names[message.metadata.dst_node_id]
            now.under_way[cell] = UnderWay(now.version, message.metadata.dst_node_id, time.monotonic())
            now.done_by_cell[cell] = now.done_by_cell.get(cell, 0) + self._edge_rounds
        now.versions[now.version] = arrays
        tier.send(base, messages)
        end_s = time.monotonic() + timeout_s
        while now.under_way and sum(result.arrays is not None for result in results) < rule.buffer:
            replies = tier.receive(base, 1, max(0.0, end_s - time.monotonic()))
            if not replies:
                break
            results += self._received(replies, layered, rule)
        return results

    def _given_up(self, timeout_s: float) -> list[EdgeResult]:
        """Edges that have not answered for longer than a round may take: they are asked again."""
        now, tier = self._progress, self.strategy.tier
        silent = {cell: entry for cell, entry in now.under_way.items() if time.monotonic() - entry.begun_s >= timeout_s}
        for cell in silent:
            del now.under_way[cell]
        if silent:
            tier.forget([entry.node for entry in silent.values()])
        return [EdgeResult(cell, None, 0.0, {}, {}, f"no reply within {timeout_s:g} s") for cell in silent]

    def _received(self, replies: list[Message], layered: LayeredGrid | None, rule: FedBuff) -> list[EdgeResult]:
        now = self._progress
        # Who has answered is free, whatever the layers make of the answer.
        came = {self._names.get(reply.metadata.src_node_id, ""): reply for reply in replies}
        begun = {cell: entry.version for cell in came if (entry := now.under_way.pop(cell, None)) is not None}
        kept = replies if layered is None else layered.incoming(replies)
        let_through = {self._names.get(reply.metadata.src_node_id, ""): reply for reply in kept}
        results = []
        for cell, version in begun.items():
            if cell not in let_through:
                results.append(EdgeResult(cell, None, 0.0, {}, {}, "a layer at the centre dropped its reply"))
                continue
            result = read_reply(cell, let_through[cell], "train", self.spec, version, came[cell])
            if not result.difference:
                result = replace(result, version=version)
            if result.arrays is not None and (why := rule.too_late(now.version - result.version)):
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
            if staleness:
                refuse_bytes([result, result], self.spec)
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
        needed = {entry.version for entry in now.under_way.values()}
        now.versions = {version: kept for version, kept in now.versions.items() if version in needed}
        return current, events

    def _merge(self, number: int, good: list[EdgeResult], arrays: ArrayRecord) -> ArrayRecord | None:
        centre = self.strategy.centre
        rule = self.strategy.asynchronous
        if centre is None:
            merged = merge_edges(good, self.spec)
        else:
            found = self._at_the_centre(centre, number, good, arrays)
            if found is None:
                return None
            merged = cast_like(found, self.spec)
        return merged if rule is None else mixed(arrays, merged, rule.mixing, self.spec)

    def _at_the_centre(
        self, centre: Strategy, number: int, good: list[EdgeResult], arrays: ArrayRecord
    ) -> ArrayRecord | None:
        name = type(centre).__name__
        refuse_bytes(good, self.spec)
        # Flower's strategies average metrics that all replies have.
        shared = set.intersection(*(set(result.metrics) for result in good))
        key = getattr(innermost(centre), "weighted_by_key", WEIGHT_KEY)
        if key not in {WEIGHT_KEY, *shared}:
            raise RoundFailed(
                f"round {number}: {name} at the centre weighs by {key!r}, and edges tell {WEIGHT_KEY!r}, the sum of "
                f"what their own strategies weigh by, and {', '.join(sorted(shared)) or 'nothing else'}; "
                f"leave weighted_by_key out: centre={name}(...)"
            )
        go_on_from(centre, arrays)
        try:
            found, _ = centre.aggregate_train(number, [as_reply(result, self.spec, shared) for result in good])
        except Exception as error:
            raise RoundFailed(
                f"round {number}: {name} at the centre could not merge {len(good)} edges: "
                f"{type(error).__name__}: {error}"
            ) from error
        if found is None:
            self._why_nobody = f"{name} at the centre made no model of {len(good)} edges"
            return None
        check_model(found, self.spec, sender=f"{name} at the centre")
        return found

    def _nobody(self, grid: Grid, number: int, results: list[EdgeResult], events: list[Event]) -> RoundReport:
        """No edge contributed: wait for better times, or say why."""
        why = self._why_nobody or troubles_of(results) or "there are no cells"
        idle_s = self.strategy.idle_s
        if idle_s is None:
            raise RoundFailed(
                f"round {number}: no edge contributed ({why}); where terminals come and go, idle_s= lets time pass"
            )
        log.warning("\tround %d: no edge contributed; the model stays, %g s pass", number, idle_s)
        events.append(let_pass(grid, idle_s, why))
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
            name = type(centre).__name__
            if len(cells) < (need := minimum_nodes(centre)):
                self._why_nobody = (
                    f"{len(cells)} edges can be asked and {name} at the centre needs {need}; "
                    f"centre={name}(min_train_nodes={len(cells)}, min_available_nodes={len(cells)})"
                )
                return []
            seed = self.strategy.seed
            with nullcontext() if seed is None else seeded_call(derive_seed(seed, "configure", "centre", number)):
                messages = list(centre.configure_train(number, arrays, config, _Edges(base, list(cells.values()))))
            if not messages:
                self._why_nobody = f"{name} at the centre asked none of {len(cells)} edges"
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
