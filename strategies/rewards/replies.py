"""What a training message gave a node, and what its reply brought: from Flower's messages to `Given` and `Pending`.

Arrays are read as views of the messages' own bytes. Nothing here judges a reply: one that cannot be read as what was
asked for earns nothing, and what becomes of it is the gate's and the strategy's business.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Message
from flwr.serverapp import Grid

from flower_edge.errors import NestingError, WireError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.abilities import last_duration_s, last_trip
from flower_edge.runtime.codec_messages import folded_in
from flower_edge.runtime.edge_messages import EDGE_RECORD, EVENTS_KEY, SCHEMA
from flower_edge.runtime.queries import conditions_of
from flower_edge.runtime.steps.messages import LATE_RECORD
from flower_edge.updates.manifest import Manifest, whole_manifest
from flower_edge.updates.npy import npy_view
from flower_edge.updates.places import brackets
from flower_edge.wire import model_spec, server_round_of

from ..filtering.manifests import ManifestOf
from ..node_rows import key_of
from .state import Given, Pending

__all__ = [
    "REWARDED",
    "arrays_in",
    "base_round_of",
    "began_with",
    "credits_told",
    "given_in",
    "moved_since",
    "pending_of",
]

#: What an event that tells a credit is called.
REWARDED = "rewarded"

_AGE_KEY = "data-age-s"
#: Letters in a terminal's key, and terminals of one edge, as an edge may tell them.
_LONGEST_KEY, _MOST_TERMINALS = 200, 10_000


def given_in(
    message: Message, round: Round, number: int, grid: Grid, manifest: ManifestOf | None, latest: Given | None
) -> Given | None:
    """What a training message gives its node; `None` where it holds no model.

    Args:
        message: to one node.
        round: of the exchange.
        number: of the exchange, counted by the layer.
        grid: tells the node's key.
        manifest: of what it is to send back; `None` is all that it is sent.
        latest: what the message before it gave: most often the same, and then it is not described again.
    """
    sent = next(iter(message.content.array_records.values()), None)
    if sent is None:
        return None
    order = message.content.config_records.get(EDGE_RECORD)
    key = key_of(grid, message.metadata.dst_node_id) if order is None else str(order["cell"])
    if manifest is not None:
        part = manifest(round, key, sent)
    else:
        part = latest.manifest if latest is not None and latest.sent is sent else whole_manifest(model_spec(sent))
    return Given(number, server_round_of(message) or 0, sent, part, key, edge=order is not None)


def base_round_of(reply: Message) -> int | None:
    """The strategy's round in which a late reply began; `None` where it is not late."""
    record = reply.content.config_records.get(LATE_RECORD)
    value = None if record is None else record.get("base-round")
    return value if isinstance(value, int) else None


def pending_of(reply: Message, given: Given, grid: Grid, weighted_by: str) -> Pending | None:
    """A reply as what waits for the merge; `None` where it holds no model, or another one than was given.

    Raises:
        NestingError: a reply that stands for several nodes.
    """
    if folded_in(reply.content) is not None:
        raise NestingError(
            "Rewarded sees one reply for several nodes, and what each was worth cannot be told from their mean; "
            "write Compressed(...) without fold=True below Rewarded(...)"
        )
    record = next(iter(reply.content.array_records.values()), None)
    if record is None:
        return None
    arrays = _read(record, given.manifest)
    if arrays is None:
        return None
    # Of a terminal the record says nothing: it is merged as a model, whatever it writes there.
    edge = reply.content.config_records.get(EDGE_RECORD) if given.edge else None
    examples = _told(reply, weighted_by)
    if given.edge and not (edge is not None and examples and examples > 0 and _readable(edge)):
        return None  # the centre leaves it out
    difference = edge is not None and bool(edge.get("difference", False))
    conditions = conditions_of(reply)
    age_s = None if conditions is None else conditions.data_age_s
    return Pending(
        given.key,
        given,
        arrays,
        difference,
        _moved(record, arrays, given, difference=difference),
        examples,
        _told(reply, _AGE_KEY) if age_s is None else age_s,
        # An edge's time is not one of training, and it may be no node of the Grid.
        None if edge is not None else _trained_s(grid, reply.metadata.src_node_id),
        {} if edge is None else credits_told(edge.get(EVENTS_KEY, [])),
    )


def arrays_in(record: ArrayRecord) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a record of ours, without a copy.

    Raises:
        WireError: bytes that are not what their label says.
    """
    return {name: _view(array) for name, array in record.items()}


def _view(array: Array) -> npt.NDArray[Any]:
    return npy_view(array.data, array.dtype, tuple(array.shape))


def _read(record: ArrayRecord, manifest: Manifest) -> dict[str, npt.NDArray[Any]] | None:
    if set(record) != set(manifest.arrays):
        return None
    try:
        arrays = {name: _view(record[name]) for name in manifest.arrays}
    except WireError:
        return None
    fits = all(arrays[name].shape == part.shape for name, part in manifest.arrays.items())
    return arrays if fits and all(array.dtype.kind in "fiub" for array in arrays.values()) else None


def began_with(given: Given) -> dict[str, npt.NDArray[Any]]:
    """Where the arrays that a node sends back began, whether it was sent these parts or the whole model."""
    began: dict[str, npt.NDArray[Any]] = {}
    for name, part in given.manifest.arrays.items():
        sent = _view(given.sent[name])
        began[name] = sent if part.index is None or sent.shape != part.whole else sent[brackets(part.whole, part.index)]
    return began


def moved_since(pending: Pending, before: ArrayRecord, number: int) -> Pending:
    """The reply, compared with the whole model before the merge where it is not known what else it began with."""
    given = pending.given
    if given.number != number or pending.difference or len(given.sent):
        return pending
    same = True
    for name, part in given.manifest.arrays.items():
        whole = _view(before[name])
        began = whole if part.index is None else whole[brackets(part.whole, part.index)]
        same = same and np.array_equal(pending.arrays[name], began)
    return replace(pending, moved=not same)


def _moved(record: ArrayRecord, arrays: Mapping[str, npt.NDArray[Any]], given: Given, *, difference: bool) -> bool:
    if difference:
        return any(bool(np.any(array)) for array in arrays.values())
    # Equal bytes are seen at once, and so, nearly always, is a difference.
    if all(name in given.sent and array.data == given.sent[name].data for name, array in record.items()):
        return False
    if not len(given.sent):
        return True  # `moved_since` looks
    began = began_with(given)
    return not all(np.array_equal(array, began[name]) for name, array in arrays.items())


def _told(reply: Message, key: str) -> float | None:
    """A number that a reply's metrics tell under a name; `None` where it is not there, not one or not finite."""
    for record in reply.content.metric_records.values():
        value = record.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


def _trained_s(grid: Grid, node_id: int) -> float | None:
    """Seconds of the node's last training: without the ways there and back, where the Grid knows them."""
    whole_s, trip = last_duration_s(grid, node_id), last_trip(grid, node_id)
    if trip is None:
        return whole_s
    # A trip may be the last slice of many; the whole is what lies between the two ways.
    return max(trip.compute_s, 0.0 if whole_s is None else whole_s - trip.down_s - trip.wait_s - trip.up_s)


def _readable(report: Mapping[str, object]) -> bool:
    """Whether an edge's report can be read, events and all; the centre does not merge an edge where it cannot."""
    told = report.get(EVENTS_KEY, [])
    if report.get("schema") != SCHEMA or not isinstance(told, list):
        return False
    try:
        return all(isinstance(Event.from_json(text), Event) for text in told)
    except (ValueError, TypeError):
        return False


def credits_told(told: object) -> dict[str, int]:
    """What an edge says it has credited its terminals with; an entry that cannot be read is no credit.

    An edge can say what it likes: it divides its own part and nobody else's. One that names more terminals than any
    edge has is not listened to: each would be a row of the book.
    """
    credited: dict[str, int] = {}
    for text in told if isinstance(told, list) else ():
        try:
            event = json.loads(text)
            if event["what"] == REWARDED and type(micro := event["values"]["micro"]) is int and 0 <= micro < 2**63:
                node = event["node"]
                # A key is shown to people and stands in a database; surrogates and zero bytes are not printable.
                if isinstance(node, str) and 0 < len(node) <= _LONGEST_KEY and node.isprintable():
                    credited[node] = credited.get(node, 0) + micro
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return credited if len(credited) <= _MOST_TERMINALS else {}
