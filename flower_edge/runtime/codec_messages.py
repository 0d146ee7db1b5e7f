"""What passes between a `Compressed` layer and a node with `codec_mod`: values and their bytes, no behaviour.

A message carries an `Order` in place of its model (or beside it, where the model goes down plainly), a reply an
`Envelope` in place of its own. Both are one blob, under the name of the record they stand for: in a ConfigRecord while
they are small, because Flower takes 300 bytes less for it than for an Array, else as a packet. A function that looks
for a model there finds none, so a forgotten mod is loud.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from ..codecs.envelope import SERVER, Envelope, Kind
from ..codecs.sections import join, read_varint, split, varint
from ..errors import CodecError, WireError
from ..wire import PACKET_SCHEMA, packet_bytes, packet_record

__all__ = [
    "ASIDE",
    "BESIDE_RECORD",
    "BLOB_KEY",
    "FOLDED_RECORD",
    "Order",
    "blob_in",
    "blob_record",
    "folded_in",
    "model_in",
    "read_places",
    "replaced",
    "write_places",
]

#: Record of an order, or of a reply's envelope, whose arrays travel plainly in the same message.
BESIDE_RECORD: Final = "flower-edge.codec"
#: Record of a reply that stands for several: `nodes` and their `weights`.
FOLDED_RECORD: Final = "flower-edge.folded"
#: Numbers of versions from here on are those of models beside the main one: nothing is coded against them.
ASIDE: Final = 1 << 31
#: The key of a blob in its ConfigRecord.
BLOB_KEY: Final = "flower-edge.codec/1"
#: Blobs above this many bytes travel as packets, which Flower sends in chunks.
_LARGEST_VALUE: Final = 500_000
#: Most bytes of the names, shapes and dtypes of a model, uncompressed.
_LARGEST_FORM: Final = 1 << 22

_HEARD, _BEFORE, _CONFIG, _LEADER, _CODEBOOK, _FORM = 1, 2, 4, 8, 16, 32
_FLAGS: Final = (_HEARD, _BEFORE, _CONFIG, _LEADER, _CODEBOOK, _FORM)
_U32: Final = struct.Struct("<I")


@dataclass(frozen=True)
class Order:
    """What a server tells a node about the model in a message, and how to answer.

    Attributes:
        kind: how the model comes: `WHOLE`, `FIRST`, `STREAMS`, `BESIDE` or `HELD`.
        round: of the exchange, from 1; the `Moment` of that exchange counts from 0.
        version, digest: of the model that the node is to have.
        codec: `codec_hash` of the codec for the reply.
        epoch: of the codebook in force, 0 for none.
        config: JSON of the codecs, where the node may not know them: `up`, and `down` where there is one.
        heard: the last round from which a reply of this node has arrived, where a later one is missing; else `None`.
        before: digest of the version before, where a model travels plainly and the codec for replies looks at moves.
        leader: bytes of `Public.leader` of this round, see `write_places`.
        codebook: a codebook that the node may not have.
        form: names, shapes and dtypes, where the node may not know the model.
        model: the payload of `WHOLE` or `FIRST`.
        streams: payloads of versions one after the other, the last leading to `version`.
    """

    kind: Kind
    round: int = 0
    version: int = 0
    digest: int = 0
    codec: int = 0
    epoch: int = 0
    config: str = ""
    heard: int | None = None
    before: int | None = None
    leader: bytes | None = None
    codebook: bytes | None = None
    form: Mapping[str, Any] | None = None
    model: bytes = b""
    streams: tuple[bytes, ...] = field(default=())

    def to_bytes(self) -> bytes:
        """As an envelope from the server."""
        form = None if self.form is None else zlib.compress(json.dumps(self.form, separators=(",", ":")).encode(), 9)
        sections = {
            _HEARD: None if self.heard is None else _U32.pack(self.heard),
            _BEFORE: None if self.before is None else _U32.pack(self.before),
            _CONFIG: self.config.encode() or None,
            _LEADER: self.leader,
            _CODEBOOK: self.codebook,
            _FORM: form,
        }
        there = {flag: data for flag, data in sections.items() if data is not None}
        model = varint(len(self.streams)) + join(self.streams) if self.kind is Kind.STREAMS else self.model
        return Envelope(
            self.kind,
            join([*there.values(), model]),
            codec=self.codec,
            round=self.round,
            version=self.version,
            digest=self.digest,
            epoch=self.epoch,
            flags=sum(there),
        ).to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes, *, sender: str) -> Self:
        """Inverse of `to_bytes`.

        Raises:
            CodecError: not the bytes of an order.
        """
        envelope = Envelope.from_bytes(data, sender=sender)
        if envelope.node != SERVER or envelope.kind in (Kind.UPDATE, Kind.LOST) or envelope.flags > sum(_FLAGS):
            raise CodecError(f"{sender} sent an envelope of kind {envelope.kind.name} as an order; it was altered")
        flags = [flag for flag in _FLAGS if envelope.flags & flag]
        *sections, model = split(memoryview(envelope.payload), len(flags) + 1)
        there = {flag: bytes(section) for flag, section in zip(flags, sections, strict=True)}
        streams: tuple[bytes, ...] = ()
        if envelope.kind is Kind.STREAMS:
            count, offset = read_varint(model, 0, most=len(model))
            streams = tuple(map(bytes, split(model[offset:], count)))
        heard, before = (there.get(flag) for flag in (_HEARD, _BEFORE))
        if any(number is not None and len(number) != _U32.size for number in (heard, before)):
            raise CodecError(f"{sender} sent an order with a number that has not 4 bytes; it was altered")
        return cls(
            kind=envelope.kind,
            round=envelope.round,
            version=envelope.version,
            digest=envelope.digest,
            codec=envelope.codec,
            epoch=envelope.epoch,
            config=there.get(_CONFIG, b"").decode("utf-8", "replace"),
            heard=None if heard is None else int.from_bytes(heard, "little"),
            before=None if before is None else int.from_bytes(before, "little"),
            leader=there.get(_LEADER),
            codebook=there.get(_CODEBOOK),
            form=_read_form(there[_FORM], sender) if _FORM in there else None,
            model=b"" if envelope.kind is Kind.STREAMS else bytes(model),
            streams=streams,
        )


def _read_form(data: bytes, sender: str) -> dict[str, Any]:
    try:
        reader = zlib.decompressobj()
        form = json.loads(reader.decompress(data, _LARGEST_FORM))
        names, shapes, dtypes = form["names"], form["shapes"], form["dtypes"]
        well = (
            len(names) == len(shapes) == len(dtypes)
            and all(isinstance(text, str) for text in (*names, *dtypes))
            and all(type(length) is int and length >= 0 for shape in shapes for length in shape)
            and sum(math.prod(shape) for shape in shapes) < 1 << 40
        )
    except (zlib.error, ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise CodecError(f"{sender} sent a form of a model that cannot be read: {error}") from None
    if not well:
        raise CodecError(f"{sender} sent a form of a model with names, shapes or dtypes that are none")
    return {"names": names, "shapes": shapes, "dtypes": dtypes}


# -- blobs in messages -----------------------------------------------------------------------------------------------


def blob_record(data: bytes) -> ArrayRecord | ConfigRecord:
    """The record that carries a blob."""
    return ConfigRecord({BLOB_KEY: data}) if len(data) <= _LARGEST_VALUE else packet_record(data)


def blob_in(content: RecordDict, *, sender: str) -> tuple[str, bytes] | None:
    """The blob of a message and the name of the record it is in; `None` where there is none.

    Raises:
        WireError: a record that says it is one and is not.
    """
    for name, record in content.items():
        if isinstance(record, ConfigRecord) and BLOB_KEY in record:
            data = record[BLOB_KEY]
            if not isinstance(data, bytes):
                raise WireError(f"{sender} sent {type(data).__name__} under {BLOB_KEY!r}, expected bytes")
            return name, data
        if isinstance(record, ArrayRecord) and list(record) == ["packet"] and record["packet"].stype == PACKET_SCHEMA:
            return name, packet_bytes(record, sender=sender)
    return None


def model_in(content: RecordDict) -> tuple[str, ArrayRecord] | None:
    """The first record of plain arrays in a message, and its name; `None` where there is none."""
    for name, record in content.array_records.items():
        if all(array.stype != PACKET_SCHEMA for array in record.values()):
            return name, record
    return None


def replaced(content: RecordDict, name: str, record: Any) -> RecordDict:
    """The same records with another under one of the names, in the same order; `None` leaves it out."""
    out = RecordDict()
    for key, value in content.items():
        if key != name:
            out[key] = value
        elif record is not None:
            out[key] = record
    if record is not None and name not in out:
        out[name] = record
    return out


def folded_in(content: RecordDict) -> dict[int, float] | None:
    """Weights of the nodes that a reply stands for, by node id; `None` where it stands for its own alone.

    >>> record = ConfigRecord({"nodes": [7, 9], "weights": [20.0, 30.0]})
    >>> folded_in(RecordDict({FOLDED_RECORD: record}))
    {7: 20.0, 9: 30.0}
    """
    record = content.get(FOLDED_RECORD)
    if not isinstance(record, ConfigRecord):
        return None
    nodes: Any = record.get("nodes")
    weights: Any = record.get("weights")
    if not isinstance(nodes, list) or not isinstance(weights, list) or len(nodes) != len(weights):
        return None
    return {int(node): float(weight) for node, weight in zip(nodes, weights, strict=True)}


# -- places of a leader ----------------------------------------------------------------------------------------------


def write_places(places: npt.NDArray[np.int64]) -> bytes:
    """Sorted places as the gaps between them, a varint each.

    >>> write_places(np.array([3, 4, 300]))
    b'\\x03\\x00\\xa7\\x02'
    """
    gaps = np.diff(places, prepend=-1) - 1
    lengths = np.ones(len(gaps), np.int64)
    for bits in range(7, 63, 7):
        lengths += gaps >> bits > 0
    ends = np.cumsum(lengths)
    out = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    for step in range(int(lengths.max(initial=0))):
        more = lengths > step
        low = (gaps[more] >> (7 * step)) & 0x7F
        out[(ends - lengths)[more] + step] = low | np.where(lengths[more] > step + 1, 0x80, 0)
    return out.tobytes()


def read_places(data: bytes, size: int) -> npt.NDArray[np.int64]:
    """Inverse of `write_places`, for a vector of `size` numbers.

    Raises:
        CodecError: no strictly increasing places of such a vector.

    >>> read_places(b"\\x03\\x00\\xa7\\x02", 301)
    array([  3,   4, 300])
    """
    raw = np.frombuffer(data, np.uint8)
    last = raw < 0x80
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]])) if len(raw) else np.zeros(0, np.int64)
    lengths = np.diff(starts, append=len(raw))
    if len(raw) and (not last[-1] or lengths.max() > 5 or len(starts) > size):
        raise CodecError(f"{len(data)} bytes that are no places of a leader in a vector of {size}; they were altered")
    gaps = np.zeros(len(starts), np.int64)
    for step in range(int(lengths.max(initial=0))):
        more = lengths > step
        gaps[more] |= (raw[starts[more] + step].astype(np.int64) & 0x7F) << (7 * step)
    places = np.cumsum(gaps + 1) - 1
    if len(places) and places[-1] >= size:
        raise CodecError(f"place {places[-1]} of a leader in a vector of {size}; the message was altered")
    return places
