"""What a reward book holds: settlements as they are handed in, rows as they stand, and the hash that chains the rows.

Values only. Nothing here opens a database, and nothing here decides who earns what. Amounts are whole micro-credits
(`micro`; 1 credit = 1,000,000) in 64 bits with a sign; a float is refused, for a sum of floats depends on its order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from ..errors import ConfigError, RewardError
from .json_file import ready

__all__ = [
    "CORRECTION",
    "NO_HASH",
    "REVERSAL",
    "SETTLED",
    "Entry",
    "Head",
    "Settlement",
    "Verified",
    "canonical",
    "checked",
    "row_hash",
    "text",
    "whole",
]

#: The key under which the row of a settlement itself is booked: no node has it.
SETTLED: Final = ""
#: `previous` of the first row.
NO_HASH: Final = "0" * 64
#: What the kind of a reversing row begins with; the number of the row it reverses follows.
REVERSAL: Final = "reversal of "
#: What the kind of a correcting row begins with; the operator's reference follows.
CORRECTION: Final = "correction "
_MOST: Final = 2**63 - 1


@dataclass(frozen=True)
class Settlement:
    """One pot, divided once: who got how much of it and what was carried over.

    Attributes:
        run: name of the run; the same when it is resumed, or the book cannot know that it goes on.
        round: the (cloud) round.
        edge_round: the round within it, 0 where there is none.
        payer: who pays, as "centre", "server" or the name of an edge.
        pot: what there was to divide, micro-credits; credits and `carried` add up to it exactly.
        carried: what was not paid and is the payer's for later rounds, micro-credits.
        credits: by the node's key, micro-credits, at least 0. A node with 0 gets a row, too: it was looked at.
        details: by the node's key what the amount was made of, as JSON knows it: shown in statements, never added up.
        kind: what was paid for.
        cell: where the nodes are, if the payer does not say it.
    """

    run: str
    round: int
    edge_round: int
    payer: str
    pot: int
    carried: int
    credits: Mapping[str, int]
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    kind: str = "training"
    cell: str = ""

    @property
    def paid(self) -> int:
        """The sum of the credits, micro-credits.

        >>> Settlement("demo", 1, 0, "server", pot=10, carried=1, credits={"0": 4, "1": 5}).paid
        9
        """
        return sum(self.credits.values())


@dataclass(frozen=True)
class Entry:
    """One row as it stands.

    Attributes:
        seq: 1, 2, 3 …, without a gap.
        node: the node's key; "" in the row of a settlement itself, whose `micro` is 0 and whose details tell its pot.
        micro: what the node's balance grew by, micro-credits; below 0 only in a reversal or a correction.
        refers: the row that this one reverses, else None.
        details: canonical JSON, as it was hashed.
        booked_at: when, UTC, ISO 8601.
        previous: hash of the row before, 64 hex digits.
        hash: of this row, see `row_hash`.
    """

    seq: int
    run: str
    round: int
    edge_round: int
    cell: str
    payer: str
    node: str
    kind: str
    micro: int
    refers: int | None
    details: str
    booked_at: str
    previous: str
    hash: str = ""

    def told(self) -> dict[str, Any]:
        """The details as a dict; `RewardError` if the text is none, which no book of ours writes."""
        try:
            found = json.loads(self.details)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RewardError(f"row {self.seq}: its details are no JSON object; run `flower-edge rewards verify`")
        return found


class Head(NamedTuple):
    """How far a book goes: its last row and that row's hash. Kept elsewhere, it shows later that none was cut off.

    >>> Head.parse("2:" + "ab" * 32).rows, str(Head(0, NO_HASH))[:6]
    (2, '0:0000')
    """

    rows: int
    hash: str

    def __str__(self) -> str:
        return f"{self.rows}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """The head that `str(head)` wrote.

        Raises:
            RewardError: the text is none.
        """
        rows, _, digest = text.strip().partition(":")
        if not (rows.isascii() and rows.isdigit() and len(rows) < 20) or len(digest) != 64 or set(digest) - _HEX:
            raise RewardError(
                f"{text!r} is no head of a book; expected ROWS:HASH as `flower-edge rewards verify` prints"
            )
        return cls(int(rows), digest)


class Verified(NamedTuple):
    """What a look at the whole chain came to.

    Attributes:
        ok: every row is where and as it was booked, as far as the book alone (and the anchor) can tell.
        rows: how many rows were read and found right, from the first on.
        head: where they end.
        first_bad: number of the first row that is wrong or missing, None if none is.
        why: what is wrong with it, in a sentence; "" if nothing is.
    """

    ok: bool
    rows: int
    head: Head
    first_bad: int | None = None
    why: str = ""


def row_hash(entry: Entry) -> str:
    """SHA-256 of a row and of the hash before it, as 64 hex digits; `entry.hash` itself is not looked at.

    Hashed are the ASCII bytes of one JSON array without spaces, other characters as \\u escapes (as `json.dumps` writes
    it with `separators=(",", ":")`):

        ["flower-edge reward 1", seq, run, round, edge_round, cell, payer, node, kind, micro, refers, details,
         booked_at, previous]

    `details` is there as the text that stands in the book, so that no reader has to write floats as we do.
    """
    told = [getattr(entry, name) for name in _HASHED]
    text = json.dumps(["flower-edge reward 1", *told], separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def canonical(details: Mapping[str, Any]) -> str:
    """Details as text: sorted keys, no spaces, ASCII; NaN and infinities as texts.

    >>> canonical({"why": "loss", "age_s": float("inf")})
    '{"age_s":"Infinity","why":"loss"}'

    Raises:
        RewardError: something JSON cannot hold.
    """
    try:
        plain = ready(details, "details")
    except ConfigError as error:
        raise RewardError(str(error)) from None
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def checked(settlement: Settlement) -> Settlement:
    """The settlement as a book holds it: plain integers, nodes in order, details as JSON gives them back.

    Raises:
        RewardError: an amount that is no integer, below 0 or beyond 64 bits; credits and what is carried over that do
            not add up to the pot; a text no database can hold; details of a node without a credit.
    """
    of = f"{settlement.run}, round {settlement.round}, {settlement.payer}"
    for name in ("run", "payer", "kind", "cell"):
        text(getattr(settlement, name), name, empty=name in ("payer", "cell"))
    if settlement.kind.startswith((REVERSAL, CORRECTION)):
        raise RewardError(f"{of}: kind {settlement.kind!r} is how reversals and corrections are told; take another")
    credits = {}
    for node in sorted(settlement.credits, key=lambda node: text(node, "node")):
        credits[node] = whole(settlement.credits[node], f"{of}: credit of {node}", least=0)
    pot = whole(settlement.pot, f"{of}: pot", least=0)
    carried = whole(settlement.carried, f"{of}: carried", least=0)
    paid = sum(credits.values())
    if paid + carried != pot:
        raise RewardError(f"{of}: paid {paid} and carried {carried} are {paid + carried}, not the pot of {pot}")
    extra = sorted(set(settlement.details) - set(credits))
    if extra:
        raise RewardError(f"{of}: details of {', '.join(extra)} without a credit; give a credit of 0")
    return replace(
        settlement,
        round=whole(settlement.round, f"{of}: round", least=0),
        edge_round=whole(settlement.edge_round, f"{of}: edge_round", least=0),
        pot=pot,
        carried=carried,
        credits=credits,
        details={node: json.loads(canonical(settlement.details.get(node, {}))) for node in credits},
    )


def whole(value: Any, what: str, *, least: int = -_MOST) -> int:
    """`value` as an int, if it is a whole number of `least` up to 2^63 − 1; `RewardError` else.

    >>> whole(3, "credit")
    3
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise RewardError(f"{what} is {value!r}; expected a whole number of micro-credits or rounds, as an int")
    number = int(value.__index__())
    if not least <= number <= _MOST:
        raise RewardError(f"{what} is {number}; expected {least} to 2^63 - 1")
    return number


def text(value: Any, what: str, *, empty: bool = False) -> str:
    """`value`, if both databases can hold it as a text; `RewardError` else.

    >>> text("edge-0", "payer")
    'edge-0'
    """
    if not isinstance(value, str) or (not value and not empty):
        raise RewardError(f"{what} is {value!r}; expected a text{'' if empty else ' that is not empty'}")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise RewardError(f"{what} is {value!r}; a book holds no zero bytes and no halves of characters")
    return value


_HEX: Final = frozenset("0123456789abcdef")
_HASHED: Final = (
    "seq", "run", "round", "edge_round", "cell", "payer", "node", "kind", "micro", "refers", "details", "booked_at",
    "previous",
)  # fmt: skip
