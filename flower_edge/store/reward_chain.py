"""`Chain`: whether rows, read one after another, are the rows that were booked.

Looks at numbers, hashes, and what the amounts say of each other. Nothing here reads a database.
"""

from __future__ import annotations

from collections.abc import Iterable

from .reward_rows import CORRECTION, NO_HASH, REVERSAL, SETTLED, Entry, Head, Verified, row_hash

__all__ = ["Chain"]


class Chain:
    """A walk along a book, from its first row on.

    Args:
        anchor: a head of earlier that the book must still have.
    """

    def __init__(self, anchor: Head | None = None) -> None:
        self._anchor = anchor
        self._head = Head(0, NO_HASH)
        self._why = ""
        self._bad: int | None = None
        #: The row of the settlement whose nodes are being read; how many are to come, and what they still add up to.
        self._settlement: Entry | None = None
        self._nodes = self._left = 0
        #: Of the rows that a reversal refers to, by number: whom they credited with how much. None: not yet read.
        self._reversed: dict[int, tuple[str, int] | None] = {}

    def expect(self, referred: Iterable[int]) -> None:
        """Say beforehand which rows are referred to, so that the others need not be remembered."""
        self._reversed = dict.fromkeys(referred)

    def accept(self, entry: Entry) -> bool:
        """Whether `entry` is right, and the walk may go on."""
        self._why = self._wrong(entry)
        if self._why:
            # Of a gap the first row that is missing is named.
            self._bad = min(entry.seq, self._head.rows + 1)
            return False
        self._head = Head(entry.seq, entry.hash)
        return True

    def finish(self) -> Verified:
        """The result once there is no further row."""
        if self._settlement is not None:
            self._why, self._bad = self._incomplete(), self._head.rows + 1
        elif self._anchor is not None and self._anchor.rows > self._head.rows:
            self._bad = self._head.rows + 1
            self._why = f"the anchor knows {self._anchor.rows} rows, and the book ends after {self._head.rows}"
        return self.result()

    def broken(self, why: str) -> Verified:
        """The result if no further row can be read."""
        self._why, self._bad = why, self._head.rows + 1
        return self.result()

    def result(self) -> Verified:
        """How far the walk came, and what stopped it."""
        return Verified(not self._why, self._head.rows, self._head, self._bad, self._why)

    def _wrong(self, entry: Entry) -> str:
        expected = self._head.rows + 1
        if entry.seq != expected:
            return f"row {expected} is missing; row {entry.seq} comes instead"
        if entry.previous != self._head.hash:
            return f"row {entry.seq} does not follow row {expected - 1}: it was booked after another one"
        if entry.hash != row_hash(entry):
            return f"row {entry.seq} is not as it was booked: its hash does not fit"
        if self._anchor is not None and entry.seq == self._anchor.rows and entry.hash != self._anchor.hash:
            return f"row {entry.seq} is not the one that the anchor knows: the book was written anew"
        return self._wrong_amount(entry)

    def _wrong_amount(self, entry: Entry) -> str:
        if self._settlement is not None:
            return self._wrong_credit(entry, self._settlement)
        if entry.refers is not None:
            # Taken out: a second reversal does not find it.
            reversed = self._reversed.pop(entry.refers, None)
            if reversed != (entry.node, -entry.micro) or entry.kind != f"{REVERSAL}{entry.refers}":
                return f"row {entry.seq} does not reverse row {entry.refers}, or row {entry.refers} was reversed before"
        elif entry.node == SETTLED:
            told = entry.told()
            amounts = [told.get(name) for name in ("pot", "paid", "carried", "nodes")]
            if not all(type(amount) is int and amount >= 0 for amount in amounts) or entry.micro:
                return f"row {entry.seq} tells no settlement"
            if told["paid"] + told["carried"] != told["pot"]:
                return f"row {entry.seq}: paid and carried are not the pot"
            self._nodes, self._left = told["nodes"], told["paid"]
            self._settlement = entry if self._nodes else None
            if not self._nodes and self._left:
                return f"row {entry.seq}: paid {self._left}, to nobody"
        elif entry.kind.startswith(CORRECTION):
            self._remember(entry)
        else:
            return f"row {entry.seq} credits {entry.node} outside of a settlement"
        return ""

    def _wrong_credit(self, entry: Entry, settlement: Entry) -> str:
        if entry.node == SETTLED or _settled_by(entry) != _settled_by(settlement):
            return self._incomplete()
        if entry.micro < 0:
            return f"row {entry.seq} credits less than nothing"
        self._nodes -= 1
        self._left -= entry.micro
        self._remember(entry)
        if self._nodes == 0:
            self._settlement = None
            if self._left:
                return f"row {entry.seq} ends a settlement, of row {settlement.seq}, whose credits miss {self._left}"
        return ""

    def _remember(self, entry: Entry) -> None:
        if entry.seq in self._reversed:
            self._reversed[entry.seq] = (entry.node, entry.micro)

    def _incomplete(self) -> str:
        assert self._settlement is not None
        return f"the settlement of row {self._settlement.seq} lacks {self._nodes} rows"


def _settled_by(entry: Entry) -> tuple[object, ...]:
    return entry.run, entry.round, entry.edge_round, entry.cell, entry.payer, entry.kind, entry.refers
