"""What the layer `Shared` carries from round to round, and its plain form for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flower_edge.events import Event
from flower_edge.sharing import DataCard, ShareBook, TrainingSet

__all__ = ["EDGE", "PoolSet", "SharedState", "owner_of"]

#: Who provides a set that is the edge's own.
EDGE = "edge"


@dataclass(frozen=True)
class PoolSet:
    """A set in the common pool.

    Attributes:
        data: samples with their card, whose age is that at `since_s`.
        since_s: when it came.
    """

    data: TrainingSet
    since_s: float

    def card(self, now_s: float, uses: int) -> DataCard:
        """Its card now: older by the time it has been here, and used as often as anybody told."""
        card = self.data.card
        age_s = None if card.age_s is None else card.age_s + max(0.0, now_s - self.since_s)
        return replace(card, age_s=age_s, uses=max(card.uses, uses))


@dataclass(frozen=True)
class SharedState:
    """What the layer knows.

    Attributes:
        number: training rounds so far, from 1 in the first.
        round: cloud and edge round of the last one.
        asked: number of the round in which a node was last asked what it offers.
        takers: nodes that take sets.
        pool: common sets by key, oldest first.
        serials: how many sets an owner has given under a name.
        held: keys of the sets each node has.
        unsure: keys of sets each node was sent and said nothing of: it may have them, or a part.
        declined: keys each node refused, or may not have and was told of in an event.
        withdrawn: keys of sets nobody is given any more.
        book: what was shared.
        down_bits, up_bits: of the messages of sharing.
        untold: events not yet taken.
    """

    number: int = 0
    round: tuple[int, int] = (0, 0)
    asked: Mapping[int, int] = field(default_factory=dict)
    takers: frozenset[int] = frozenset()
    pool: Mapping[str, PoolSet] = field(default_factory=dict)
    serials: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    unsure: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    declined: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    withdrawn: tuple[str, ...] = ()
    book: ShareBook = field(default_factory=ShareBook)
    down_bits: int = 0
    up_bits: int = 0
    untold: tuple[Event, ...] = ()

    def with_event(self, event: Event) -> SharedState:
        """With one more thing to tell."""
        return replace(self, untold=(*self.untold, event))

    def given_by(self, owner: str) -> list[str]:
        """Keys of an owner's sets in the pool."""
        return [key for key, one in self.pool.items() if one.data.card.owner == owner]

    def without_sets(self, keys: list[str]) -> SharedState:
        """The same, those sets withdrawn: no longer in the pool, and to be dropped by whoever has them."""
        pool = {key: one for key, one in self.pool.items() if key not in keys}
        return replace(self, pool=pool, withdrawn=tuple(dict.fromkeys([*self.withdrawn, *keys])))

    def dump(self) -> dict[str, Any]:
        """As nested plain values and arrays."""
        return {
            "number": self.number,
            "round": list(self.round),
            "asked": [list(entry) for entry in self.asked.items()],
            "takers": sorted(self.takers),
            "pool": [
                {
                    "key": key,
                    "x": one.data.x,
                    "y": one.data.y,
                    "card": one.data.card.to_mapping(),
                    "columns": list(one.data.columns),
                    "since_s": one.since_s,
                }
                for key, one in self.pool.items()
            ],
            "serials": dict(self.serials),
            "held": [[node, list(keys)] for node, keys in self.held.items()],
            "unsure": [[node, list(keys)] for node, keys in self.unsure.items()],
            "declined": [[node, list(keys)] for node, keys in self.declined.items()],
            "withdrawn": list(self.withdrawn),
            "book": self.book.dump(),
            "bits": [self.down_bits, self.up_bits],
            "untold": [event.to_json() for event in self.untold],
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> SharedState:
        """Inverse of `dump`."""
        pool: dict[str, PoolSet] = {}
        for entry in saved["pool"]:
            card = DataCard.read(entry["card"])
            assert card is not None
            data = TrainingSet(entry["x"], entry["y"], card, tuple(entry["columns"]))
            pool[entry["key"]] = PoolSet(data, entry["since_s"])
        return cls(
            number=saved["number"],
            round=(saved["round"][0], saved["round"][1]),
            asked=dict(saved["asked"]),
            takers=frozenset(saved["takers"]),
            pool=pool,
            serials=dict(saved["serials"]),
            held={node: tuple(keys) for node, keys in saved["held"]},
            unsure={node: tuple(keys) for node, keys in saved["unsure"]},
            declined={node: tuple(keys) for node, keys in saved["declined"]},
            withdrawn=tuple(saved["withdrawn"]),
            book=ShareBook.load(saved["book"]),
            down_bits=saved["bits"][0],
            up_bits=saved["bits"][1],
            untold=tuple(Event.from_json(text) for text in saved["untold"]),
        )


def owner_of(key: str) -> str:
    """Who a set belongs to, by its key.

    >>> owner_of("1003/own#2")
    '1003'
    """
    return key.partition("/")[0]
