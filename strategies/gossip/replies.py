"""What came back from gossiping workers: read, and refused where it is not what it should be.

One worker's nonsense is told and left out; it stops nobody. Nothing here decodes a model or decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from logging import getLogger

from flwr.app import Message, MetricRecord
from flwr.serverapp import Grid

from flower_edge.errors import ProtocolError, WireError
from flower_edge.runtime.abilities import last_trip
from flower_edge.runtime.gossip_messages import GOSSIP_RECORD, PACKET_RECORD, Report
from flower_edge.wire import error_reason, packet_bytes, weight_of

from .group import Group, Heard

__all__ = ["Replies", "metric_of", "read_replies", "weighted_metrics"]

log = getLogger("flwr.edge")


@dataclass(frozen=True)
class Replies:
    """Of a round.

    Attributes:
        heard: what each worker told, by row, in the order of the rows.
        trained: the replies of those that have a model.
        refused: why the reply of a worker was left out, by row.
    """

    heard: dict[int, Heard]
    trained: list[Message]
    refused: dict[int, str]


def read_replies(group: Group, grid: Grid, replies: Iterable[Message], server_round: int) -> Replies:
    """Everything that came back for a round.

    Raises:
        ProtocolError: every single reply had to be refused; says why the first was.
    """
    heard: dict[int, Heard] = {}
    trained: list[Message] = []
    refused: dict[int, str] = {}
    for reply in sorted(replies, key=lambda reply: group.env.index.get(reply.metadata.src_node_id, -1)):
        node = reply.metadata.src_node_id
        if reply.has_error():
            log.warning("\tworker at node %s: %s", node, error_reason(reply))
            continue
        i = group.env.index.get(node)
        if i is None or i in heard:
            continue
        try:
            heard[i] = _read(reply, grid, group.env.numbers[i], server_round)
        except (ProtocolError, WireError) as error:
            log.warning("\tround %d: the reply of node %d is not used: %s", server_round, node, error)
            refused[i] = str(error)
            continue
        if not heard[i].report.lost:
            trained.append(reply)
    if refused and not heard:
        raise ProtocolError(f"no reply of the {len(refused)} could be used; the first: {next(iter(refused.values()))}")
    return Replies(heard, trained, {i: why for i, why in refused.items() if i not in heard})


def _read(reply: Message, grid: Grid, number: int, server_round: int) -> Heard:
    node = reply.metadata.src_node_id
    record = reply.content.config_records.get(GOSSIP_RECORD)
    if record is None:
        raise ProtocolError(
            f"node {node} answered as if nobody gossiped; add the mod on the client: ClientApp(mods=[gossip_mod])"
        )
    report = Report.read(record, sender=f"node {node}")
    if (report.round, report.index) != (server_round, number):
        raise ProtocolError(
            f"node {node} told of round {report.round} as worker {report.index}, expected round {server_round} and "
            f"worker {number}: it was late"
        )
    packet = reply.content.array_records.get(PACKET_RECORD)
    data = None if packet is None else packet_bytes(packet, sender=f"node {node}")
    trip = last_trip(grid, node)
    return Heard(report, data, report.processing_s if trip is None else trip.compute_s)


def weighted_metrics(replies: Iterable[Message], weight_key: str) -> dict[str, float]:
    """Workers' own metrics, weighted by their examples; who tells no examples is left out, and told of."""
    found: dict[str, list[tuple[float, float]]] = {}
    for reply in replies:
        try:
            weight = weight_of(reply, weight_key)
        except WireError as error:
            log.warning("\tthe metrics of a worker are not counted: %s", error)
            continue
        if not 0.0 <= weight < math.inf:
            log.warning(
                "\tthe metrics of node %d are not counted: %s = %r", reply.metadata.src_node_id, weight_key, weight
            )
            continue
        for record in reply.content.metric_records.values():
            for name, value in record.items():
                if name != weight_key and isinstance(value, int | float):
                    found.setdefault(name, []).append((weight, float(value)))
    return {name: _mean(values) for name, values in found.items()}


def _mean(values: list[tuple[float, float]]) -> float:
    total = sum(weight for weight, _ in values)
    if total <= 0:
        return sum(value for _, value in values) / len(values)
    return sum(weight * value for weight, value in values) / total


def metric_of(reply: Message, name: str) -> float | None:
    """A number in a reply's metrics, if there is one."""
    records: Iterable[MetricRecord] = reply.content.metric_records.values()
    return next((float(v) for record in records if isinstance(v := record.get(name), int | float)), None)
