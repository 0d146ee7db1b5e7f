"""`Statement`: what a node is owed and for what, from rows of a reward book and a tariff. Reads no book, pays nobody.

The amount is that of the total. Rows tell micro-credits only: amounts rounded row by row would add up to another sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any, Protocol

from .tariff import Tariff

__all__ = ["Booked", "Statement", "owed", "statement", "statements"]

_COLUMNS = ("seq", "booked_at", "run", "round", "edge_round", "payer", "kind", "micro")


class Booked(Protocol):
    """One row of a book, as a statement reads it; `flower_edge.store.reward_rows.Entry` is one."""

    @property
    def seq(self) -> int:
        """Its number in the book."""
        ...

    @property
    def run(self) -> str:
        """The run."""
        ...

    @property
    def round(self) -> int:
        """The round of the centre."""
        ...

    @property
    def edge_round(self) -> int:
        """The round within it; 0 where there is none."""
        ...

    @property
    def payer(self) -> str:
        """Who pays."""
        ...

    @property
    def node(self) -> str:
        """Who is paid; "" in rows that are nobody's."""
        ...

    @property
    def kind(self) -> str:
        """What for."""
        ...

    @property
    def micro(self) -> int:
        """Micro-credits; below 0 in a reversal."""
        ...

    @property
    def booked_at(self) -> str:
        """When, UTC, ISO 8601."""
        ...


@dataclass(frozen=True)
class Statement:
    """What one node is owed for a period.

    Attributes:
        node: its key.
        lines: its rows, in the order of the book.
        micro: their sum, micro-credits.
        amount: what the sum is worth, rounded by the tariff.
        tariff: by which it was.
    """

    node: str
    lines: tuple[Booked, ...]
    micro: int
    amount: Decimal
    tariff: Tariff

    @property
    def period(self) -> tuple[str, str]:
        """When the first and the last line were booked; empty texts without lines."""
        times = sorted(line.booked_at for line in self.lines)
        return (times[0], times[-1]) if times else ("", "")

    def rows(self) -> list[dict[str, str | int]]:
        """The lines as plain rows of one table, for CSV."""
        return [{"node": self.node} | {name: getattr(line, name) for name in _COLUMNS} for line in self.lines]

    def summary(self) -> dict[str, str | int]:
        """One row: period, number of lines, total, amount, currency. Amounts are texts, which no reader rounds."""
        since, until = self.period
        return {
            "node": self.node,
            "since": since,
            "until": until,
            "lines": len(self.lines),
            "micro": self.micro,
            "price_per_credit": str(self.tariff.price_per_credit),
            "rounding": self.tariff.rounding,
            "amount": str(self.amount),
            "currency": self.tariff.currency,
        }

    def document(self) -> dict[str, Any]:
        """Summary and rows, for JSON."""
        return self.summary() | {"rows": self.rows()}


def statement(node: str, rows: Iterable[Booked], tariff: Tariff) -> Statement:
    """A node's statement from rows of a book; those of other nodes are passed over."""
    lines = tuple(sorted((row for row in rows if row.node == node), key=lambda row: row.seq))
    micro = sum(line.micro for line in lines)
    return Statement(node, lines, micro, tariff.amount(micro), tariff)


def statements(rows: Iterable[Booked], tariff: Tariff) -> list[Statement]:
    """One statement for each node that has a row, by key; rows that are nobody's are passed over."""
    by_node: dict[str, list[Booked]] = {}
    for row in rows:
        if row.node:
            by_node.setdefault(row.node, []).append(row)
    return [statement(node, by_node[node], tariff) for node in sorted(by_node)]


def owed(amounts: Iterable[Decimal]) -> Decimal:
    """What the amounts of several nodes come to, each of them rounded before: what will be paid out, exactly.

    >>> owed([Decimal("0.42"), Decimal("0.12")])
    Decimal('0.54')
    """
    with localcontext() as exactly:
        exactly.prec = 100
        return sum(amounts, Decimal(0))
