"""What `Rewarded` carries from one exchange to the next, and as a checkpoint keeps it. Values; nothing here is paid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt
from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from flower_edge.events import Event
from flower_edge.rewards.budget import Purse
from flower_edge.updates.manifest import Manifest

__all__ = ["Given", "Pending", "RewardedState"]

#: For how many exchanges it is kept what a node was given, and how many of one node's.
_KEPT, _OF_NODE = 32, 4
_NOTHING = ArrayRecord()


@dataclass(frozen=True, eq=False)
class Given:
    """What a node was given to train.

    Attributes:
        number: the exchange, counted by the layer.
        server_round: as the strategy numbers it; 0 where its messages do not say.
        sent: the arrays of the message; none for work that began in mid-round, with a part of the same model.
        manifest: where they lie in the whole model.
        key: who it is, as text.
        edge: whether it is an edge, which trains with its terminals.
        answered: whether its reply has come; of an earlier exchange `sent` is empty then.
    """

    number: int
    server_round: int
    sent: ArrayRecord
    manifest: Manifest
    key: str
    edge: bool = False
    answered: bool = False


@dataclass(frozen=True, eq=False)
class Pending:
    """A reply that went on to the strategy and waits for the merge.

    Attributes:
        key: who sent it, as text.
        given: what it was given.
        arrays: what it sent, as views of the message's bytes.
        difference: whether that is what it has moved by, and not where it ended.
        moved: whether it differs from what the node was given.
        told_examples, told_age_s: what the node says of its data; `None` is nothing.
        measured_s: how long it trained, where the Grid can tell.
        passed_on: what the edge that sent it has credited its terminals with, micro-credits by their keys.
    """

    key: str
    given: Given
    arrays: Mapping[str, npt.NDArray[Any]]
    difference: bool
    moved: bool
    told_examples: float | None
    told_age_s: float | None
    measured_s: float | None
    passed_on: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RewardedState:
    """What the layer knows.

    Attributes:
        purse: what there is to pay with.
        paying: whether the pot of the exchange is still to be divided.
        number: training exchanges so far.
        accepted: by node key, the numbers of the exchanges in which its replies were merged, oldest first.
        round: cloud and edge round of the exchange that is open or was last.
        centre: whether the nodes of the last exchange were edges.
        given: by node id, the newest of what it was given, oldest first.
        latest: what the last exchange gave, for nodes that take another's place.
        pending: replies of this exchange that wait for the merge.
        refused: by node key, why a reply of this exchange was not let in.
        measured: numbers of the last settlement and totals.
        untold: events not yet told.
        grid: what is below the layer; not in a checkpoint.
    """

    purse: Purse
    paying: bool = False
    number: int = 0
    accepted: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    round: tuple[int, int] = (0, 0)
    centre: bool = False
    given: Mapping[int, tuple[Given, ...]] = field(default_factory=dict)
    latest: Given | None = None
    pending: tuple[Pending, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    untold: tuple[Event, ...] = ()
    grid: Grid | None = field(default=None, repr=False, compare=False)

    def noted(self, node_id: int, given: Given) -> RewardedState:
        """With what a node has just been given."""
        of_node = (*self.given.get(node_id, ()), given)[-_OF_NODE:]
        return replace(self, given={**self.given, node_id: of_node}, latest=given)

    def answered(self, node_id: int, given: Given) -> RewardedState:
        """With what a node was given, or stood in for, as answered."""
        others = (entry for entry in self.given.get(node_id, ()) if entry is not given)
        entries = sorted((*others, replace(given, answered=True)), key=lambda entry: entry.number)
        return replace(self, given={**self.given, node_id: tuple(entries[-_OF_NODE:])})

    def opened(self, round: tuple[int, int], *, centre: bool, late: bool) -> RewardedState:
        """A training exchange begins; replies of one that led to no merge are forgotten, and so is what is long ago.

        Models of earlier exchanges are let go, but where a reply to one may still come (`late`).
        """
        number = self.number + 1
        given: dict[int, tuple[Given, ...]] = {}
        for node, entries in self.given.items() if late else ():
            kept = (entry for entry in entries if entry.number > number - _KEPT)
            given[node] = tuple(replace(entry, sent=_NOTHING) if entry.answered else entry for entry in kept)
        return replace(
            self,
            paying=True,
            number=number,
            round=round,
            centre=centre,
            given={node: kept for node, kept in given.items() if kept},
            latest=None,
            pending=(),
            refused={},
        )

    def counted(self, keys: Iterable[str], window: int) -> RewardedState:
        """With the replies of these nodes merged in this exchange; the last `window` exchanges are remembered."""
        accepted = {key: (*self.accepted.get(key, ()), self.number) for key in keys}
        accepted = {
            key: kept
            for key, numbers in {**self.accepted, **accepted}.items()
            if (kept := tuple(number for number in numbers if number > self.number - window))
        }
        return replace(self, accepted=accepted)

    def to_tree(self) -> dict[str, Any]:
        """As plain values. What is under way is not kept: it begins anew."""
        return {
            "purse": dict(self.purse),
            "paying": self.paying,
            "number": self.number,
            "accepted": {key: list(numbers) for key, numbers in self.accepted.items()},
            "round": list(self.round),
            "centre": self.centre,
            "measured": dict(self.measured),
            "untold": [event.to_json() for event in self.untold],
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> RewardedState:
        """Inverse of `to_tree`."""
        cloud, edge = tree["round"]
        return cls(
            Purse(**tree["purse"]),  # type: ignore[typeddict-item]
            tree["paying"],
            tree["number"],
            {key: tuple(numbers) for key, numbers in tree["accepted"].items()},
            (cloud, edge),
            tree["centre"],
            measured=dict(tree["measured"]),
            untold=tuple(Event.from_json(text) for text in tree["untold"]),
        )
