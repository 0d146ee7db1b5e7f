"""`ShareBook`: what was shared with whom, when and how often, and in how many trainings each set was used.

A value: every entry makes a new book, and `dump` is plain values for a checkpoint. Nothing is shared here.

Source: [4] ¶62-64; the roles of an account: who gave, who received, how much, when.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError

__all__ = ["Handed", "ShareBook"]


@dataclass(frozen=True)
class Handed:
    """One set at one receiver.

    Attributes:
        key: of the set: `<owner>/<name>`, where a newer one replaced it with `#2` and so on.
        owner, receiver: ids of nodes as text; `edge` is the edge.
        times: how often it was handed over.
        samples, size_bytes: all hand-overs together.
        first_round, last_round: training rounds of the edge, from 1.
        last_s: time of the last hand-over, virtual where there is a virtual clock.
    """

    key: str
    owner: str
    receiver: str
    times: int
    samples: int
    size_bytes: int
    first_round: int
    last_round: int
    last_s: float

    def row(self) -> dict[str, int | float | str]:
        """Its row in a table."""
        return dict(vars(self))


@dataclass(frozen=True)
class ShareBook:
    """Who has what of whom.

    Attributes:
        entries: by set and receiver.
        uses: trainings by set and user, as they told.
        refusals: how often sharing was refused.

    >>> book = ShareBook().handed("7/own", "7", "8", samples=39, size_bytes=100, round=1, time_s=0.0)
    >>> book = book.handed("7/own", "7", "8", samples=39, size_bytes=100, round=4, time_s=9.0).used("8", {"7/own": 3})
    >>> book.rows()[0]["times"], book.rows()[0]["samples"], book.total_uses("7/own")
    (2, 78, 3)
    """

    entries: Mapping[tuple[str, str], Handed] = field(default_factory=dict)
    uses: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    refusals: int = 0

    def handed(
        self, key: str, owner: str, receiver: str, *, samples: int, size_bytes: int, round: int, time_s: float
    ) -> ShareBook:
        """With one more hand-over.

        Raises:
            ConfigError: amounts below 0.
        """
        if min(samples, size_bytes, round) < 0:
            raise ConfigError(f"samples {samples}, size_bytes {size_bytes}, round {round}: expected 0 or more")
        before = self.entries.get((key, receiver), Handed(key, owner, receiver, 0, 0, 0, round, round, time_s))
        entry = replace(
            before,
            times=before.times + 1,
            samples=before.samples + samples,
            size_bytes=before.size_bytes + size_bytes,
            last_round=round,
            last_s=time_s,
        )
        return replace(self, entries={**self.entries, (key, receiver): entry})

    def used(self, user: str, counts: Mapping[str, int]) -> ShareBook:
        """With what a user told of its uses, all so far; a count never falls."""
        uses = dict(self.uses)
        for key, count in counts.items():
            by = uses.get(key, {})
            uses[key] = {**by, user: max(by.get(user, 0), count)}
        return replace(self, uses=uses)

    def refused(self, times: int = 1) -> ShareBook:
        """With so many more refusals."""
        return replace(self, refusals=self.refusals + times)

    def total_uses(self, key: str) -> int:
        """Trainings a set was used in, by all that told."""
        return sum(self.uses.get(key, {}).values())

    def rows(self) -> list[dict[str, int | float | str]]:
        """One row per set and receiver, in the order of their first hand-over, with the uses that receiver told."""
        return [
            {**entry.row(), "uses": self.uses.get(entry.key, {}).get(entry.receiver, 0)}
            for entry in self.entries.values()
        ]

    def write_csv(self, path: str | Path) -> None:
        """The rows as a table, instead of what the file held; a header alone where nothing was shared."""
        header = [*Handed("", "", "", 0, 0, 0, 0, 0, 0.0).row(), "uses"]
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, header, lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows())

    def dump(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "entries": [entry.row() for entry in self.entries.values()],
            "uses": {key: dict(by) for key, by in self.uses.items()},
            "refusals": self.refusals,
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> ShareBook:
        """Inverse of `dump`."""
        entries = [Handed(**row) for row in saved["entries"]]
        return cls({(entry.key, entry.receiver): entry for entry in entries}, saved["uses"], saved["refusals"])
