"""What the gate is shown of a Flower reply. Nothing is decided here, and no array is read."""

from __future__ import annotations

from flwr.app import Message

from flower_edge.admission.gate import Offer
from flower_edge.runtime.assignment_record import ASSIGNMENT_RECORD
from flower_edge.runtime.edge_messages import EDGE_RECORD
from flower_edge.wire import payload_bits

__all__ = ["offer_of"]


def offer_of(reply: Message, *, edge: bool) -> Offer:
    """A reply that is no error, as it came.

    Args:
        reply: the message.
        edge: whether it is an edge's, whose report may say that its arrays are a difference.
    """
    content = reply.content
    report = content.config_records.get(EDGE_RECORD) if edge else None
    return Offer(
        dict(content.array_records.items()),
        dict(content.metric_records.items()),
        payload_bits(content) // 8,
        reply.metadata.run_id or None,
        content.config_records.get(ASSIGNMENT_RECORD),
        report is not None and report.get("difference") is True,
    )
