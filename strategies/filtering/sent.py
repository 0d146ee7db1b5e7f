"""`Sent`: what nodes were sent to train on, for as long as they may answer. Nothing here reads a reply's numbers.

A reply is compared with the model its training began with, so that is kept, once for all nodes that were sent the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message

from flower_edge.rounds import Round
from flower_edge.runtime.edge_messages import EDGE_RECORD
from flower_edge.updates.manifest import Manifest
from flower_edge.updates.npy import npy_view
from flower_edge.updates.places import brackets
from flower_edge.updates.update import Arrays
from flower_edge.wire import ModelSpec, model_spec

from .manifests import ManifestOf, manifest_like

__all__ = ["Sent", "exchange_of", "is_comparable", "remembered", "waited_for"]

#: Of so many models it is remembered what nodes were sent and have not answered.
_MODELS = 16


@dataclass(frozen=True, eq=False)
class Sent:
    """One message that a node was sent to train on.

    Attributes:
        metadata: of the message, which gets its id only when it is sent.
        key: the node's; at the centre the cell's name.
        edge: whether the node is an edge with terminals of its own.
        base: the whole model, by name; the same object for all nodes that were sent the same.
        manifest: what comes back.
        answered: whether something has.
    """

    metadata: Any
    key: str
    edge: bool
    base: Arrays
    manifest: Manifest
    answered: bool = False


def is_comparable(record: ArrayRecord) -> bool:
    """Whether it is a model whose numbers mean something next to others': not the byte strings of boosters."""
    return all(array.stype == "numpy.ndarray" for array in record.values()) and not all(
        array.dtype == "uint8" and len(array.shape) == 1 for array in record.values()
    )


def exchange_of(
    messages: Sequence[Message],
    round: Round,
    key_of: Callable[[int], str],
    manifest_of: ManifestOf | None,
    first: ModelSpec | None,
    model: ArrayRecord | None,
) -> list[Sent]:
    """What these messages ask of their nodes; those without one model to compare with are left out.

    Args:
        messages: to be sent.
        round: of the exchange.
        key_of: a node's key.
        manifest_of: where nodes send back other arrays than they were sent.
        first: of the run's first model, whose dtypes may come back too.
        model: the whole model, where nodes are sent parts of it; `None` puts it together from what is sent.
    """
    out: list[Sent] = []
    bases: list[tuple[ArrayRecord, Arrays]] = []
    parts: list[tuple[Message, str, ArrayRecord, Manifest]] = []
    for message in messages:
        records = list(message.content.array_records.values())
        if len(records) != 1 or not is_comparable(records[0]):
            continue
        (record,) = records
        order = message.content.config_records.get(EDGE_RECORD)
        node = message.metadata.dst_node_id
        key = key_of(node) if order is None else str(order.get("cell", node))
        spec = model_spec(record)
        manifest = None if manifest_of is None else manifest_of(round, key, record)
        if manifest is None:
            manifest = manifest_like(spec, first)
        elif any(name not in spec or spec[name][0] != part.whole for name, part in manifest.arrays.items()):
            parts.append((message, key, record, manifest))
            continue
        base = next((arrays for other, arrays in bases if _same(other, record)), None)
        if base is None:
            base = _views(record)
            bases.append((record, base))
        out.append(Sent(message.metadata, key, order is not None, base, manifest))
    if parts:
        whole = _put_together(parts, model)
        out += [Sent(message.metadata, key, False, whole, manifest) for message, key, _, manifest in parts]
    return out


def remembered(before: Sequence[Sent], new: Sequence[Sent]) -> tuple[Sent, ...]:
    """The new ones, and those from before that wait for an answer still, of the last few models; oldest first."""
    kept: list[Sent] = []
    models: set[int] = set()
    for one in reversed([*(one for one in before if not one.answered), *new]):
        models.add(id(one.base))
        if len(models) > _MODELS:
            break
        kept.append(one)
    return tuple(reversed(kept))


def waited_for(sent: Sequence[Sent], replies: Sequence[Message]) -> list[Sent | None]:
    """What each reply answers: the message that it names, else the last one its node was sent.

    Where there is neither (a substitute, or what came before a checkpoint), it is read as an answer to the last message
    there was: it would be merged into that model. `None` only where nothing was sent at all.
    """
    by_id = {one.metadata.message_id: one for one in sent if one.metadata.message_id}
    by_node = {one.metadata.dst_node_id: one for one in sent}
    last = sent[-1] if sent else None
    return [
        by_id.get(reply.metadata.reply_to_message_id) or by_node.get(reply.metadata.src_node_id, last)
        for reply in replies
    ]


def _same(one: ArrayRecord, other: ArrayRecord) -> bool:
    # Records are copied on their way, their bytes are not; equal bytes are compared only where they are not the same.
    return one is other or (
        list(one) == list(other)
        and all(one[name].data is other[name].data or one[name].data == other[name].data for name in one)
    )


def _views(record: ArrayRecord) -> Arrays:
    return {name: npy_view(array.data, array.dtype, tuple(array.shape)) for name, array in record.items()}


def _put_together(parts: Sequence[tuple[Message, str, ArrayRecord, Manifest]], model: ArrayRecord | None) -> Arrays:
    """The whole model of which these are parts; zeros where nobody has a part and it is not known."""
    if model is not None:
        return _views(model)
    whole: dict[str, Any] = {}
    for _, _, record, manifest in parts:
        for name, part in manifest.arrays.items():
            array = npy_view(record[name].data, record[name].dtype, part.shape)
            into = whole.setdefault(name, np.zeros(part.whole, array.dtype))
            into[brackets(part.whole, part.index)] = array
    return whole
