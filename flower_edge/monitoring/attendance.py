"""Edges that counted in few rounds or in none, and why: what somebody who reads only a run's last lines has to see.

Reads rows; decides nothing. An edge is skipped in a round for good reasons, too: its terminals are elsewhere. So edges
that counted in half of their rounds or more are not told of here; the events of a run tell of each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..store.metrics import Row
from ..store.run_folder import RunFolder

__all__ = ["SKIPPED", "Attendance", "attendance", "seldom", "sentences"]

#: The event that tells that a cell was skipped in a round, and why.
SKIPPED: Final = "cell-skipped"
#: Edges that are told of, those that counted least first; characters of one reason.
_MOST: Final = 10
_MOST_TEXT: Final = 400


@dataclass(frozen=True)
class Attendance:
    """One edge over a run: in how many rounds it was asked, in how many its model counted, why it last did not."""

    cell: str
    asked: int
    counted: int
    why: str = ""

    def __str__(self) -> str:
        """As a sentence.

        >>> str(Attendance("edge-1", 10, 0, "no reply"))
        'edge-1 counted in 0 of 10 rounds: no reply'
        """
        times = f"{self.cell} counted in {self.counted} of {self.asked} round{'' if self.asked == 1 else 's'}"
        return f"{times}: {self.why[:_MOST_TEXT]}" if self.why else times


def attendance(run: RunFolder) -> list[Attendance]:
    """Every edge of a run, in the order in which they were first asked; none for a run without edges."""
    asked: dict[str, set[int]] = {}
    counted: dict[str, set[int]] = {}
    for row in run.rows("train"):
        if row.cell and not row.node:
            asked.setdefault(row.cell, set()).add(row.round)
            # An edge that was skipped is told with no examples.
            if row.number("num-examples") != 0:
                counted.setdefault(row.cell, set()).add(row.round)
    why = {row.cell: reason(row) for row in run.rows("event") if row.values.get("what") == SKIPPED}
    return [Attendance(cell, len(of), len(counted.get(cell, ())), why.get(cell, "")) for cell, of in asked.items()]


def reason(row: Row) -> str:
    """Why a cell was skipped, of the event that tells so.

    >>> reason(Row("event", 1, {"what": "cell-skipped", "text": "cell edge-1 skipped: no reply"}, "edge-1"))
    'no reply'
    """
    text = str(row.values.get("text", ""))
    return text.partition(" skipped: ")[2] or text


def seldom(edges: Iterable[Attendance]) -> list[Attendance]:
    """Those that counted in less than half of the rounds in which they were asked, the worst first.

    >>> seldom([Attendance("a", 10, 5), Attendance("b", 10, 4), Attendance("c", 10, 0)])[0].cell
    'c'
    """
    return sorted((edge for edge in edges if 2 * edge.counted < edge.asked), key=lambda edge: edge.counted / edge.asked)


def sentences(edges: Iterable[Attendance]) -> list[str]:
    """A line for each edge that seldom counted, so many of them."""
    found = seldom(edges)
    more = [f"and {len(found) - _MOST} more edges that counted in less than half of their rounds"]
    return [*map(str, found[:_MOST]), *(more if len(found) > _MOST else [])]
