"""`Link`: what a run tells of links between its nodes, and its form in a metric row.

A round of gossip has hundreds of links, so all of a cell go into one row of kind "links"; whoever has a single one to
tell records a row of kind "link" with the same names. Nothing here measures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ..store.metrics import Row

__all__ = ["MOST_LINKS", "Link", "link_of", "links_of", "links_row"]

#: Links in one row: those with the least bandwidth where there are more.
MOST_LINKS: Final = 2000


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


def links_row(round: int, links: Iterable[Link], cell: str = "") -> Row:
    """The row that tells all links of a cell, instead of what was told of them before.

    >>> row = links_row(3, [Link("0", "1", 1e6, 0.5)])
    >>> row.values["links"], links_of(str(row.values["table"]), row.round)[0].bandwidth_bps
    (1, 1000000.0)
    """
    told = sorted(links, key=lambda link: (link.bandwidth_bps is None, link.bandwidth_bps or 0.0))
    table = [
        [link.sender, link.receiver, *map(_short, (link.bandwidth_bps, link.delay_s, link.weight))]
        for link in told[:MOST_LINKS]
    ]
    return Row("links", round, {"links": len(told), "table": json.dumps(table, separators=(",", ":"))}, cell=cell)


def links_of(table: str, round: int, cell: str = "") -> list[Link]:
    """The links of such a row; what is no such table tells of none."""
    try:
        found = [(str(a), str(b), _finite(c), _finite(d), _finite(e)) for a, b, c, d, e in json.loads(table)]
    except (ValueError, TypeError):
        return []
    return [Link(*one, round=round, cell=cell) for one in found]


def link_of(values: Mapping[str, object], round: int, cell: str = "") -> Link:
    """The link of the values of a row of kind "link"."""
    bandwidth_bps, delay_s, weight = (_finite(values.get(name)) for name in ("bandwidth_bps", "delay_s", "weight"))
    sender, receiver = (str(values.get(name, "")) for name in ("sender", "receiver"))
    return Link(sender, receiver, bandwidth_bps, delay_s, weight, round, cell)


def _short(value: float | None) -> float | None:
    """Five digits: more of them were never measured, and every round tells every link."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
