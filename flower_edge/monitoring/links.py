"""`Link` and `LinkTable`: what a run tells of links between its nodes, and its form in a metric row and in a message.

A round of gossip has hundreds of links, so all of a cell go into one row of kind "links"; whoever has a single one to
tell records a row of kind "link" with the same names. Nothing here measures.

What is told is bounded: links with the least bandwidth word by word, all of them in a few numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..store.metrics import Row, Value

__all__ = [
    "MOST_LINKS",
    "MOST_LINKS_UP",
    "Link",
    "LinkTable",
    "by_bandwidth",
    "link_of",
    "links_of",
    "links_row",
    "told_in_full",
]

#: Links that are told word by word in one round, those with the least bandwidth where there are more.
MOST_LINKS: Final = 2000
#: The same in what an edge sends up with its model: some 10 kB.
MOST_LINKS_UP: Final = 200
#: The most characters that are read of what an edge tells, and of a node's name.
_MOST_TEXT: Final = 200_000
_MOST_NAME: Final = 40


@dataclass(frozen=True)
class Link:
    """What is known of a link between two nodes, as of a round.

    Attributes:
        sender, receiver: the nodes, as the run names them.
        bandwidth_bps: what it may carry; None where that was not told, as for the next two.
        delay_s: what it takes for what was last sent over it, without the work of its sender.
        weight: what the receiver gives to what comes over it.
        round: of which this is told.
        cell: the edge in whose cell it is.
    """

    sender: str
    receiver: str
    bandwidth_bps: float | None = None
    delay_s: float | None = None
    weight: float | None = None
    round: int = 0
    cell: str = ""


@dataclass(frozen=True)
class LinkTable:
    """Links of one cell after a round.

    Attributes:
        links: those with the least bandwidth.
        counted: how many there are.
        timed: of how many the delay is known.
        mean_s, slowest_s: delays, of those.
        least_bps: the least bandwidth.
    """

    links: tuple[Link, ...]
    counted: int
    timed: int = 0
    mean_s: float | None = None
    slowest_s: float | None = None
    least_bps: float | None = None

    @classmethod
    def of(cls, links: Iterable[Link], most: int = MOST_LINKS) -> LinkTable:
        """All links of a cell; `most` of them are kept.

        >>> LinkTable.of([Link("0", "1", 2e6, 0.25), Link("1", "0", 1e6, 0.75)], most=1)  # doctest: +ELLIPSIS
        LinkTable(links=(Link(sender='1', ...),), counted=2, timed=2, mean_s=0.5, slowest_s=0.75, least_bps=1000000.0)
        """
        told = by_bandwidth(links)
        delays_s = [delay_s for link in told if (delay_s := _finite(link.delay_s)) is not None]
        rates_bps = [rate_bps for link in told if (rate_bps := _finite(link.bandwidth_bps)) is not None]
        return cls(
            tuple(told[:most]),
            len(told),
            len(delays_s),
            math.fsum(delays_s) / len(delays_s) if delays_s else None,
            max(delays_s, default=None),
            min(rates_bps, default=None),
        )

    def kept(self, most: int) -> LinkTable:
        """The same with fewer links word by word."""
        return LinkTable(self.links[:most], self.counted, self.timed, self.mean_s, self.slowest_s, self.least_bps)

    def row(self, round: int, cell: str = "", *, in_full: bool = True) -> Row:
        """Its metric row, which replaces what was told of the cell before; the links themselves only if `in_full`."""
        values: dict[str, Value] = {"links": self.counted, "timed": self.timed}
        for name in ("mean_s", "slowest_s", "least_bps"):
            if (value := _short(getattr(self, name))) is not None:
                values[name] = value
        if in_full:
            values["table"] = _dumped(self._lines())
        return Row("links", round, values, cell=cell)

    def to_json(self) -> str:
        """For a message."""
        numbers = [self.counted, self.timed, *map(_short, (self.mean_s, self.slowest_s, self.least_bps))]
        return _dumped([numbers, self._lines()])

    @classmethod
    def from_json(cls, text: object, round: int = 0, cell: str = "") -> LinkTable | None:
        """What another machine told; None where it is no such table. Never larger than what would be told here."""
        if not isinstance(text, str) or len(text) > _MOST_TEXT:
            return None
        try:
            (counted, timed, *numbers), lines = json.loads(text)
            mean_s, slowest_s, least_bps = map(_finite, numbers)
            links = tuple(_links(lines, round, cell))
        except (ValueError, TypeError, RecursionError):
            return None
        if not all(type(count) is int and 0 <= count < 1 << 40 for count in (counted, timed)):
            return None
        links = links[:MOST_LINKS_UP]
        return cls(links, max(counted, len(links)), timed, mean_s, slowest_s, least_bps)

    def _lines(self) -> list[list[Any]]:
        return [
            [
                link.sender[:_MOST_NAME],
                link.receiver[:_MOST_NAME],
                *map(_short, (link.bandwidth_bps, link.delay_s, link.weight)),
            ]
            for link in self.links
        ]


def told_in_full(round: int) -> bool:
    """Whether the links of this round are told word by word, or in a few numbers only.

    Each of the first hundred rounds, then every tenth up to the thousandth, every hundredth up to the ten-thousandth:
    a run of any length stays within some hundred tables.

    >>> [round for round in (7, 99, 100, 101, 110, 1000, 1010, 1100) if told_in_full(round)]
    [7, 99, 100, 110, 1000, 1100]
    """
    return bool(round % 10 ** max(0, len(str(max(round, 1) - 1)) - 2) == 0)


def by_bandwidth(links: Iterable[Link]) -> list[Link]:
    """The slowest first: they are what a round waits for. Those of which nothing is known come last."""
    return sorted(links, key=lambda link: (link.bandwidth_bps is None, link.bandwidth_bps or 0.0))


def links_row(round: int, links: Iterable[Link], cell: str = "") -> Row:
    """The row that tells all links of a cell, instead of what was told of them before.

    >>> row = links_row(3, [Link("0", "1", 1e6, 0.5)])
    >>> row.values["links"], links_of(str(row.values["table"]), row.round)[0].bandwidth_bps
    (1, 1000000.0)
    """
    return LinkTable.of(links).row(round, cell)


def links_of(table: str, round: int, cell: str = "") -> list[Link]:
    """The links of such a row; what is no such table tells of none."""
    try:
        return _links(json.loads(table), round, cell)
    except (ValueError, TypeError, RecursionError):
        return []


def _links(lines: Any, round: int, cell: str) -> list[Link]:
    found = [(str(a), str(b), _finite(c), _finite(d), _finite(e)) for a, b, c, d, e in lines]
    return [Link(a[:_MOST_NAME], b[:_MOST_NAME], c, d, e, round, cell) for a, b, c, d, e in found]


def link_of(values: Mapping[str, object], round: int, cell: str = "") -> Link:
    """The link of the values of a row of kind "link"."""
    bandwidth_bps, delay_s, weight = (_finite(values.get(name)) for name in ("bandwidth_bps", "delay_s", "weight"))
    sender, receiver = (str(values.get(name, "")) for name in ("sender", "receiver"))
    return Link(sender, receiver, bandwidth_bps, delay_s, weight, round, cell)


def _dumped(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _short(value: float | None) -> float | None:
    """Five digits: more of them were never measured, and every round tells every link."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return number if math.isfinite(number) else None
