"""`FilteredState`: what a `Filtered` carries from one exchange to the next. Values, and their form in a checkpoint."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from flower_edge.admission.refusal import CODES
from flower_edge.events import Event
from flower_edge.filtering.track_record import TrackRecord
from flower_edge.updates.update import Arrays
from flower_edge.wire import ModelSpec

from .sent import Sent, remembered

__all__ = ["FilteredState", "track_records"]

#: Of so many nodes something is remembered; where ids do not last, those that went never come back.
_NODES = 100_000
Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class FilteredState:
    """State of a `Filtered`.

    Attributes:
        records: how every node has done so far, by its key.
        told: what nodes told before the last exchange, by key, for rules.
        counts: how many replies were refused so far, by code; the gate's are its own.
        judged, refused: replies of the last training exchange that were looked at, and that were refused.
        evaluations: how many evaluations that took.
        place: the cloud and edge round that these are about.
        first: the first model that was sent to be trained: names, shapes and dtypes.
        untold: events not yet taken.
        model: the last merged model, where nodes are sent parts of it; not part of a checkpoint.
        bases: the last two models that were sent out, older first; not part of a checkpoint.
        sent: what nodes were sent and may answer, oldest first; not part of a checkpoint.
        grid: what is below the layer; not part of a checkpoint.
    """

    records: Mapping[str, TrackRecord] = field(default_factory=dict)
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    judged: int = 0
    refused: int = 0
    evaluations: int = 0
    place: tuple[int, int] = (0, 0)
    first: ModelSpec | None = None
    untold: tuple[Event, ...] = ()
    model: ArrayRecord | None = None
    bases: tuple[Arrays, ...] = ()
    sent: tuple[Sent, ...] = ()
    grid: Grid | None = None

    def with_replies(self, said: Iterable[tuple[str, str | None]], round: int, half_life: float) -> FilteredState:
        """With more replies in the nodes' records: key and code of each, which is `None` where it was let in.

        Where a node is, or what it runs on, is not held against it, nor is a code that nobody knows. Nor that it was
        one of several who sent the same: whose update it was cannot be told, and a copy must not harm whom it copies.
        """
        records = dict(self.records)
        for key, code in said:
            if code is None or (code in CODES and code not in ("criteria", "copied")):
                # Taken out and put in at the end, so that the first ones have not been heard of for the longest time.
                records[key] = records.pop(key, TrackRecord()).with_reply(code, round, half_life)
        return replace(self, records=_newest(records))

    def with_sent(self, new: Sequence[Sent]) -> FilteredState:
        """With another exchange's messages."""
        bases = self.bases
        if new and not any(base is new[-1].base for base in bases):
            bases = (*bases, new[-1].base)[-2:]
        return replace(self, sent=remembered(self.sent, new), bases=bases)

    def before(self, base: Arrays) -> Arrays | None:
        """The model that was sent out before this one, where that is known still."""
        return self.bases[0] if len(self.bases) == 2 and self.bases[1] is base else None

    def with_told(self, rows: Mapping[str, Mapping[str, Any]]) -> FilteredState:
        """With what these nodes tell, by key."""
        before = {key: row for key, row in self.told.items() if key not in rows}
        return replace(self, told=_newest({**before, **rows}))

    def to_tree(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "records": {key: record.to_tree() for key, record in self.records.items()},
            "told": {key: dict(row) for key, row in self.told.items()},
            "counts": dict(self.counts),
            "now": [self.judged, self.refused, self.evaluations],
            "place": list(self.place),
            "first": None
            if self.first is None
            else {name: [list(shape), dtype] for name, (shape, dtype) in self.first.items()},
            "untold": [event.to_json() for event in self.untold],
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> FilteredState:
        """Inverse of `to_tree`."""
        first = tree["first"]
        judged, refused, evaluations = tree["now"]
        return cls(
            records={key: TrackRecord.from_tree(record) for key, record in tree["records"].items()},
            told={key: dict(row) for key, row in tree["told"].items()},
            counts=dict(tree["counts"]),
            judged=judged,
            refused=refused,
            evaluations=evaluations,
            place=(tree["place"][0], tree["place"][1]),
            first=None if first is None else {name: (tuple(shape), dtype) for name, (shape, dtype) in first.items()},
            untold=tuple(Event.from_json(text) for text in tree["untold"]),
        )


def track_records(state: FilteredState) -> Mapping[str, TrackRecord]:
    """How every node has done so far, by its key."""
    return state.records


def _newest(found: dict[str, Value]) -> dict[str, Value]:
    return dict(itertools.islice(found.items(), len(found) - _NODES, None)) if len(found) > _NODES else found
