"""`Handover`: what goes with a terminal from one edge to the next, as a value and as records of a message.

The work under way, which version it began from and how far it is, what has been credited for it, and what the layers
of the source know of the terminal. Nothing here moves a terminal or sends anything.

The terminal itself keeps its working model and the optimiser's state ([4] ¶39-40); the record says where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from flower_edge.errors import ConfigError, StateError, WireError
from flower_edge.store.tree import tree_from_bytes, tree_to_bytes
from flower_edge.wire import packet_bytes, packet_record

__all__ = ["HANDOVER_RECORD", "MOST_PARCEL_BYTES", "PARCELS_RECORD", "Handover"]

#: Record with the plain values; record with the layers' parcels, where there are any.
HANDOVER_RECORD: Final = "flower-edge.handover"
PARCELS_RECORD: Final = "flower-edge.handover-parcels"
#: Version of both.
SCHEMA: Final = "flower-edge.handover/1"
#: More than this is not sent and not read.
MOST_PARCEL_BYTES: Final = 64 * 1024 * 1024
#: Longest text of any field.
LONGEST_TEXT: Final = 1024

_TEXTS: Final = ("terminal", "source", "target", "job", "optimiser")
_COUNTS: Final = ("base_version", "step", "steps_total")
_NUMBERS: Final = ("time_s", "credited")


@dataclass(frozen=True)
class Handover:
    """One terminal on its way from one edge to another.

    Attributes:
        terminal: its key as text, the `partition-id`.
        node_id: its node on the Grid.
        source, target: the cells.
        time_s: when it was seen in the new cell.
        job: names the work under way, `<cell>/<server-round>`; empty where the terminal is idle.
        base_version: the `server-round` whose model the work began from; its update is credited to that edge.
        step, steps_total: how far the work is; 0 where it is idle.
        credited: examples counted for the terminal at the source in this cycle so far, in its n_e.
        optimiser: where the optimiser's state is: `terminal`, which takes it along with its working model.
        parcels: what the source's layers know of it, `[layer, value]` each, as `Layer.hand_over` gave them: nested
            dicts and lists of plain values and arrays.

    >>> Handover("7", 1007, "edge-0", "edge-1", job="edge-0/3", base_version=3, step=4, steps_total=20).idle
    False
    """

    terminal: str
    node_id: int
    source: str
    target: str
    time_s: float = 0.0
    job: str = ""
    base_version: int = 0
    step: int = 0
    steps_total: int = 0
    credited: float = 0.0
    optimiser: str = "terminal"
    parcels: Any = None

    @property
    def idle(self) -> bool:
        """Whether it was doing nothing when it moved."""
        return not self.job

    def to_record(self) -> RecordDict:
        """As content of a message from edge to edge.

        Raises:
            ConfigError: parcels that cannot be stored exactly, or that are too large.
        """
        values: dict[str, Any] = {"schema": SCHEMA, "node_id": str(self.node_id)}
        values |= {name: getattr(self, name) for name in (*_TEXTS, *_COUNTS)}
        values |= {name: float(getattr(self, name)) for name in _NUMBERS}
        content = RecordDict({HANDOVER_RECORD: ConfigRecord(values)})
        if self.parcels:
            packed = tree_to_bytes({"parcels": self.parcels})
            if len(packed) > MOST_PARCEL_BYTES:
                raise ConfigError(
                    f"the parcels of terminal {self.terminal} take {len(packed)} bytes, at most {MOST_PARCEL_BYTES} "
                    "are handed over; let the layer's hand_over give less"
                )
            content[PARCELS_RECORD] = packet_record(packed)
        return content

    @classmethod
    def from_record(cls, content: RecordDict, *, sender: str) -> Handover:
        """Inverse of `to_record`, for what came from outside.

        Raises:
            WireError: no such record, another version of it, or a value that is not what its name says.
        """
        record = content.get(HANDOVER_RECORD)
        if not isinstance(record, ConfigRecord):
            raise WireError(f"{sender} sent no ConfigRecord {HANDOVER_RECORD!r}; send Handover(...).to_record()")
        if record.get("schema") != SCHEMA:
            raise WireError(
                f"{sender} sent a handover of schema {record.get('schema')!r}, this side reads {SCHEMA!r}; "
                "install the same flower-edge version on both sides"
            )
        values: dict[str, Any] = {}
        for name in (*_TEXTS, "node_id"):
            values[name] = _read(record, name, str, sender)
            if len(values[name]) > LONGEST_TEXT:
                raise WireError(
                    f"{sender}: {name!r} has {len(values[name])} characters, at most {LONGEST_TEXT} are read"
                )
        for name in _COUNTS:
            values[name] = _read(record, name, int, sender)
        for name in _NUMBERS:
            values[name] = _read(record, name, float, sender)
        for name in (*_COUNTS, *_NUMBERS):
            if not 0 <= values[name] < float("inf"):
                raise WireError(f"{sender}: {name} = {values[name]}; expected a finite number, 0 or more")
        try:
            values["node_id"] = int(values["node_id"])
        except ValueError:
            raise WireError(f"{sender}: node_id = {values['node_id']!r}; expected a whole number as text") from None
        return cls(**values, parcels=_parcels(content, sender))


def _read(record: ConfigRecord, name: str, kind: type, sender: str) -> Any:
    value = record.get(name)
    if type(value) is not kind:
        raise WireError(f"{sender}: {name} = {value!r} in its handover; expected a value of type {kind.__name__}")
    return value


def _parcels(content: RecordDict, sender: str) -> Any:
    record = content.get(PARCELS_RECORD)
    if record is None:
        return None
    if not isinstance(record, ArrayRecord):
        raise WireError(f"{sender}: {PARCELS_RECORD!r} is a {type(record).__name__}; expected an ArrayRecord")
    packed = packet_bytes(record, sender=sender)
    if len(packed) > MOST_PARCEL_BYTES:
        raise WireError(f"{sender} sent parcels of {len(packed)} bytes, at most {MOST_PARCEL_BYTES} are read")
    try:
        tree = tree_from_bytes(packed, source=f"parcels from {sender}")
    except StateError as error:
        raise WireError(str(error)) from None
    if not (isinstance(tree, dict) and set(tree) == {"parcels"}):
        raise WireError(f"{sender} sent parcels that are no parcels; send Handover(...).to_record()")
    return tree["parcels"]
