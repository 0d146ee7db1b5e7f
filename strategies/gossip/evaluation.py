"""Evaluation by gossiping workers: each its own model, or all the mean; the worst and a watched one beside the mean.

Nothing here trains or mixes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from flower_edge.runtime.gossip_messages import GOSSIP_RECORD, Order

from .group import Group
from .replies import metric_of, weighted_metrics

__all__ = ["evaluate_messages", "evaluation_metrics"]


def evaluate_messages(
    group: Group, grid: Grid, server_round: int, records: Mapping[str, ArrayRecord | ConfigRecord], fraction: float
) -> list[Message]:
    """One for each of the first workers that are there; with arrays among the records they evaluate those."""
    there, count = set(grid.get_node_ids()), max(1, round(fraction * group.topology.nodes))
    fresh = any(isinstance(record, ArrayRecord) for record in records.values())
    messages: list[Message] = []
    for node, i in group.env.index.items():
        if i < count and node in there:
            order = Order(server_round, group.env.numbers[i], len(group.env.numbers), fresh=fresh)
            messages.append(Message(RecordDict({**records, GOSSIP_RECORD: order.write()}), node, "evaluate"))
    return messages


def evaluation_metrics(group: Group, replies: Sequence[Message], weight_key: str, watch: int | None) -> dict[str, Any]:
    """Workers' metrics weighted by their examples; of an accuracy also the worst, and the watched worker's."""
    metrics: dict[str, Any] = dict(weighted_metrics(replies, weight_key))
    known = [value for value in (metric_of(reply, "accuracy") for reply in replies) if value is not None]
    if known:
        metrics["accuracy_worst"] = min(known)
    for reply in replies:
        row = group.env.index.get(reply.metadata.src_node_id)
        if row is not None and group.env.numbers[row] == watch:
            metrics |= {f"{name}_watched": value for name, value in weighted_metrics([reply], weight_key).items()}
    return metrics
