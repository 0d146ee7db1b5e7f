"""A node's half of a gradient exchange in a ring: packets go round until everybody has all of them.

    begin      compute a gradient, encode it, post it to the next in the ring
    collect    take what the one before posted, keep it, post it on; n - 1 times
    commit     decode all packets in one order, update the model with their weighted mean

A step is committed only when every node of the ring has said that it has all packets; else everybody drops it, and the
codec goes back to where it was. So no model can have seen what another has not. What is kept between hops is in
`NodeState`. Nothing here decides who is in the ring.
"""

from __future__ import annotations

import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from flower_edge.codecs.sparse import Update
from flower_edge.codecs.teacher import Told
from flower_edge.errors import CodecError, WireError
from flower_edge.peers.mailbox import Mailbox
from flower_edge.peers.opening import open_mailbox
from flower_edge.peers.packet import Packet
from flower_edge.peers.relay import Delivery, RelayMailbox
from flower_edge.runtime.gossip_messages import from_json
from flower_edge.runtime.gradient_messages import (
    INBOX_RECORD,
    REPLICA_RECORD,
    Order,
    Report,
    Sealed,
    bytes_in,
    record_with,
)
from flower_edge.runtime.gradient_replica import Replica
from flower_edge.runtime.gradient_setup import WeightedSum
from flower_edge.runtime.node_state import NodeState
from flower_edge.store.tree import tree_to_bytes
from flower_edge.wire import record_of

from .gradients_node import STATE, answer, begun, held_in, lost, remembered

__all__ = ["ring_exchange"]

log = getLogger(__name__)

#: What a node remembers from hop to hop: small where packets are, so that a hop moves no model.
RING_STATE = "gradients-ring"


@dataclass
class Gathered:
    """Packets of one step.

    Attributes:
        step: which; -1 before any.
        packets: by the number of the node that made them, as text.
        leader: the leader's places that were public in it.
    """

    step: int = -1
    packets: dict[str, bytes] = field(default_factory=dict)
    leader: Any = None


def ring_exchange(order: Order, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """One message of the ring: what the order says of commit, collect, begin, in that order."""
    hops, memory = NodeState(context, RING_STATE), NodeState(context, STATE)
    tree = remembered(hops)
    gathered = Gathered() if tree is None else Gathered(**tree)
    with _mailbox(order, message) as mailbox:
        if order.collect:
            return _hop(order, message, hops, gathered, mailbox)
        held = held_in(memory)
        if order.whole:
            held, gathered = begun(order, message.content, held), Gathered()
        if held is None:
            return lost(order, message, held)
        held.settle(order.heard)
        refused, posted_bits = list[int](), 0
        if order.commit:
            if not {str(origin) for origin in order.commit} <= set(gathered.packets):
                return lost(order, message, held)
            refused = _commit(held.replica, order, gathered)
        # A step of which nothing could be read is committed, too, and moves no model.
        if held.replica.version not in (order.version, order.version - bool(order.commit)):
            return lost(order, message, held)
        gathered = Gathered()
        reply = Message(RecordDict(), reply_to=message)
        if order.begin:
            told = _told(held.replica, order.step)
            reply, data = held.gradient(order, told, message, context, call_next)
            if data is None:
                return reply
            gathered = Gathered(order.step, {str(order.index): data}, told.leader)
            posted_bits = _post(mailbox, order, data)
    held.save(memory)
    hops.save(vars(gathered))
    replica = held.replica
    beside = b"" if order.begin else tree_to_bytes(replica.beside())
    report = Report(
        order.step,
        order.index,
        replica.version,
        replica.digest(),
        beside=zlib.crc32(beside),
        posted_bits=posted_bits,
        refused=refused,
    )
    reply = answer(reply, report, _posted(mailbox))
    if order.returns:
        reply.content[held.name] = record_of(replica.model())
        reply.content[REPLICA_RECORD] = record_with(beside)
    return reply


def _hop(order: Order, message: Message, hops: NodeState, gathered: Gathered, mailbox: Mailbox) -> Message:
    """Take one packet, and pass it on."""
    if gathered.step != order.step:  # it was started anew since the step began
        report = Report(order.step, order.index, lost=f"it gathers packets of step {gathered.step}")
        return answer(Message(RecordDict(), reply_to=message), report, None)
    letter = mailbox.collect(order.collect, [order.before]).get(order.before)
    data = None if letter is None else letter.packet.payload
    if data is not None:
        try:
            Sealed.from_bytes(data, step=order.step, sender=order.origin)
        except WireError as error:
            log.warning("node %d does not take what node %d posted: %s", order.index, order.before, error)
            data = None
    posted_bits = 0
    if data is not None:
        gathered.packets[str(order.origin)] = data
        hops.save(vars(gathered))
        posted_bits = _post(mailbox, order, data)
    report = Report(order.step, order.index, posted_bits=posted_bits, missing=data is None)
    return answer(Message(RecordDict(), reply_to=message), report, _posted(mailbox))


def _commit(replica: Replica, order: Order, gathered: Gathered) -> list[int]:
    """Update the model with everybody's gradients; what nobody can read nobody counts. Whose those were."""
    coder, refused = replica.coder(), []
    total = WeightedSum(replica.trained.layout.size, replica.trained.dtype)
    states: dict[str, Any] = dict(replica.extra.get("decoders", {}))
    updates: dict[int, Update] = {}
    teacher = coder.teacher()
    for origin in order.commit:
        key = str(origin)
        at = replica.moment(gathered.step, origin, gathered.leader, replica.extra.get("codebook"))
        try:
            sealed = Sealed.from_bytes(gathered.packets[key], step=gathered.step, sender=origin)
            update, states[key] = coder.decode(sealed.payload, states[key] if key in states else coder.start(), at)
        except (CodecError, WireError) as error:
            log.warning("the gradient of node %d is not used: %s", origin, error)
            refused.append(origin)
            states.pop(key, None)
            continue
        total.add(update, sealed.weight)
        if teacher is not None:
            updates[origin] = update
    if any(states.values()):
        replica.extra["decoders"] = states
    if teacher is not None:
        replica.extra["teacher"] = teacher.learn(replica.extra["teacher"], gathered.step, updates)
    mean = total.mean()
    if mean is not None:
        replica.apply(mean, order.rate)
    return refused


def _told(replica: Replica, step: int) -> Told:
    """What the codec's teacher makes public: each node asks its own, and all have seen the same."""
    teacher = replica.coder().teacher()
    if teacher is None:
        return Told()
    state = replica.extra.get("teacher")
    told, replica.extra["teacher"] = teacher.tell(
        teacher.init(replica.trained.layout) if state is None else state, step
    )
    return told


# -- the mailbox -----------------------------------------------------------------------------------------------------


def _mailbox(order: Order, message: Message) -> AbstractContextManager[Mailbox]:
    data = bytes_in(message.content, INBOX_RECORD, sender="the server")
    inbox = {} if data is None else {order.before: Delivery(data)}
    return open_mailbox(from_json(order.mailbox, sender="the server"), order.index, inbox)


def _post(mailbox: Mailbox, order: Order, data: bytes) -> int:
    """Post what was made here or came from the one before; how many bits that is."""
    if not order.post:
        return 0
    packet = Packet(order.post, order.index, 0, "", data)
    mailbox.post(packet, [order.after])
    mailbox.forget(order.post - 1)  # what was posted before has been collected, or is not asked for any more
    return 8 * len(packet.to_bytes())


def _posted(mailbox: Mailbox) -> bytes | None:
    """What the server is to relay, where it does."""
    return mailbox.outbox[-1].data if isinstance(mailbox, RelayMailbox) and mailbox.outbox else None
