"""What a node of a gradient exchange holds between two messages, and how it comes to a gradient.

Both forms of the exchange, through a server and in a ring, use it. Nothing here exchanges.
"""

from __future__ import annotations

from dataclasses import dataclass
from logging import getLogger
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from flower_edge.codecs.codec import State
from flower_edge.codecs.teacher import Told
from flower_edge.errors import ProtocolError, StateError, WireError
from flower_edge.runtime.gradient_messages import (
    GRADIENT_RECORD,
    INBOX_RECORD,
    PACKET_RECORD,
    REPLICA_RECORD,
    TOLD_RECORD,
    Order,
    Report,
    Sealed,
    bytes_in,
    record_with,
)
from flower_edge.runtime.gradient_replica import Replica
from flower_edge.runtime.gradient_setup import Setup
from flower_edge.runtime.node_state import NodeState
from flower_edge.store.tree import tree_from_bytes
from flower_edge.wire import arrays_of, record_of, weight_of

__all__ = ["Held", "answer", "begun", "held_in", "lost", "remembered"]

log = getLogger(__name__)

#: Under which name a node remembers it.
STATE: Final = "gradients"
_OURS: Final = frozenset({GRADIENT_RECORD, PACKET_RECORD, REPLICA_RECORD, TOLD_RECORD, INBOX_RECORD})


@dataclass
class Held:
    """Between two messages.

    Attributes:
        replica: the model, as everybody has it.
        name: of the record in which models travel.
        codec: state of the codec; None before the first gradient.
        before: the same before the last gradient: where the codec goes back to if that one does not count.
        made: 1 + the step of the last gradient, 0 before any.
    """

    replica: Replica
    name: str
    codec: State | None = None
    before: State | None = None
    made: int = 0

    def save(self, memory: NodeState) -> None:
        """Keep it."""
        memory.save({**vars(self), "replica": self.replica.tree()})

    def settle(self, heard: int) -> None:
        """Go back if the last gradient does not count."""
        if self.made != heard:
            self.codec, self.made = self.before, heard

    def gradient(
        self, order: Order, told: Told, message: Message, context: Context, call_next: ClientAppCallable
    ) -> tuple[Message, bytes | None]:
        """The reply of the user's function, and the packet of the gradient in it; no packet where it is an error.

        Raises:
            ProtocolError, ModelMismatch: it returned no gradient of this model.
            CodecError: a gradient that is not finite.
        """
        replica, given = self.replica, message.content
        content = RecordDict({self.name: record_of(replica.model())})
        content.update({name: record for name, record in given.config_records.items() if name not in _OURS})
        content.update(dict(given.metric_records.items()))
        for record in content.config_records.values():
            record["step"] = replica.version
        message.content = content
        reply = call_next(message, context)
        if reply.has_error():
            return reply, None
        records = reply.content.array_records
        found = records.get(self.name) or next(iter(records.values()), None)
        if found is None:
            raise ProtocolError(
                "the train function returned no ArrayRecord; in a gradient exchange it returns the gradient under the "
                f"names of the model: Message(RecordDict({{{self.name!r}: gradients, 'metrics': ...}}), "
                "reply_to=message)"
            )
        vector = replica.trained.gather(arrays_of(found), sender="the train function")
        weight = _weight(reply, replica.setup.weighted_by)
        coder = replica.coder()
        if told.codebook is not None:
            replica.extra["codebook"] = told.codebook
        at = replica.moment(order.step, order.index, told.leader, replica.extra.get("codebook"))
        self.before = coder.start() if self.codec is None else self.codec
        payload, self.codec = coder.encode(vector, self.before, at)
        self.made = order.step + 1
        sealed = Sealed(order.step, order.index, payload, weight, replica.version, replica.digest())
        return reply, sealed.to_bytes()


def remembered(memory: NodeState) -> Any:
    """What a node remembers under a name; None where it was lost with the SuperNode."""
    try:
        return memory.load()
    except StateError as error:
        log.warning("what this node had of a gradient exchange is lost: %s", error)
        memory.delete()
        return None


def held_in(memory: NodeState) -> Held | None:
    """What a node has; where that is nothing, the server sends a model."""
    tree = remembered(memory)
    return None if tree is None else Held(**{**tree, "replica": Replica.from_tree(tree["replica"])})


def begun(order: Order, given: RecordDict, known: Held | None) -> Held:
    """From the model in the message; the codec remembers what it did, unless the server has forgotten it.

    Raises:
        ProtocolError: there is none, or no set-up beside it.
    """
    name = next((name for name in given.array_records if name not in _OURS), None)
    if name is None or not order.setup:
        raise ProtocolError("the server told this node to begin from a model and sent none; is it GradientExchange?")
    beside = None
    if (data := bytes_in(given, REPLICA_RECORD, sender="the server")) is not None:
        beside = tree_from_bytes(data, source="the server's replica")
    setup = Setup.of(order.setup)
    replica = Replica.of(arrays_of(given.array_records[name]), setup, beside)
    if known is None or order.fresh or known.replica.setup.codec != setup.codec:
        return Held(replica, name)
    return Held(replica, name, known.codec, known.before, known.made)


def answer(reply: Message, report: Report | None, packet: bytes | None) -> Message:
    """The reply with a packet, a report, or both, instead of arrays."""
    out = RecordDict({key: value for key, value in reply.content.items() if not isinstance(value, ArrayRecord)})
    if report is not None:
        out[GRADIENT_RECORD] = report.write()
    if packet is not None:
        out[PACKET_RECORD] = record_with(packet)
    reply.content = out
    return reply


def lost(order: Order, message: Message, held: Held | None) -> Message:
    """This node is not where the order means it to be; the server sends a model with its next message."""
    why = "it has none" if held is None else f"its own has seen {held.replica.version} updates"
    report = Report(order.step, order.index, lost=why, fresh=held is None)
    return Message(RecordDict({GRADIENT_RECORD: report.write()}), reply_to=message)


def _weight(reply: Message, key: str) -> float:
    try:
        weight = weight_of(reply, key)
    except WireError:
        raise ProtocolError(
            f"the train function told no number {key!r}; gradients are weighted by it: "
            f"MetricRecord({{{key!r}: len(batch)}})"
        ) from None
    if not 0.0 <= weight < np.inf:
        raise ProtocolError(f"the train function told {key} = {weight}: expected a finite number, 0 or more")
    return weight
