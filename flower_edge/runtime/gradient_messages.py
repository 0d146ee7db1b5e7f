"""What passes between a server and the nodes of a gradient exchange: values, no behaviour.

`Order` is what a node is told for one exchange, `Report` what it tells back. Both travel as one short text, because
they travel in every step. Gradients, aggregates and models lie beside them, as packets. `GradientExchange` writes
orders and reads reports, the `gradient_mod` the other way round.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, Final, Self, cast, get_type_hints

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from ..errors import ProtocolError, WireError
from ..peers.packet import Packet
from ..wire import packet_bytes, packet_record

__all__ = [
    "GRADIENT_RECORD",
    "INBOX_RECORD",
    "PACKET_RECORD",
    "REPLICA_RECORD",
    "SCHEMA",
    "SERVER",
    "TOLD_RECORD",
    "Order",
    "Report",
    "Sealed",
    "bytes_in",
    "order_in",
    "record_with",
]

#: Record of a node's reply that tells how it went; what a node is told lies in the config it is sent.
GRADIENT_RECORD: Final = "gradient"
#: What was encoded: downwards the aggregate of the step before, upwards a gradient, or a packet for the next in a ring.
PACKET_RECORD: Final = "gradient-packet"
#: What a node needs beside the model to be one of them: velocity, what was public, states of codecs.
REPLICA_RECORD: Final = "gradient-replica"
#: What a codec's teacher makes public for this step.
TOLD_RECORD: Final = "gradient-told"
#: Packets that the server relays in a ring.
INBOX_RECORD: Final = "gradient-inbox"
#: Version of all of them.
SCHEMA: Final = "flower-edge.gradient/1"
#: The server's own number where a node's is expected.
SERVER: Final = 0xFFFFFFFF

#: Key of bytes in a ConfigRecord, and how many go there at most.
_BYTES: Final = "bytes"
_FEW: Final = 500_000
_SEAL = struct.Struct("<fII")


class _Text:
    """Plain values as one text; what has its default is left out."""

    def write(self) -> ConfigRecord:
        """As a record."""
        defaults = {one.name: _default(one) for one in fields(self)}  # type: ignore[arg-type]
        told = {name: value for name, value in vars(self).items() if value != defaults[name]}
        return ConfigRecord({SCHEMA: json.dumps(told, separators=(",", ":"))})

    @classmethod
    def read(cls, record: Mapping[str, Any], *, sender: str) -> Self:
        """From a record.

        Raises:
            ProtocolError: not one of this version, or a number that cannot be.
        """
        text = record.get(SCHEMA)
        if not isinstance(text, str):
            raise ProtocolError(
                f"{sender} sent a gradient record with {', '.join(map(repr, record))}, this side reads {SCHEMA!r}; "
                "install the same flower-edge version on both sides"
            )
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"{sender} sent a gradient record that is no JSON: {error}") from None
        types = _types(cast(Hashable, cls))
        if not isinstance(found, dict) or not set(found) <= set(types):
            raise ProtocolError(f"{sender} sent a gradient record {text[:80]!r}, expected some of {', '.join(types)}")
        for name, value in found.items():
            if not _is(value, types[name]):
                raise ProtocolError(f"{sender} sent a gradient record with {name} = {value!r}, expected {types[name]}")
        try:
            return cls(**found)
        except TypeError as error:
            raise ProtocolError(f"{sender} sent a gradient record that lacks something: {error}") from None


@dataclass(frozen=True)
class Order(_Text):
    """What a node is to do in one exchange.

    Attributes:
        step: the number of the gradient that is asked for, from 0 on; never twice the same.
        version: how many updates the model has seen on which that gradient is to be taken.
        index: the node's own number.
        begin: compute a gradient and encode it.
        whole: begin from the model in the message, and what lies beside it.
        fresh: forget what the codec remembers; the server has forgotten it, too.
        heard: 1 + the step of the node's last gradient that was used, 0 for none. If that was not the last it made, its
            codec goes back to where it was before that.
        rate: the learning rate with which the aggregate in the message, or of the ring's last step, is applied.
        setup: how the run is set up, as JSON of `Setup`; only beside a whole model.
        commit: in a ring: whose packets make the last step, in the order in which they are added; empty for nobody's.
        collect: in a ring: number of the hop whose packet is to be collected, from 1; 0 for none.
        origin: whose packet that is.
        before, after: the neighbours in the ring.
        post: number under which what is posted now can be collected.
        returns: in a ring: the whole model is to come with the reply.
        mailbox: JSON of how to reach the mailbox, in a ring.
    """

    step: int
    version: int
    index: int
    begin: bool = True
    whole: bool = False
    fresh: bool = False
    heard: int = 0
    rate: float = 0.0
    setup: str = ""
    commit: list[int] = field(default_factory=list)
    collect: int = 0
    origin: int = 0
    before: int = 0
    after: int = 0
    post: int = 0
    returns: bool = False
    mailbox: str = ""


def order_in(content: RecordDict) -> ConfigRecord | None:
    """The config of a message in which an order lies, None where none does."""
    return next((record for record in content.config_records.values() if SCHEMA in record), None)


@dataclass(frozen=True)
class Report(_Text):
    """How an exchange went at a node. Not sent where a gradient for the server says it all, see `Sealed`.

    Attributes:
        step, index: as in the order.
        version: how many updates its model has seen.
        digest: of its model.
        beside: check sum of what it has beside the model, at the end of a ring's round.
        lost: why it has not the model that the order means; empty where it has. It then did nothing.
        fresh: it has lost what its codec remembers, too.
        posted_bits: size of what it posted to the next in a ring.
        missing: in a ring: what it was to collect was not there.
        refused: in a ring: whose packets it could not decode in the last step.
    """

    step: int
    index: int
    version: int = 0
    digest: int = 0
    beside: int = 0
    lost: str = ""
    fresh: bool = False
    posted_bits: int = 0
    missing: bool = False
    refused: list[int] = field(default_factory=list)


@cache
def _types(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(cast(type[Any], kind))


def _default(one: Any) -> Any:
    if one.default_factory is not MISSING:
        return one.default_factory()
    return one.default  # `MISSING` where there is none: nothing equals it


def _is(value: Any, expected: Any) -> bool:
    if expected is float:
        return type(value) in (int, float) and math.isfinite(value)
    if expected is int:
        return type(value) is int and 0 <= value < 1 << 63
    if expected in (bool, str):
        return type(value) is expected
    return isinstance(value, list) and all(_is(one, int) for one in value)


# -- bytes in messages -----------------------------------------------------------------------------------------------


def record_with(data: bytes) -> ArrayRecord | ConfigRecord:
    """The record that carries some bytes: the smaller of the two where they are few, a packet, in chunks, else."""
    return ConfigRecord({_BYTES: data}) if len(data) <= _FEW else packet_record(data)


def bytes_in(content: RecordDict, name: str, *, sender: str) -> bytes | None:
    """Inverse of `record_with`, None where there is no record of that name.

    Raises:
        WireError: something that is not made by it.
    """
    record = content.get(name)
    if record is None:
        return None
    if isinstance(record, ArrayRecord):
        return packet_bytes(record, sender=sender)
    data = record.get(_BYTES) if isinstance(record, ConfigRecord) else None
    if not isinstance(data, bytes):
        raise WireError(f"{sender} sent a record {name!r} without bytes; is it of this version of flower-edge?")
    return data


# -- what is encoded -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sealed:
    """An encoded gradient, or aggregate, as it travels.

    Attributes:
        step: number of the gradient; of an aggregate the version that it makes.
        sender: who made it, `SERVER` for an aggregate.
        payload: what the codec made.
        weight: of the gradient, float32: exact for any number of examples below 16 million.
        version, digest: of the model on which it was taken.

    >>> sealed = Sealed(3, 7, b"abc", weight=20.0, version=2, digest=99)
    >>> len(sealed.to_bytes()), Sealed.from_bytes(sealed.to_bytes(), step=3, sender=7) == sealed
    (51, True)
    """

    step: int
    sender: int
    payload: bytes
    weight: float = 0.0
    version: int = 0
    digest: int = 0

    def to_bytes(self) -> bytes:
        """With a check sum."""
        before = _SEAL.pack(self.weight, self.version, self.digest)
        return Packet(self.step, self.sender, 0, "", before + self.payload).to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes, *, step: int, sender: int) -> Self:
        """Inverse of `to_bytes`.

        Raises:
            WireError: damaged, of another step or sender, or a weight that cannot be.
        """
        packet = Packet.from_bytes(data)
        if (packet.round, packet.sender) != (step, sender):
            raise WireError(
                f"a gradient of step {packet.round} from node {packet.sender}, expected step {step} from node {sender}"
            )
        if len(packet.payload) < _SEAL.size:
            raise WireError(f"a gradient of {len(packet.payload)} bytes, expected its weight first")
        weight, version, digest = _SEAL.unpack_from(packet.payload)
        if not 0.0 <= weight < math.inf:
            raise WireError(f"a gradient of node {sender} with weight {weight}, expected a finite number, 0 or more")
        return cls(step, sender, packet.payload[_SEAL.size :], weight, version, digest)
