"""`gradient_mod`: a node's half of a gradient exchange, around the user's own function that computes a gradient.

In every step: apply the aggregate of the step before to the own copy of the model, compute a gradient, encode it,
send it. The function sees an ordinary message with the model's arrays and, in its config, the number of the `step`; it
returns gradients where it would have returned a trained model. What a node does in a ring is in gradients_ring.py.
"""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from flower_edge.codecs.sparse import Sparse
from flower_edge.runtime.gradient_messages import (
    PACKET_RECORD,
    SCHEMA,
    SERVER,
    TOLD_RECORD,
    Order,
    Sealed,
    bytes_in,
    order_in,
)
from flower_edge.runtime.gradient_replica import Replica
from flower_edge.runtime.gradient_told import read_told
from flower_edge.runtime.node_state import NodeState

from .gradients_node import STATE, answer, begun, held_in, lost
from .gradients_ring import ring_exchange

__all__ = ["gradient_mod"]


def gradient_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower's mod signature: `ClientApp(mods=[gradient_mod])`, after mods that work on what travels.

    Messages that are of no gradient exchange pass through.

    Raises:
        ProtocolError: (as an error reply) an order of another version, or a function that returns no gradients.
        ModelMismatch: (as an error reply) gradients that are not of the model's shapes.
    """
    config = order_in(message.content) if message.has_content() else None
    if config is None:
        return call_next(message, context)
    order = Order.read(config, sender="the server")
    del config[SCHEMA]
    if order.mailbox:
        return ring_exchange(order, message, context, call_next)
    return _exchange(order, message, context, call_next)


def _exchange(order: Order, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    memory, given = NodeState(context, STATE), message.content
    held = held_in(memory)
    if order.whole:
        held = begun(order, given, held)
    if held is None:
        return lost(order, message, held)
    held.settle(order.heard)
    packet = bytes_in(given, PACKET_RECORD, sender="the server")
    if held.replica.version + (packet is not None) != order.version:
        return lost(order, message, held)
    if packet is not None:
        _update(held.replica, order, packet)
    told = read_told(bytes_in(given, TOLD_RECORD, sender="the server") or b"", held.replica.trained.layout.size)
    reply, data = held.gradient(order, told, message, context, call_next)
    if data is None:
        return reply
    held.save(memory)
    return answer(reply, None, data)


def _update(replica: Replica, order: Order, data: bytes) -> None:
    """Apply the aggregate that made the version of the order."""
    payload = Sealed.from_bytes(data, step=order.version, sender=SERVER).payload
    coder = replica.down_coder()
    state = replica.extra.get("down")
    at = replica.moment(order.version, SERVER)
    update, replica.extra["down"] = coder.decode(payload, coder.start() if state is None else state, at)
    aggregate = update.dense() if isinstance(update, Sparse) else update
    replica.apply(aggregate, order.rate)
