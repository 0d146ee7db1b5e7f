"""A device's end of merging units among devices: it holds them back, averages them with the others, keeps the mean.

What it holds is in `NodeState`: its own arrays from the end of its training to the end of the merge, and the mean from
there to the next round. A device that has lost either says so. What is said: see runtime/splitting/peers.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from logging import getLogger
from typing import TYPE_CHECKING, Any, Final

import numpy.typing as npt
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from flower_edge.errors import CodecError, ProtocolError, StateError, WireError
from flower_edge.peers.mailbox import Mailbox
from flower_edge.peers.opening import open_mailbox
from flower_edge.peers.packet import Packet
from flower_edge.peers.relay import Delivery, RelayMailbox
from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.splitting.messages import HALF_RECORD, OPTIMISER_RECORD, SPLIT_RECORD, SplitOrder, SplitReport
from flower_edge.runtime.splitting.peers import (
    LETTER_RECORD,
    MEAN_RECORD,
    PEER_RECORD,
    PeerAnswer,
    PeerOrder,
    digest_of,
    mean_form,
    mean_of,
    packed,
    shard,
    together,
    unpacked,
)
from flower_edge.splitting.agreed import parts
from flower_edge.splitting.optimiser_state import parameter_of
from flower_edge.wire import (
    array_of,
    arrays_of,
    cast_like,
    model_spec,
    packet_bytes,
    packet_record,
    record_of,
    weight_of,
)

if TYPE_CHECKING:
    from flower_edge.splitting.cutting_torch import CutModel

__all__ = ["add_kept", "hold_back", "merge_with_peers"]

log = getLogger(__name__)

#: Under which name a device remembers what it holds.
STATE: Final = "split-peers"
Arrays = dict[str, npt.NDArray[Any]]


def add_kept(order: SplitOrder, message: Message, context: Context, model: CutModel) -> None:
    """Add to the half in a message, with which a device begins, what it has kept of the last merge.

    Raises:
        StateError: it has not kept it.
        ProtocolError: an order that cannot be followed.
    """
    wanted, memory = PeerOrder.of(order.peers, sender="the server").kept, NodeState(context, STATE)
    held = _remembered(memory)
    memory.delete()
    if not wanted:
        return
    if held.get("digest") != wanted:
        raise StateError("it has not kept the merged units it is to begin from; was it restarted, or its memory lost?")
    names = [name for start, stop in parts(order.work, model.profile()).device for name in model.names(start, stop)]
    came = message.content.array_records.get(HALF_RECORD, ArrayRecord())
    kept = record_of({name: held["kept"][name] for name in names if name not in came and name in held["kept"]})
    message.content[HALF_RECORD] = ArrayRecord({name: kept[name] if name in kept else came[name] for name in names})


def hold_back(order: SplitOrder, reply: Message, context: Context, model: CutModel) -> Message:
    """A reply to an order to train; where the device is done, without what it holds back and keeps for the merge."""
    asked, records = PeerOrder.of(order.peers, sender="the server"), reply.content.array_records
    if not asked.holds_back or HALF_RECORD not in records:
        return reply
    last, half = len(model.units), records[HALF_RECORD]
    names = dict.fromkeys((*model.names(0, asked.cut), *model.names(last - asked.tail, last)))
    own, samples = {name: array_of(half[name]) for name in names}, weight_of(reply)
    NodeState(context, STATE).save({"of": _of(order), "own": own, "samples": samples})
    reply.content[HALF_RECORD] = ArrayRecord({name: array for name, array in half.items() if name not in names})
    if OPTIMISER_RECORD in records and not asked.keeps_optimiser:
        state = {name: array for name, array in records[OPTIMISER_RECORD].items() if parameter_of(name) not in names}
        reply.content[OPTIMISER_RECORD] = ArrayRecord(state)
    return reply


def merge_with_peers(order: SplitOrder, message: Message, context: Context) -> Message | None:
    """One message of a merge; None where the order is to train.

    Raises:
        ProtocolError: an order that cannot be followed.
        PeerError: the mailbox is not on this host.
        CodecError: arrays whose bytes do not mean the same everywhere.
    """
    asked = PeerOrder.of(order.peers, sender="the server") if order.peers else PeerOrder()
    if asked.act == "train":
        return None
    memory, number = NodeState(context, STATE), order.work.number
    held = _remembered(memory)
    if held.get("of") != _of(order) or "own" not in held:
        return _reply(
            order, message, lost="it holds no units of this round back; was it restarted, or its memory lost?"
        )
    own: Arrays = held["own"]
    # Whoever weighs devices by their last reply weighs by their samples, also where it is one of a merge.
    metrics = {"metrics": MetricRecord({"num-examples": held["samples"], "steps": 0, "flops": 0.0})}
    if asked.act == "give":
        memory.delete()
        return _reply(order, message, {HALF_RECORD: record_of(own), **metrics})
    if number not in asked.ring or len(asked.weights) != len(asked.ring):
        raise ProtocolError(f"device {number} is to merge with {asked.ring}, of weights {asked.weights}")
    place, others = asked.ring.index(number), [n for n in asked.ring if n != number]
    with open_mailbox(asked.mailbox, number, _inbox(message, others)) as mailbox:
        if asked.act == "post":
            bits = sum(
                _post(mailbox, asked.post, packed(shard(own, asked.ring.index(n), len(asked.ring))), [n])
                for n in others
            )
            letters = mailbox.outbox if isinstance(mailbox, RelayMailbox) else ()
            records = {f"{LETTER_RECORD}{one.to[0]}": packet_record(one.data) for one in letters}
            return _reply(order, message, {**records, **metrics}, PeerAnswer(posted_bits=bits))
        if asked.act == "add":
            mine = shard(own, place, len(asked.ring))
            found, missing = _collected(mailbox, asked.post - 1, others, dict.fromkeys(others, mine))
            if missing:
                return _reply(order, message, metrics, PeerAnswer(missing=missing))
            found[number] = mine
            mean = packed(mean_of((found[n], w) for n, w in zip(asked.ring, asked.weights, strict=True)))
            memory.save({**held, "mean": mean})
            bits = _post(mailbox, asked.post, mean, others)
            mailbox.forget(asked.post - 1)  # the others have theirs of the ones before, or the merge fails
            letter = Packet(asked.post, number, 0, "identity", mean).to_bytes()
            return _reply(order, message, {MEAN_RECORD: packet_record(letter), **metrics}, PeerAnswer(posted_bits=bits))
        form = mean_form(own)
        like = {n: shard(form, asked.ring.index(n), len(asked.ring)) for n in asked.ring}
        found, missing = _collected(mailbox, asked.post - 1, others, like)
        mailbox.forget(asked.post - 1)
    found[number] = unpacked(held.get("mean", b""), like[number])
    digests = dict(zip(asked.ring, asked.digests, strict=True))
    missing = tuple(n for n in asked.ring if n not in found or digest_of(found[n]) != digests[n])
    if missing:
        memory.delete()
        return _reply(order, message, metrics, PeerAnswer(missing=missing))
    merged = record_of(together((found[n] for n in asked.ring), own))
    kept = {name: array.copy() for name, array in arrays_of(cast_like(merged, model_spec(record_of(own)))).items()}
    digest = digest_of(kept)
    memory.save({"of": _of(order), "kept": kept, "digest": digest})
    return _reply(order, message, metrics, PeerAnswer(digest=digest))


def _collected(
    mailbox: Mailbox, post: int, senders: list[int], like: Mapping[int, Arrays]
) -> tuple[dict[int, Arrays], tuple[int, ...]]:
    """What others posted, and whose cannot be used."""
    found: dict[int, Arrays] = {}
    for sender, letter in mailbox.collect(post, senders).items():
        try:
            found[sender] = unpacked(letter.packet.payload, like[sender])
        except CodecError as error:
            log.warning("device %d does not take what device %d posted: %s", mailbox.node, sender, error)
    return found, tuple(n for n in senders if n not in found)


def _inbox(message: Message, others: list[int]) -> dict[int, Delivery]:
    """Letters that the message brought; what is none is absent."""
    found: dict[int, Delivery] = {}
    for n in others:
        record = message.content.array_records.get(f"{LETTER_RECORD}{n}")
        if record is None:
            continue
        try:
            found[n] = Delivery(packet_bytes(record, sender="the server"))
        except WireError as error:
            log.warning("a letter of device %d did not come whole: %s", n, error)
    return found


def _post(mailbox: Mailbox, post: int, payload: bytes, to: list[int]) -> int:
    """How many bits that is, once per receiver."""
    # Letters to different receivers lie beside one another: each has a sequence of its own.
    packet = Packet(post, mailbox.node, to[0] if len(to) == 1 else 0, "identity", payload)
    mailbox.post(packet, to)
    return 8 * len(packet.to_bytes()) * len(to)


def _of(order: SplitOrder) -> str:
    return json.dumps([order.session, order.work.round, order.work.number])


def _remembered(memory: NodeState) -> dict[str, Any]:
    try:
        found = memory.load()
    except StateError as error:
        log.warning("%s", error)
        return {}
    return found if isinstance(found, dict) else {}


def _reply(
    order: SplitOrder,
    message: Message,
    records: Mapping[str, Any] | None = None,
    answer: PeerAnswer | None = None,
    *,
    lost: str = "",
) -> Message:
    report = SplitReport(session=order.session, round=order.work.round, number=order.work.number, lost=lost)
    said = {SPLIT_RECORD: report.write(), PEER_RECORD: (answer or PeerAnswer()).write()}
    return Message(RecordDict({**said, **(records or {})}), reply_to=message)
