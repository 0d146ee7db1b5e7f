"""Replies read as `Update`s: what each node has made of what it was sent. Nothing here judges.

Arrays are read where they lie in the message, without a copy. Whatever a reply holds, it is read or refused with a
reason: no gate need stand before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Message, RecordDict

from flower_edge.errors import WireError
from flower_edge.runtime.codec_messages import FOLDED_RECORD
from flower_edge.runtime.edge_messages import EDGE_RECORD
from flower_edge.runtime.flower_private import clone_message
from flower_edge.updates.npy import npy_view
from flower_edge.updates.places import base_part
from flower_edge.updates.update import Update
from flower_edge.wire import PACKET_SCHEMA, record_of

from .sent import Sent
from .weighing import weight_told

__all__ = ["read_update", "shortened"]


def read_update(reply: Message, sent: Sent, weighted_by: str) -> Update | tuple[str, str] | None:
    """A reply as numbers; a code and a sentence where it cannot be read; `None` where there is nothing to judge."""
    content = reply.content
    if FOLDED_RECORD in content:
        return "no-arrays", "it says that it stands for several replies, and each is judged alone"
    records = list(content.array_records.values())
    weight = weight_told(content, weighted_by)
    if not records or (sent.edge and weight == 0.0):
        return None if sent.edge else ("no-arrays", "no arrays came back")
    if len(records) > 1:
        return "no-arrays", f"{len(records)} records of arrays; expected one"
    (record,) = records
    if any(array.stype == PACKET_SCHEMA for array in record.values()):
        return "bytes", "it is encoded; where that is meant, write Layered(strategy, Filtered(...), Compressed(codec))"
    report = content.config_records.get(EDGE_RECORD)
    difference = bool(sent.edge and report is not None and report.get("difference", False))
    if not 0.0 <= weight < np.inf:
        return "num-examples", f"{weighted_by} = {weight}; expected a finite number, 0 or more"
    arrays: dict[str, Any] = {}
    for name, part in sent.manifest.arrays.items():
        if name not in record:
            return "missing-array", f"array {name!r} did not come back"
        if tuple(record[name].shape) != part.shape:
            return "shape", f"array {name!r} has shape {tuple(record[name].shape)}, expected {part.shape}"
        try:
            arrays[name] = npy_view(record[name].data, record[name].dtype, part.shape)
        except WireError as error:
            return "bytes", f"array {name!r}: {error}"
        if arrays[name].dtype.kind == "c" and all(np.dtype(known).kind != "c" for known in part.dtypes):
            return "dtype", f"array {name!r} is {record[name].dtype}, expected {' or '.join(part.dtypes)}"
    if extra := [name for name in record if name not in arrays]:
        return "extra-array", f"array {extra[0]!r} is not in what it was given"
    # A reply that weighs nothing is judged like any other: not every strategy weighs.
    return Update(sent.key, arrays, sent.base, weight or 1.0, sent.manifest, difference)


def shortened(reply: Message, update: Update, factor: float) -> Message:
    """The same reply with a movement `factor` times as long; the reply that came is not changed."""
    arrays: dict[str, Any] = {}
    for name, array in update.arrays.items():
        start = 0.0 if update.difference else base_part(update, name).astype(np.float64)
        moved = (start + factor * (array.astype(np.float64) - start)) if array.dtype.kind == "f" else array
        arrays[name] = np.asarray(moved).astype(array.dtype)
    content = RecordDict(dict(reply.content.items()))
    (name,) = content.array_records
    content[name] = record_of(arrays)
    return clone_message(reply, content)
