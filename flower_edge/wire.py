"""Where arrays, records and packets meet Flower's messages. Nothing here sends, trains or decides.

Three things travel: arrays by name (`ArrayRecord`), small values (`MetricRecord`, `ConfigRecord`) and packets,
opaque bytes with a schema version in their label. A packet's label makes `Array.numpy()` raise, so a forgotten
decoder is loud.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from .errors import ModelMismatch, WireError

__all__ = [
    "PACKET_SCHEMA",
    "ModelSpec",
    "array_of",
    "arrays_of",
    "cast_like",
    "check_model",
    "copy_content",
    "difference",
    "error_reason",
    "model_spec",
    "packet_bytes",
    "packet_record",
    "payload_bits",
    "record_of",
    "records_from_tree",
    "records_to_tree",
    "round_trip",
    "server_round_of",
    "weight_of",
    "wire_bits",
]

#: Label of a packet: name and version. A reader refuses other versions by name.
PACKET_SCHEMA = "flower-edge.packet/1"
_PACKET_LABEL = re.compile(r"flower-edge\.packet/(\d+)")

Arrays = dict[str, npt.NDArray[Any]]
#: Name of each array to its shape and dtype, in the model's own order.
ModelSpec = dict[str, tuple[tuple[int, ...], str]]


# -- arrays ----------------------------------------------------------------------------------------------------------


def arrays_of(record: ArrayRecord) -> Arrays:
    """NumPy arrays of a record by name, in its order. Copies; the record keeps its own.

    >>> arrays_of(record_of({"w": np.zeros(2)}))
    {'w': array([0., 0.])}
    """
    return {name: array_of(array) for name, array in record.items()}


def array_of(array: Array) -> npt.NDArray[Any]:
    """What `Array.numpy` gives: an array of its own.

    NumPy reads the head of each array as Python source. On CPython 3.11 before 3.11.8, as of Debian 12, that raises a
    SystemError now and then where another thread does so too (cpython#106905), and anywhere it takes longer than to
    copy a small array. A federation sends many arrays of few heads: here each head is read once. What it takes, NumPy
    takes; `updates.npy_view` is the strict reader.

    >>> array_of(Array(np.arange(3)))
    array([0, 1, 2])
    """
    data = array.data
    start = _HEAD_BYTES + int.from_bytes(data[8:_HEAD_BYTES], "little")
    if array.stype != "numpy.ndarray" or data[:8] != _HEAD or start > _LONGEST_HEAD:
        return array.numpy()
    shape, transposed, dtype = _read_head(data[8:start])
    count = math.prod(shape)
    if dtype.hasobject or not dtype.itemsize or len(data) - start != count * dtype.itemsize:
        return array.numpy()  # which refuses, or knows better
    values = np.frombuffer(data, dtype, count, start).copy()
    return values.reshape(shape[::-1]).transpose() if transposed else values.reshape(shape)


#: What version 1 of NumPy's format begins with; then two bytes with the length of the rest of the head.
_HEAD: Final = b"\x93NUMPY\x01\x00"
_HEAD_BYTES: Final = 10
#: Longer ones are of many fields, or of somebody who wants to fill the memory.
_LONGEST_HEAD: Final = 256


@lru_cache(maxsize=4096)
def _read_head(rest: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    return np.lib.format.read_array_header_1_0(BytesIO(rest))


def record_of(arrays: Mapping[str, npt.NDArray[Any]]) -> ArrayRecord:
    """The record that carries these arrays."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def model_spec(record: ArrayRecord) -> ModelSpec:
    """Names, shapes and dtypes as the record declares them; no array is read."""
    return {name: (tuple(array.shape), array.dtype) for name, array in record.items()}


def check_model(record: ArrayRecord, spec: ModelSpec, *, sender: str) -> None:
    """Refuse arrays that are not those of the model: names and shapes must match, order and dtype need not.

    Dtype is left to the receiver on purpose: Flower's own strategies turn integers, and some float32, into float64.
    The length of a byte string (one axis, uint8: a booster of Flower's XGBoost strategies) is free.

    Raises:
        ModelMismatch: names the sender and every array that is missing, unexpected or of another shape.

    >>> check_model(record_of({"w": np.zeros(3)}), {"w": ((2,), "float64")}, sender="node 7")
    Traceback (most recent call last):
    ...
    flower_edge.errors.ModelMismatch: node 7 sent arrays that are not the model's: 'w' has shape (3,), expected (2,); \
build the model with the same name and options on both sides
    """
    complaints = [f"{name!r} is missing" for name in spec if name not in record]
    complaints += [f"{name!r} is not in the model" for name in record if name not in spec]
    complaints += [
        f"{name!r} has shape {tuple(record[name].shape)}, expected {shape}"
        for name, (shape, dtype) in spec.items()
        if name in record and tuple(record[name].shape) != shape and not _is_bytes(shape, dtype)
    ]
    if complaints:
        shown = "; ".join(complaints[:6]) + (f"; and {len(complaints) - 6} more" if len(complaints) > 6 else "")
        raise ModelMismatch(
            f"{sender} sent arrays that are not the model's: {shown}; "
            "build the model with the same name and options on both sides"
        )


def _is_bytes(shape: tuple[int, ...], dtype: str) -> bool:
    return len(shape) == 1 and dtype == "uint8"


def cast_like(record: ArrayRecord, spec: ModelSpec) -> ArrayRecord:
    """The same arrays in the model's dtypes; an array already in its dtype is not touched.

    Integers are rounded to the nearest, not cut.
    """
    out: dict[str, Array] = {}
    for name, array in record.items():
        wanted = np.dtype(spec[name][1])
        if array.dtype == str(wanted):
            out[name] = array
            continue
        values = array_of(array)
        if (np.issubdtype(wanted, np.integer) or wanted == np.bool_) and np.issubdtype(values.dtype, np.floating):
            values = np.rint(values)
        out[name] = Array(np.asarray(values.astype(wanted)))
    return ArrayRecord(out)


def difference(one: ArrayRecord, other: ArrayRecord) -> ArrayRecord:
    """one − other, array by array, in float64 and cast back; whole numbers stay float64, for they may be negative."""
    out: dict[str, Array] = {}
    for name, array in one.items():
        before, after = array_of(other[name]), array_of(array)
        dtype = after.dtype if np.issubdtype(after.dtype, np.floating) else np.dtype(np.float64)
        out[name] = Array(np.asarray((after.astype(np.float64) - before.astype(np.float64)).astype(dtype)))
    return ArrayRecord(out)


# -- packets ---------------------------------------------------------------------------------------------------------


def packet_record(payload: bytes) -> ArrayRecord:
    """A record that carries opaque bytes as one blob.

    >>> packet_bytes(packet_record(b"abc"), sender="node 7")
    b'abc'
    """
    return ArrayRecord({"packet": Array("uint8", (len(payload),), PACKET_SCHEMA, bytes(payload))})


def packet_bytes(record: ArrayRecord, *, sender: str) -> bytes:
    """The bytes of a packet.

    Raises:
        WireError: plain arrays, another schema version, or a length that is not the one declared.
    """
    if list(record) != ["packet"]:
        raise WireError(
            f"{sender} sent plain arrays ({', '.join(list(record)[:3])}) but this run sends packets; "
            "add the mod on the client: ClientApp(mods=[...])"
        )
    array = record["packet"]
    label = _PACKET_LABEL.fullmatch(array.stype)
    if label is None or array.stype != PACKET_SCHEMA:
        raise WireError(
            f"{sender} sent {array.stype!r}, this side reads {PACKET_SCHEMA!r}; "
            "install the same flower-edge version on both sides"
        )
    if tuple(array.shape) != (len(array.data),):
        raise WireError(f"{sender} declared a packet of shape {tuple(array.shape)} and sent {len(array.data)} bytes")
    return array.data


# -- whole messages --------------------------------------------------------------------------------------------------


def payload_bits(content: RecordDict) -> int:
    """Bits of the records in a message, counted from their real bytes; names included, framing not."""
    return 8 * sum(
        # Flower's own count of a config refuses empty texts and lists.
        _config_bytes(record) if isinstance(record, ConfigRecord) else record.count_bytes()
        for record in content.values()
    )


def _config_bytes(record: ConfigRecord) -> int:
    """As `ConfigRecord.count_bytes`: a number takes 8 bytes, a bool 1, a text or byte string its length, a name too."""

    def size(value: Any) -> int:
        if isinstance(value, list):
            return sum(map(size, value))
        if isinstance(value, bool):
            return 1
        return len(value) if isinstance(value, str | bytes) else 8

    return sum(len(name) + size(value) for name, value in record.items())


def wire_bits(message: Message) -> int:
    """Bits of a message as Flower serialises it, framing included; equal chunks are stored and sent once."""
    seen: dict[str, int] = {}

    def visit(part: Any) -> None:
        if part.object_id not in seen:
            seen[part.object_id] = len(part.deflate())
            for child in (part.children or {}).values():
                visit(child)

    visit(message)
    return 8 * sum(seen.values())


def round_trip(part: Any) -> Any:
    """A message or record rebuilt from Flower's own serialisation: what would not travel is caught here."""
    children = {identifier: round_trip(child) for identifier, child in (part.children or {}).items()}
    rebuilt = type(part).inflate(part.deflate(), children or None)
    if isinstance(part, Message):
        # The serialised form leaves the message id out.
        rebuilt.metadata.__dict__["_message_id"] = part.metadata.message_id
    return rebuilt


def copy_content(content: RecordDict) -> RecordDict:
    """New records over the same immutable bytes: the receiver may change them, the sender sees nothing of it."""
    out = RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            # Flower rebuilds every `Array` of the mapping, so each receiver has objects of its own.
            out[name] = ArrayRecord(dict(record.items()))
        elif isinstance(record, MetricRecord):
            out[name] = MetricRecord({k: list(v) if isinstance(v, list) else v for k, v in record.items()})
        else:
            out[name] = ConfigRecord(
                {k: list(v) if isinstance(v, list) else v for k, v in record.items()}  # type: ignore[misc]
            )
    return out


def error_reason(reply: Message) -> str:
    """The first line that tells why a reply is an error."""
    reason = (reply.error.reason or "").strip() or f"error code {reply.error.code}"
    return reason.splitlines()[0] if "\n" in reason else reason


def server_round_of(message: Message) -> int | None:
    """The `server-round` in a message's config, where a strategy put one."""
    for record in message.content.config_records.values() if message.has_content() else ():
        value = record.get("server-round")
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def weight_of(reply: Message, key: str = "num-examples") -> float:
    """The weight a reply asks for.

    Raises:
        WireError: no such metric, or not one number.
    """
    for record in reply.content.metric_records.values():
        value = record.get(key)
        if isinstance(value, int | float):
            return float(value)
    raise WireError(f"node {reply.metadata.src_node_id} sent no number {key!r}; put it in the reply's MetricRecord")


# -- state and checkpoints -------------------------------------------------------------------------------------------


def records_to_tree(records: RecordDict) -> dict[str, Any]:
    """Records as nested plain values and arrays, for a checkpoint."""
    tree: dict[str, Any] = {}
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            values: dict[str, Any] = {
                key: [array.dtype, list(array.shape), array.stype, array.data] for key, array in record.items()
            }
            tree[name] = {"record": "array", "values": values}
        else:
            kind = "metric" if isinstance(record, MetricRecord) else "config"
            tree[name] = {"record": kind, "values": dict(record.items())}
    return tree


def records_from_tree(tree: Mapping[str, Any]) -> RecordDict:
    """Inverse of `records_to_tree`."""
    out = RecordDict()
    for name, entry in tree.items():
        values = entry["values"]
        if entry["record"] == "array":
            out[name] = ArrayRecord(
                {key: Array(dtype, tuple(shape), stype, data) for key, (dtype, shape, stype, data) in values.items()}
            )
        elif entry["record"] == "metric":
            out[name] = MetricRecord(cast(dict[str, Any], dict(values)))
        else:
            out[name] = ConfigRecord(cast(dict[str, Any], dict(values)))
    return out
