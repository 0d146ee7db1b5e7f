"""What passes between an edge server and a gossiping worker: values, no behaviour.

`Order` is what the server tells a worker for a round, `Report` what the worker tells back. Models do not travel in
them: letters from neighbours lie beside the order where the server relays them, the worker's own packet beside the
report. `Gossip` writes orders and reads reports, the `gossip` mod the other way round.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Final, cast, get_type_hints

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from ..errors import ProtocolError, WireError
from ..wire import PACKET_SCHEMA

__all__ = [
    "DATA_RECORD",
    "EARLIER_RECORD",
    "GOSSIP_RECORD",
    "INBOX_RECORD",
    "PACKET_RECORD",
    "SCHEMA",
    "Order",
    "Report",
    "earlier_letters_in",
    "earlier_record",
    "from_json",
    "inbox_record",
    "letters_in",
    "to_json",
]

#: Record of a server's message that tells a worker what to do, and of the worker's reply that tells how it went.
GOSSIP_RECORD: Final = "flower-edge.gossip"
#: Packets of neighbours that the server relays, one array per sender.
INBOX_RECORD: Final = "flower-edge.gossip-inbox"
#: Packets that were posted before those, where a codec needs every one of a sender.
EARLIER_RECORD: Final = "flower-edge.gossip-earlier"
#: The worker's own packet, in its reply.
PACKET_RECORD: Final = "flower-edge.gossip-packet"
#: A data set that the server hands out with the task.
DATA_RECORD: Final = "flower-edge.gossip-data"
#: Version of all of them.
SCHEMA: Final = "flower-edge.gossip/2"


@dataclass(frozen=True)
class Order:
    """What a worker is to do in a round, in its own terms.

    Lists with one entry per neighbour belong together: `senders[k]` is mixed with `weights[k]`.

    Attributes:
        round: the server's number of this round.
        index, nodes: which node this is, of how many.
        fresh: go on from the model in the message, not from the worker's own. In an evaluation: evaluate that one.
        train: train after mixing; False in the rounds that only average at the end.
        senders: whose packets to mix.
        sent_in: the round in which each of those packets was posted.
        weights: the row of W with which to mix them; what is left to 1 is the own model's. Empty where the worker keeps
            its own row.
        to: who hears this worker in this round.
        bandwidth_hz: the band each of those allots to hearing it, for mailboxes that pace what they send.
        keep_from: letters posted in earlier rounds are not asked for any more, by anybody.
        row: JSON of what a worker needs that keeps its own row and moves it, see `clients.gossip_row`; else empty.
        codec: JSON of the codec's config.
        mailbox: JSON of how to reach the mailbox.
        returns_packet: whether the packet is to come with the reply.
        plain: post the whole model, not what it has changed by, where the codec tells changes: somebody cannot follow.
        known: the round of this worker's packet that the server could read last; 0 where it is none. A worker that has
            posted since, and tells changes, posts its whole model.
        common: all workers begin afresh, from the same model: it need not be told to anybody.
        catch_up: for how many rounds before `keep_from` letters are kept, for those who missed some.
    """

    round: int
    index: int
    nodes: int
    fresh: bool = False
    train: bool = True
    senders: list[int] = field(default_factory=list)
    sent_in: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    to: list[int] = field(default_factory=list)
    bandwidth_hz: list[float] = field(default_factory=list)
    keep_from: int = 0
    row: str = ""
    codec: str = ""
    mailbox: str = ""
    returns_packet: bool = True
    plain: bool = False
    known: int = 0
    common: bool = False
    catch_up: int = 0

    def write(self) -> ConfigRecord:
        """As a record."""
        return _write(self)

    @classmethod
    def read(cls, record: Mapping[str, Any], *, sender: str) -> Order:
        """From a record.

        Raises:
            ProtocolError: not one of this version.
        """
        return cls(**_read(cls, record, sender))


@dataclass(frozen=True)
class Report:
    """How a round went at a worker.

    Attributes:
        round, index: as in the order.
        lost: the worker has no model to go on from (it was restarted without its state); it did nothing.
        processing_s: seconds of a real clock from the message to the packet.
        distance: largest least-squares distance per parameter to a neighbour's model; NaN where it heard none.
        heard: senders whose packets it had and mixed.
        missing: senders whose packets were not there.
        heard_s: what the mailbox measured of each heard link, NaN where it does not.
        posted_bits: size of its packet.
        requirements: JSON of its requirement values, or of the signals among them; empty where it tells none.
        plain: its packet tells the whole model, not a change.
        wants_plain: senders whose changes it cannot follow: it needs one packet that tells the whole model.
    """

    round: int
    index: int
    lost: bool = False
    processing_s: float = math.nan
    distance: float = math.nan
    heard: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    heard_s: list[float] = field(default_factory=list)
    posted_bits: int = 0
    requirements: str = ""
    plain: bool = False
    wants_plain: list[int] = field(default_factory=list)

    def write(self) -> ConfigRecord:
        """As a record."""
        return _write(self)

    @classmethod
    def read(cls, record: Mapping[str, Any], *, sender: str) -> Report:
        """From a record.

        Raises:
            ProtocolError: not one of this version, or a number that cannot be measured.
        """
        report = cls(**_read(cls, record, sender))
        report._check(sender)
        return report

    def _check(self, sender: str) -> None:
        """Refuse times, sizes and distances that cannot be: everybody would wait for them."""
        for name, values, may_lack in (
            ("processing_s", [self.processing_s], self.lost),
            ("heard_s", self.heard_s, True),
            ("distance", [self.distance], True),
            ("posted_bits", [float(self.posted_bits)], False),
        ):
            for value in values:
                if not (0.0 <= value < math.inf or (may_lack and math.isnan(value))):
                    # A model that grew beyond all bounds is at an infinite distance, and that is a measurement.
                    if name == "distance" and value == math.inf:
                        continue
                    raise ProtocolError(f"{sender} told {name} = {value}: expected a finite number, 0 or more")


def _write(value: Order | Report) -> ConfigRecord:
    return ConfigRecord({"schema": SCHEMA, **vars(value)})


def _read(kind: type[Any], record: Mapping[str, Any], sender: str) -> dict[str, Any]:
    if record.get("schema") != SCHEMA:
        raise ProtocolError(
            f"{sender} sent a gossip record of schema {record.get('schema')!r}, this side reads {SCHEMA!r}; "
            "install the same flower-edge version on both sides"
        )
    types = _types(cast(Hashable, kind))
    found: dict[str, Any] = {}
    for name in (entry.name for entry in fields(kind)):
        value, expected = record.get(name), types[name]
        if not _is(value, expected):
            raise ProtocolError(f"{sender} sent a gossip record with {name} = {value!r}, expected {expected}")
        found[name] = list(value) if isinstance(value, list) else value
    return found


@cache
def _types(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(cast(type[Any], kind))  # some tenths of a millisecond


def _is(value: Any, expected: Any) -> bool:
    if expected in (int, float, bool, str):
        return type(value) is expected
    entry = float if expected == list[float] else int
    return isinstance(value, list) and all(type(one) is entry for one in value)


# -- letters that the server relays ----------------------------------------------------------------------------------


def inbox_record(letters: Mapping[int, bytes]) -> ArrayRecord:
    """Packets by sender, as one record. The bytes are not copied."""
    return ArrayRecord(
        {f"from-{sender}": Array("uint8", (len(data),), PACKET_SCHEMA, data) for sender, data in letters.items()}
    )


def letters_in(content: RecordDict, *, sender: str) -> dict[int, bytes]:
    """Inverse of `inbox_record`; nothing where there is none.

    Raises:
        WireError: something that is no packet.
    """
    return {number: data for (number,), data in _letters(content.get(INBOX_RECORD), "from-", 1, sender)}


def earlier_record(letters: Mapping[tuple[int, int], bytes]) -> ArrayRecord:
    """Packets by round and sender, as one record. The bytes are not copied."""
    return ArrayRecord(
        {f"in-{r}-{s}": Array("uint8", (len(data),), PACKET_SCHEMA, data) for (r, s), data in letters.items()}
    )


def earlier_letters_in(content: RecordDict, *, sender: str) -> dict[int, dict[int, bytes]]:
    """Inverse of `earlier_record`, by round; nothing where there is none.

    Raises:
        WireError: something that is no packet.
    """
    found: dict[int, dict[int, bytes]] = {}
    for (round_, number), data in _letters(content.get(EARLIER_RECORD), "in-", 2, sender):
        found.setdefault(round_, {})[number] = data
    return found


def _letters(record: object, prefix: str, count: int, sender: str) -> Iterator[tuple[tuple[int, ...], bytes]]:
    if not isinstance(record, ArrayRecord):
        return
    for name, array in record.items():
        numbers = name.removeprefix(prefix).split("-")
        if array.stype != PACKET_SCHEMA or len(numbers) != count or not all(map(str.isdecimal, numbers)):
            raise WireError(f"{sender} relayed {name!r} labelled {array.stype!r}; expected packets of {PACKET_SCHEMA}")
        yield tuple(map(int, numbers)), array.data


def to_json(value: Mapping[str, Any]) -> str:
    """Nested plain values and NumPy arrays as text; floats come back bit for bit.

    >>> from_json(to_json({"a": np.array([0.1, np.inf])}), sender="it")
    {'a': array([0.1, inf])}
    """
    return json.dumps(value, default=_array_out, separators=(",", ":"))


def from_json(text: str, *, sender: str) -> dict[str, Any]:
    """Inverse of `to_json`.

    Raises:
        ProtocolError: no JSON object.
    """
    try:
        found = json.loads(text, object_hook=_array_in)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"{sender} sent text that is no JSON of ours: {error}") from None
    if not isinstance(found, dict):
        raise ProtocolError(f"{sender} sent JSON that is no object: {text[:40]!r}")
    return found


def _array_out(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.name in _ARRAYS and value.ndim == 1:
        return {_ARRAY: value.dtype.name, "values": value.tolist()}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not travel in a gossip record")


def _array_in(found: dict[str, Any]) -> Any:
    if _ARRAY not in found:
        return found
    if found[_ARRAY] not in _ARRAYS:
        raise ValueError(f"an array of dtype {found[_ARRAY]!r}")
    return np.array(found["values"], dtype=found[_ARRAY])


_ARRAY: Final = "array"
_ARRAYS: Final = ("float64", "int64", "bool")
