"""What an edge's reply says, and the numbers of a round made of several: between messages and `EdgeResult`s.

Nothing here asks an edge, merges a model or keeps anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from logging import getLogger
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord

from flower_edge.errors import ModelMismatch, WireError
from flower_edge.events import Event
from flower_edge.monitoring.links import LinkTable
from flower_edge.rounds import Kind
from flower_edge.runtime.edge_messages import (
    COUNTED_NODES,
    COUNTED_ORDER,
    COUNTED_WEIGHTS,
    EDGE_RECORD,
    EVENTS_KEY,
    LAYER_PREFIX,
    LINKS_KEY,
    SCHEMA,
    WEIGHT_KEY,
)
from flower_edge.runtime.flower_private import clone_message
from flower_edge.wire import ModelSpec, cast_like, check_model, copy_content, error_reason, weight_of

from .merging import EdgeResult

__all__ = [
    "as_reply",
    "counts_of",
    "events_of",
    "links_told",
    "metrics_of",
    "read_reply",
    "row_of",
    "traffic_of",
    "troubles_of",
]

log = getLogger("flwr.edge")


def read_reply(
    cell: str, reply: Message | None, kind: Kind, spec: ModelSpec, version: int, came: Message | None = None
) -> EdgeResult:
    """What an edge answered, checked: an edge that sends nonsense has nothing to merge, and the round goes on.

    Args:
        cell: the edge's name.
        reply: its message, `None` if there is none.
        kind: what it was asked for.
        spec: names, shapes and dtypes of the model.
        version: the version it began from, where it does not say.
        came: the same as it came, where layers are between: a model that they refuse is not merged, and what has
            happened at that edge has happened still.
    """
    if reply is None:
        return EdgeResult(cell, None, 0.0, {}, {}, "no reply")
    if reply.has_error():
        numbers, happened = _happened(came)
        return EdgeResult(cell, None, 0.0, {}, numbers, error_reason(reply), events=happened)
    report: dict[str, Any] = dict(reply.content.config_records.get(EDGE_RECORD, ConfigRecord()).items())
    if report.get("schema") != SCHEMA:
        who = f"node {reply.metadata.src_node_id} is no edge: its reply has no {EDGE_RECORD!r} record of {SCHEMA!r}"
        return EdgeResult(cell, None, 0.0, {}, {}, f"{who}; on a LocalTier every node runs an edge_app(...)")
    metrics = {
        name: value
        for record in reply.content.metric_records.values()
        for name, value in record.items()
        if name != WEIGHT_KEY
    }
    trouble = str(report.get("trouble", ""))
    try:
        events = tuple(Event.from_json(text) for text in report.pop(EVENTS_KEY, []))
        weight = weight_of(reply, WEIGHT_KEY)
        if not (np.isfinite(weight) and weight >= 0):
            raise WireError(f"edge {cell} sent the weight {weight}; it is finite and not below 0")
        arrays = next(iter(reply.content.array_records.values()), None)
        if kind == "evaluate":
            return EdgeResult(cell, None, weight, metrics, report, trouble, events=events)
        if arrays is None or weight == 0:
            return EdgeResult(cell, None, 0.0, metrics, report, trouble or "no model", events=events)
        check_model(arrays, spec, sender=f"edge {cell}")
        counted = None
        if COUNTED_NODES in report:
            entries = zip(report[COUNTED_WEIGHTS], report[COUNTED_ORDER], strict=True)
            counted = dict(zip(report[COUNTED_NODES], entries, strict=True))
        began_with = int(report.get("version", version))
    except (WireError, ModelMismatch, ValueError, TypeError, KeyError) as error:
        return EdgeResult(cell, None, 0.0, {}, report, str(error))
    difference = bool(report.get("difference", False))
    return EdgeResult(
        cell,
        arrays if difference else cast_like(arrays, spec),
        weight,
        metrics,
        report,
        trouble,
        began_with,
        difference,
        counted,
        events,
        reply,
    )


def _happened(came: Message | None) -> tuple[dict[str, Any], tuple[Event, ...]]:
    """Numbers and events of the edge's rounds in a reply as it came; nothing where it is none, or not an edge's."""
    if came is None or came.has_error():
        return {}, ()
    report: dict[str, Any] = dict(came.content.config_records.get(EDGE_RECORD, ConfigRecord()).items())
    if report.get("schema") != SCHEMA:
        return {}, ()
    try:
        return report, tuple(Event.from_json(text) for text in report.pop(EVENTS_KEY, []))
    except (ValueError, TypeError):
        return {}, ()


def as_reply(result: EdgeResult, spec: ModelSpec, metrics: Set[str]) -> Message:
    """The edge's reply with its model as it counts now and its settled weight, for a strategy at the centre."""
    assert result.reply is not None
    assert result.arrays is not None
    content = copy_content(result.reply.content)
    del content[EDGE_RECORD]
    for name in content.array_records:
        content[name] = cast_like(result.arrays, spec)
    for name, record in content.metric_records.items():
        shown = {key: value for key, value in record.items() if key in metrics}
        content[name] = MetricRecord({**shown, WEIGHT_KEY: result.weight} if WEIGHT_KEY in record else shown)
    return clone_message(result.reply, content)


def events_of(results: Iterable[EdgeResult]) -> list[Event]:
    """What happened at the edges, their troubles among it."""
    events: list[Event] = []
    for result in results:
        events += result.events
        if result.trouble:
            skipped = result.arrays is None
            text = f"cell {result.cell}{' skipped' if skipped else ''}: {result.trouble}"
            events.append(Event("cell-skipped" if skipped else "edge-round-failed", text, cell=result.cell))
    return events


def links_told(results: Iterable[EdgeResult], number: int) -> dict[str, LinkTable]:
    """Links between the terminals of each cell that told any; what is no such table is left out."""
    told = {
        result.cell: LinkTable.from_json(result.report[LINKS_KEY], number, result.cell)
        for result in results
        if LINKS_KEY in result.report
    }
    return {cell: table for cell, table in told.items() if table is not None}


def troubles_of(results: Iterable[EdgeResult], most: int = 3) -> str:
    """Why edges have no model, in one line: those with the same trouble together, at most so many of each.

    >>> of = lambda cell, trouble: EdgeResult(cell, None, 0.0, {}, {}, trouble)
    >>> troubles_of([of("a", "no reply"), of("b", "no model"), of("c", "no reply")])
    'a, c: no reply; b: no model'
    >>> troubles_of([of(f"e{n}", "no reply") for n in range(30)])
    'e0, e1, e2 and 27 more: no reply'
    """
    cells: dict[str, list[str]] = {}
    for result in results:
        if result.arrays is None:
            cells.setdefault(result.trouble, []).append(result.cell)
    told = []
    for trouble, of_it in list(cells.items())[:most]:
        more = f" and {len(of_it) - most} more" if len(of_it) > most else ""
        told.append(f"{', '.join(of_it[:most])}{more}: {trouble}")
    left = sum(map(len, cells.values())) - sum(len(of_it) for of_it in list(cells.values())[:most])
    return "; ".join([*told, *([f"and {left} more for other reasons"] if left else [])])


def counts_of(results: list[EdgeResult], good: list[EdgeResult]) -> dict[str, float]:
    """Nodes, messages and cells of a round, for its record."""
    sampled, replied = _total(results, "nodes-sampled"), _total(results, "nodes-replied")
    return {
        "nodes_sampled": sampled,
        "nodes_replied": replied,
        "nodes_failed": sampled - replied,
        "messages": _total(results, "messages"),
        "messages_failed": _total(results, "messages-failed"),
        "cells": float(len(results)),
        "cells_skipped": float(len(results) - len(good)),
    }


def _total(results: Iterable[EdgeResult], name: str) -> float:
    return float(sum(value for result in results if isinstance(value := result.report.get(name, 0), int | float)))


def metrics_of(results: list[EdgeResult]) -> MetricRecord:
    """Mean of each metric over the edges that have it, weighted by n_e."""
    names = dict.fromkeys(name for result in results for name in result.metrics)
    merged: dict[str, Any] = {}
    for name in names:
        having = [result for result in results if name in result.metrics]
        if len({np.shape(result.metrics[name]) for result in having}) > 1:
            log.warning("metric %r has another length at every edge; it is left out", name)
            continue
        weights = np.array([result.weight for result in having])
        values = np.array([result.metrics[name] for result in having], dtype=float)
        mean = np.tensordot(weights / weights.sum(), values, axes=1)
        merged[name] = mean.tolist() if mean.ndim else float(mean)
    return MetricRecord(merged)


def row_of(result: EdgeResult) -> dict[str, Any]:
    """One cell's numbers, for its record."""
    numbers = {name: value for name, value in result.metrics.items() if isinstance(value, int | float)}
    report = {
        name.replace("-", "_"): value
        for name, value in result.report.items()
        if isinstance(value, int | float) and not name.startswith(LAYER_PREFIX)
    }
    return {**numbers, **report, "num-examples": result.weight}


def traffic_of(results: Iterable[EdgeResult]) -> dict[str, dict[str, Any]]:
    """What the layers inside each cell measured."""
    measured = {
        result.cell: {
            name.removeprefix(LAYER_PREFIX): value
            for name, value in result.report.items()
            if name.startswith(LAYER_PREFIX)
        }
        for result in results
    }
    return {cell: values for cell, values in measured.items() if values}
