"""`gossip_mod`: a worker's half of a gossip round, around the user's own train function.

A round on a worker: mix the neighbours' packets with the own model, x_i <- W_ii x_i + sum_j W_ij x_j, train from there,
encode what came of it and post it for the neighbours. What was mixed, trained and posted last is kept in `NodeState`.
The train function sees an ordinary message with arrays and returns an ordinary reply. Nothing here chooses weights.

Source: [1] ¶40-43.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from logging import getLogger
from typing import Any, Final

import numpy.typing as npt
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from flower_edge.codecs.codec import from_config
from flower_edge.errors import ProtocolError, StateError
from flower_edge.peers.mailbox import Mailbox
from flower_edge.peers.opening import open_mailbox
from flower_edge.peers.relay import Delivery
from flower_edge.runtime.gossip_messages import (
    DATA_RECORD,
    GOSSIP_RECORD,
    INBOX_RECORD,
    PACKET_RECORD,
    Order,
    Report,
    earlier_letters_in,
    from_json,
    letters_in,
)
from flower_edge.runtime.node_state import NodeState
from flower_edge.wire import arrays_of, cast_like, check_model, model_spec, packet_record, record_of

from .agent import agent_socket
from .gossip_mixture import Mixture
from .gossip_packets import Correspondence, lossy, mailboxes, mixing
from .gossip_row import OwnRow

__all__ = ["gossip_mod", "own_model"]

log = getLogger(__name__)

#: Names of what a worker remembers: its model, and the data set it was given.
STATE: Final = "gossip"
DATA_STATE: Final = "gossip-data"

Arrays = dict[str, npt.NDArray[Any]]
Tree = dict[str, Any]


def gossip_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower's mod signature: `ClientApp(mods=[gossip_mod])`, after mods that work on what travels.

    Messages that are not of a gossiping group pass through.

    Raises:
        ProtocolError: (as an error reply) an order of another version, or a train function that returns no arrays.
    """
    record = message.content.config_records.get(GOSSIP_RECORD) if message.has_content() else None
    if record is None:
        return call_next(message, context)
    order = Order.read(record, sender="the server")
    if message.metadata.message_type.partition(".")[0] == "train":
        return _train(order, message, context, call_next)
    return _evaluate(order, message, context, call_next)


def own_model(context: Context) -> Arrays | None:
    """The model that this worker holds itself: as it trained it last, or as the workers agreed on it at the end.

    To be used where it is, from any function of the ClientApp: in answer to a query, say, to write it to a file of the
    device. After `Gossip(final="local")` it is what a worker's training has come to.

    Returns:
        Arrays by name, the caller's own; None before the first round, and where the node's memory was lost.

    Source: [1] ¶43, local models that are used directly.

    >>> own_model(Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})) is None
    True
    """
    saved = _remembered(NodeState(context, STATE))
    return {name: array.copy() for name, array in saved["arrays"].items()} if saved else None


def _train(order: Order, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    begun_s = time.monotonic()
    memory, given = NodeState(context, STATE), message.content
    codec = from_config(from_json(order.codec, sender="the server"))
    saved: Tree = {} if order.fresh else _remembered(memory)
    if not order.fresh and not saved:
        return _lost(order, message)
    name, start = _started(order, given, saved)
    letters = Correspondence(order, codec, saved, start)
    row = OwnRow(order, saved.get("row")) if order.row else None
    if row is not None:
        share = row.share()
        order = replace(order, weights=[share.get(sender, 0.0) for sender in order.senders])
    reach = from_json(order.mailbox, sender="the server")
    with open_mailbox(reach, order.index, _inbox(given), agent=agent_socket(context)) as mailbox:
        mixture = Mixture(start)
        past = _past(order, saved, letters)
        measured_s = _mix(mixture, mailbox, order, letters, past, earlier_letters_in(given, sender="the server"))
        mixed = mixture.model()
        message.content = _for_training(given, name, mixed, context)
        reply = call_next(message, context) if order.train else Message(RecordDict(), reply_to=message)
        if reply.has_error():
            return reply
        trained = _trained(reply, name, mixed) if order.train else mixed
        packet = letters.write(trained)
        processing_s = time.monotonic() - begun_s
        mailbox.post(packet, order.to, processing_s=processing_s)
        mailbox.forget(order.keep_from - order.catch_up)
        data = packet.to_bytes()
    oldest = order.keep_from + 1  # of those that the next round may ask for
    memory.save(
        {
            "name": name,
            "arrays": trained,
            "round": order.round,
            "past": {str(n): model for n, model in past.items() if n >= oldest},
            "row": None if row is None else row.tree(),
            **letters.tree(),
        }
    )
    report = Report(
        round=order.round,
        index=order.index,
        processing_s=processing_s,
        distance=mixture.distance,
        heard=list(measured_s),
        missing=[sender for sender in order.senders if sender not in measured_s],
        heard_s=[] if any(s is None for s in measured_s.values()) else [float(s or 0.0) for s in measured_s.values()],
        posted_bits=8 * len(data),
        requirements="" if row is None else row.requirements(),
        plain=letters.plain,
        wants_plain=letters.wants,
    )
    out = RecordDict({key: value for key, value in reply.content.items() if not isinstance(value, ArrayRecord)})
    if not out.metric_records:
        out["metrics"] = MetricRecord({"num-examples": 0})
    out[GOSSIP_RECORD] = report.write()
    if order.returns_packet:
        out[PACKET_RECORD] = packet_record(data)
    reply.content = out
    return reply


# -- what comes in ---------------------------------------------------------------------------------------------------


def _remembered(memory: NodeState) -> Tree:
    """What was saved last; nothing where it was lost with the SuperNode: the server then sends a model."""
    try:
        tree = memory.load()
    except StateError as error:
        log.warning("the model of this worker is lost: %s", error)
        memory.delete()
        return {}
    return tree if isinstance(tree, dict) else {}


def _started(order: Order, given: RecordDict, saved: Tree) -> tuple[str, Arrays]:
    """The name of the record in which the model travels, and the model to go on from."""
    if not order.fresh:
        return str(saved["name"]), saved["arrays"]
    for name, record in given.array_records.items():
        if name not in (INBOX_RECORD, DATA_RECORD):
            return name, arrays_of(record)
    raise ProtocolError("the server told this worker to begin afresh and sent no model; is it Gossip, of this version?")


def _inbox(given: RecordDict) -> dict[int, Delivery]:
    return {sender: Delivery(data) for sender, data in letters_in(given, sender="the server").items()}


def _past(order: Order, saved: Tree, letters: Correspondence) -> dict[int, Arrays]:
    """What neighbours believe of this worker, by the rounds of which packets may still come; at least the last."""
    if not saved:
        return {}
    kept = {int(number): model for number, model in saved["past"].items() if int(number) >= order.keep_from}
    last = int(saved["round"])
    return {**kept, last: letters.believed(saved["arrays"])}


def _mix(
    mixture: Mixture,
    mailbox: Mailbox,
    order: Order,
    letters: Correspondence,
    past: Mapping[int, Arrays],
    early: Mapping[int, Mapping[int, bytes]],
) -> dict[int, float | None]:
    """Add what the mailbox has of each neighbour; seconds on the link by sender. What cannot be read counts as missing.

    One after the other: at most one neighbour's model is decoded at a time.
    """
    measured_s: dict[int, float | None] = {}
    part, differs = mixing(letters.codec), lossy(letters.codec)
    earlier = mailboxes(mailbox, order, early)
    # A packet is old against the own model, not against a round that nobody took part in.
    newest = max(past, default=0)
    for sender, sent_in, weight in zip(order.senders, order.sent_in, order.weights, strict=True):
        begun_s = time.monotonic()
        found = letters.read(sender, sent_in, mailbox, earlier)
        if found is None:
            continue
        model, letter = found
        age, own = max(0, newest - sent_in), past.get(sent_in)
        if differs and age == 0:
            # Replicas are compared with replicas: what neighbours do not know yet is not taken back.
            own = past.get(newest)
        elif age == 0:
            own = None
        mixture.add(weight * part, model, age=age, own=own)
        measured_s[sender] = letter.link_s
        mailbox.mixed(sender, time.monotonic() - begun_s)
    return measured_s


# -- around the train function ---------------------------------------------------------------------------------------


def _for_training(given: RecordDict, name: str, arrays: Arrays, context: Context) -> RecordDict:
    """What the user's function sees: the model under its usual name, the config, and the data set it was handed."""
    content = RecordDict({name: record_of(arrays)})
    content.update({key: record for key, record in given.config_records.items() if key != GOSSIP_RECORD})
    content.update(dict(given.metric_records.items()))
    memory = NodeState(context, DATA_STATE)
    if isinstance(data := given.get(DATA_RECORD), ArrayRecord):
        memory.save(arrays_of(data))
        content["data"] = data
    elif memory.where != "absent" and isinstance(kept := memory.load(), dict):
        content["data"] = record_of(kept)
    return content


def _trained(reply: Message, name: str, like: Arrays) -> Arrays:
    records = reply.content.array_records
    record = records.get(name) or next(iter(records.values()), None)
    if record is None:
        raise ProtocolError(
            "the train function returned no ArrayRecord; a gossiping worker posts the model it has trained: "
            f"Message(RecordDict({{{name!r}: ArrayRecord(model.state_dict()), 'metrics': ...}}), reply_to=message)"
        )
    spec = model_spec(record_of(like))
    check_model(record, spec, sender="the train function")
    return arrays_of(cast_like(record, spec))


def _lost(order: Order, message: Message) -> Message:
    """No model to go on from: the server sends one with its next message."""
    report = Report(round=order.round, index=order.index, lost=True)
    metrics = MetricRecord({"num-examples": 0})
    return Message(RecordDict({"metrics": metrics, GOSSIP_RECORD: report.write()}), reply_to=message)


def _evaluate(order: Order, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Evaluate the worker's own model, as it was posted last, or the one in the message."""
    saved: Tree = {} if order.fresh else _remembered(NodeState(context, STATE))
    if not order.fresh and not saved:
        raise ProtocolError("this worker has no model of its own to evaluate; it takes part from the next round on")
    name, arrays = _started(order, message.content, saved)
    message.content = _for_training(message.content, name, arrays, context)
    return call_next(message, context)
