"""A node's half of a `Compressed` layer: the model out of a message, the train function's answer into a blob.

The train function sees an ordinary message with arrays and returns an ordinary reply. What the node has to remember
(the model it holds, what its codec left out, the last payload) is handed in and handed back. `codec_mod` uses this
around a ClientApp, `EdgeRounds` around an edge. Nothing here decides what is sent down.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from logging import getLogger
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from ..codecs.codec import from_config
from ..codecs.envelope import Envelope, Kind, codec_hash
from ..codecs.model_form import form_of, layout_of, read_rest
from ..codecs.model_update import between, update_like
from ..codecs.moment import Moment, Public
from ..codecs.vector_codec import VectorCodec
from ..errors import CodecError, CodecGap
from ..wire import arrays_of, cast_like, check_model, model_spec
from .codec_messages import BESIDE_RECORD, BLOB_KEY, Order, blob_in, blob_record, read_places, replaced
from .edge_messages import EDGE_RECORD
from .held_model import Held, Lost, Memory, configs_in, received, remembered

__all__ = ["answer_coded"]

log = getLogger(__name__)

#: Most bytes of the reason that a node tells.
_LONGEST_REASON = 300


def answer_coded(message: Message, node: int, memory: Memory, call: Callable[[Message], Message]) -> Message:
    """Answer a message, whether it comes from a `Compressed` layer or not.

    Args:
        message: its content is replaced by what the function is to see.
        node: a stable number of this node, as in `Moment.node`.
        memory: of this node, for this alone.
        call: the function.

    Raises:
        WireError, CodecError: (as an error reply) an order that is none, or arrays that a codec cannot carry.
        ModelMismatch: (as an error reply) the function returned arrays that are not the model's.
    """
    found = blob_in(message.content, sender="the server") if message.has_content() else None
    if found is None:
        return call(message)
    name, order = found[0], Order.from_bytes(found[1], sender="the server")
    before = remembered(memory)
    try:
        codec, aggregates, held = _agreed(order, before)
        name, record, held = received(order, held, aggregates, name, message.content)
        public = _public(order, held, record)
    except (Lost, CodecGap) as error:
        return _lost(message, name, order, node, str(error))
    message.content = replaced(replaced(message.content, BESIDE_RECORD, None), name, record)
    reply = call(message)
    if not reply.has_error() and message.metadata.message_type.partition(".")[0] == "train":
        reply, held = _coded(reply, order, held, codec, name, record, replace(public, node=node))
    if held is not before and held.worth_saving():
        memory.save(held.to_tree())
    return reply


def _lost(message: Message, name: str, order: Order, node: int, reason: str) -> Message:
    """The server sends a plain model with its next message."""
    text = reason.encode()[:_LONGEST_REASON]
    envelope = Envelope(Kind.LOST, text, round=order.round, node=node, version=order.version, digest=order.digest)
    return Message(RecordDict({name: blob_record(envelope.to_bytes())}), reply_to=message)


# -- what comes in ---------------------------------------------------------------------------------------------------


def _agreed(order: Order, held: Held) -> tuple[VectorCodec, int, Held]:
    """The codec for replies, how many aggregates it is given, and what is held once what was lost is taken back."""
    text = order.config or held.config
    if not text:
        raise Lost("this node knows no codec yet")
    configs = configs_in(text)
    codec, limit = _codec(configs.get("up")), configs.get("public")
    if codec_hash(codec) != order.codec:
        raise Lost("this node knows another codec than the one it is to use")
    # Where the model travels plainly the config always does, and need not be kept.
    if order.kind is not Kind.BESIDE and text != held.config:
        held = replace(held, config=text)
    if held.up is not None and held.up_codec != order.codec:
        held = replace(held, up=None, sent=None)
    if order.heard is not None and held.sent is not None:
        held = _taken_back(order.heard, held, codec)
    aggregates = codec.public_rounds if type(limit) is not int else max(0, min(limit, codec.public_rounds))
    return codec, aggregates, held


def _codec(config: Any) -> VectorCodec:
    codec: object = from_config(config)
    if not isinstance(codec, VectorCodec):
        raise CodecError(f"the server asks for replies by {codec!r}, expected a codec of updates")
    return codec


def _taken_back(heard: int, held: Held, codec: VectorCodec) -> Held:
    """What the last payload carried is still to be sent, if it did not arrive."""
    assert held.sent is not None
    sent, give_back = held.sent, getattr(codec, "give_back", None)
    if give_back is not None and held.up is not None and sent["round"] > heard:
        layout = layout_of(held.up)
        leader = None if sent["leader"] is None else read_places(sent["leader"], layout.size)
        public = Public(held.moves[: sent["aggregates"]], leader, held.codebook)
        try:
            _, data = read_rest(memoryview(sent["data"]), held.up)
            at = Moment(sent["round"] - 1, sent["node"], public)
            held = replace(held, up={**held.up, "vector": give_back(held.up["vector"], bytes(data), layout, at)})
        except CodecError as error:
            log.warning("what was lost in round %d stays lost: %s", sent["round"], error)
    return replace(held, sent=None)


def _public(order: Order, held: Held, record: ArrayRecord) -> Moment:
    """What this node and the server both know in this round."""
    leader = None
    if order.leader is not None:
        spec = model_spec(record)
        size = sum(math.prod(shape) for shape, dtype in spec.values() if dtype in ("float16", "float32", "float64"))
        leader = read_places(order.leader, size)
    codebook = held.codebook if order.epoch else None
    return Moment(max(0, order.round - 1), 0, Public(held.moves, leader, codebook))


# -- what goes out ---------------------------------------------------------------------------------------------------


def _coded(
    reply: Message, order: Order, held: Held, codec: VectorCodec, name: str, base: ArrayRecord, at: Moment
) -> tuple[Message, Held]:
    """The reply with a blob in place of its model."""
    records = reply.content.array_records
    if not records:
        return reply, held
    own = name if name in records else next(iter(records))
    kind, data = Kind.BESIDE, b""
    if not _is_difference(reply.content):
        kind, data, held = _payload(order, held, codec, base, records[own], at)
    envelope = Envelope(
        kind,
        data,
        codec=order.codec,
        round=order.round,
        node=at.node,
        version=order.version,
        digest=order.digest,
        aggregates=len(at.public.aggregates),
        epoch=order.epoch,
    )
    if kind is Kind.BESIDE:
        reply.content = replaced(reply.content, BESIDE_RECORD, ConfigRecord({BLOB_KEY: envelope.to_bytes()}))
    else:
        reply.content = replaced(reply.content, own, blob_record(envelope.to_bytes()))
    return reply, held


def _is_difference(content: RecordDict) -> bool:
    """Whether an edge that was alone tells what it has learned since, and not a model."""
    report = content.config_records.get(EDGE_RECORD)
    return report is not None and bool(report.get("difference", False))


def _payload(
    order: Order, held: Held, codec: VectorCodec, base: ArrayRecord, trained: ArrayRecord, at: Moment
) -> tuple[Kind, bytes, Held]:
    spec = model_spec(base)
    if codec.exact:
        if list(model_spec(trained).items()) != list(spec.items()):
            return Kind.BESIDE, b"", held  # nothing is lost, so whatever came goes on as it is
        arrays = arrays_of(trained)
        try:
            return Kind.WHOLE, codec.encode(arrays, codec.init(arrays))[0], held
        except CodecError:
            return Kind.BESIDE, b"", held
    check_model(trained, spec, sender="the train function")
    before = arrays_of(base)
    update = between(arrays_of(cast_like(trained, spec)), before)
    like = update_like(form_of(before))
    state = held.up
    if state is None or any(state[key] != value for key, value in form_of(like).items()):
        state = codec.init(like)
    data, state = codec.encode(update, state, at)
    held = replace(held, up=state, up_codec=order.codec)
    if hasattr(codec, "give_back"):
        leader, used = order.leader, len(at.public.aggregates)
        sent = {"round": order.round, "node": at.node, "data": data, "leader": leader, "aggregates": used}
        held = replace(held, sent=sent)
    return Kind.UPDATE, data, held
