"""The state of an `Admitted`, and its checkpoint. Values; nothing here looks at a reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.serverapp import Grid

from flower_edge.events import Event
from flower_edge.updates.manifest import Spec

from .assignments import Given
from .prints import Sent

__all__ = ["AdmittedState"]


@dataclass(frozen=True, eq=False)
class AdmittedState:
    """State of an `Admitted`.

    Attributes:
        given: assignments, the last few of every node, oldest first; not part of a checkpoint.
        counts: how many replies were refused so far, by code.
        now: how many of them in this round.
        round: the cloud round and the edge round that `now` is about.
        first: the first model that was sent to be trained: names, shapes and dtypes.
        sent: prints of the last few replies of every node.
        secret: for prints and nonces, as hexadecimal text.
        untold: events not yet taken.
        grid: what is below the layer; not part of a checkpoint.
    """

    given: tuple[Given, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    now: int = 0
    round: tuple[int, int] = (0, 0)
    first: Spec | None = None
    sent: Sent = field(default_factory=dict)
    secret: str = ""
    untold: tuple[Event, ...] = ()
    grid: Grid | None = None

    def to_tree(self) -> dict[str, Any]:
        """As plain values, without what belongs to a session: the Grid, and what is under way on it."""
        first = (
            None if self.first is None else [[name, list(shape), dtype] for name, (shape, dtype) in self.first.items()]
        )
        return {
            "counts": dict(self.counts),
            "now": self.now,
            "round": list(self.round),
            "first": first,
            "sent": {node: [list(pair) for pair in pairs] for node, pairs in self.sent.items()},
            "secret": self.secret,
            "untold": [event.to_json() for event in self.untold],
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> AdmittedState:
        """Inverse of `to_tree`."""
        cloud, edge = tree["round"]
        first = tree["first"]
        return cls(
            counts=dict(tree["counts"]),
            now=tree["now"],
            round=(cloud, edge),
            first=None if first is None else {name: (tuple(shape), dtype) for name, shape, dtype in first},
            sent={node: tuple((base, came) for base, came in pairs) for node, pairs in tree["sent"].items()},
            secret=tree["secret"],
            untold=tuple(Event.from_json(text) for text in tree["untold"]),
        )
