"""`RunState`: what the rows of a run amount to, brought up to date row by row.

A thousand rounds of a hundred edges cost a look no more than what is new in them. Rows told again (same kind, round,
cell, node and edge round), as by a round that was taken up again, replace those before. Nothing here reads a file.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from ..store.metrics import Row
from .attendance import SKIPPED, Attendance, reason
from .happenings import Happening, happening_of
from .links import Link, link_of, links_of
from .rounds import RoundLine, line_of, without_table

__all__ = ["CellState", "Payments", "Refusals", "RunState"]

#: Events that are kept word by word; all are counted.
MOST_EVENTS: Final = 500
#: Distinct nodes, reasons and links that are kept; beyond them, only counts.
MOST_NODES: Final = 10_000
#: Distinct words of events and codes of refusals that are counted by themselves.
MOST_KINDS: Final = 200

#: What a book can hold of one payment; more is no payment.
_MOST_MICRO: Final = 1 << 63

_LINE_KINDS: Final = ("central", "evaluate", "traffic", "nodes", "links")
_Told = tuple[str, str, str, int]


@dataclass
class CellState:
    """One cell: its newest numbers, and what it sent in all."""

    cell: str
    rounds: set[int] = field(default_factory=set)
    accuracy: float | None = None
    loss: float | None = None
    examples: float | None = None
    sampled: float | None = None
    replied: float | None = None
    #: How many terminals could have been asked, where something selects among them.
    eligible: float | None = None
    chosen: float | None = None
    last_round: int = 0
    #: Rounds in which it was asked, and why it was last skipped.
    asked: set[int] = field(default_factory=set)
    why_skipped: str = ""
    bits: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)
    up_bits: float = 0.0
    down_bits: float = 0.0

    def carried(self, row: Row) -> None:
        """A row of traffic; told again, it counts once."""
        at = (row.round, row.edge_round)
        before = self.bits.get(at, (0.0, 0.0))
        now = (_number(row, "up_bits") or 0.0, _number(row, "down_bits") or 0.0)
        self.bits[at] = now
        self.up_bits += now[0] - before[0]
        self.down_bits += now[1] - before[1]


@dataclass
class Refusals:
    """Replies of one node that were refused at one place for one reason."""

    times: int = 0
    first: int = 0
    last: int = 0
    why: str = ""


@dataclass
class Payments:
    """What one node was paid at one place, in whole micro-credits."""

    times: int = 0
    micro: int = 0


class RunState:
    """See the module. Attributes are read, not set; `version` grows with every change."""

    def __init__(self) -> None:
        self.version = 0
        self.events: deque[Happening] = deque(maxlen=MOST_EVENTS)
        self.event_counts: Counter[str] = Counter()
        self.cells: dict[str, CellState] = {}
        #: (cell, sender, receiver) -> link.
        self.links: dict[tuple[str, str, str], Link] = {}
        #: Cell -> how many links it has; more than are told word by word.
        self.links_counted: dict[str, int] = {}
        #: Terminal -> the cell it is in, as far as events tell; "" for one that is in none.
        self.attached: dict[str, str] = {}
        #: (node, where, code) -> refusals; where is "" at the centre or the only server.
        self.refused: dict[tuple[str, str, str], Refusals] = {}
        self.refused_by_code: Counter[str] = Counter()
        #: (node, where) -> payments.
        self.paid: dict[tuple[str, str], Payments] = {}
        self.paid_micro = 0
        #: Seconds of wall-clock time of the newest row.
        self.last_wall_s: float | None = None
        self.last_virtual_s: float | None = None
        self._told: dict[int, dict[_Told, Row]] = {}
        self._lines: dict[int, RoundLine] = {}
        self._stale: set[int] = set()
        self._sorted: list[RoundLine] | None = []
        self._links_text: dict[str, tuple[int, str]] = {}

    def add(self, rows: Iterable[Row]) -> None:
        """Take in rows, in the order in which they were recorded."""
        for row in rows:
            self.version += 1
            if row.wall_s is not None:
                self.last_wall_s = max(row.wall_s, self.last_wall_s or 0.0)
            if row.virtual_s is not None:
                self.last_virtual_s = max(row.virtual_s, self.last_virtual_s or 0.0)
            if row.kind in _LINE_KINDS:
                self._told.setdefault(row.round, {})[row.kind, row.cell, row.node, row.edge_round] = without_table(row)
                self._stale.add(row.round)
                self._sorted = None
            if row.kind == "event":
                self._event(row)
            elif row.kind == "link":
                self._link(link_of(row.values, row.round, row.cell))
            elif row.kind == "links":
                self._links(row)
            elif row.cell and not row.node:
                self._cell(row)

    # -- rounds

    @property
    def lines(self) -> list[RoundLine]:
        """One line per round, in order; see `rounds`."""
        if self._sorted is None:
            for at in self._stale:
                self._lines[at] = line_of(at, list(self._told[at].values()))
            self._stale.clear()
            self._sorted = [self._lines[at] for at in sorted(self._lines)]
        return self._sorted

    @property
    def round(self) -> int:
        """The newest round that anything was told of."""
        return max(self._told, default=0)

    # -- links

    def links_now(self) -> list[Link]:
        """Every link as it was last told."""
        for cell, (round, text) in list(self._links_text.items()):
            del self._links_text[cell]
            self.links = {pair: link for pair, link in self.links.items() if link.cell != cell}
            for link in links_of(text, round, cell):
                self._link(link)
        return list(self.links.values())

    def links_total(self) -> int:
        """How many links there are, also of those that are not told word by word."""
        return max(sum(self.links_counted.values()), len(self.links_now()))

    def _links(self, row: Row) -> None:
        if row.cell in self.links_counted or len(self.links_counted) < MOST_NODES:
            count = _number(row, "links") or 0.0
            self.links_counted[row.cell] = int(count) if 0 <= count < _MOST_MICRO else 0
        if "table" in row.values:
            # Only the newest of a cell counts, and only when somebody looks.
            self._links_text[row.cell] = (row.round, str(row.values["table"]))

    def _link(self, link: Link) -> None:
        pair = (link.cell, link.sender, link.receiver)
        if pair in self.links or len(self.links) < MOST_NODES:
            self.links[pair] = link

    # -- cells

    def _cell(self, row: Row) -> None:
        cell = self.cells.get(row.cell)
        if cell is None:
            if len(self.cells) >= MOST_NODES:
                return
            cell = self.cells[row.cell] = CellState(row.cell)
        cell.last_round = max(cell.last_round, row.round)
        if row.kind == "traffic":
            cell.carried(row)
            cell.eligible = _number(row, "eligible", cell.eligible)
            cell.chosen = _number(row, "chosen", cell.chosen)
        elif row.kind == "train":
            cell.asked.add(row.round)
            if _number(row, "num-examples") != 0:
                cell.rounds.add(row.round)
            cell.examples = _number(row, "num-examples", cell.examples)
            cell.sampled = _number(row, "nodes_sampled", cell.sampled)
            cell.replied = _number(row, "nodes_replied", cell.replied)
        if row.kind in ("train", "evaluate", "central"):
            score = line_of(row.round, [Row("evaluate", row.round, row.values)])
            cell.accuracy = cell.accuracy if score.accuracy is None else score.accuracy
            cell.loss = cell.loss if score.loss is None else score.loss

    def attendance(self) -> list[Attendance]:
        """In how many rounds each edge counted, of those in which it was asked."""
        return [
            Attendance(cell.cell, len(cell.asked), len(cell.rounds), cell.why_skipped)
            for cell in self.cells.values()
            if cell.asked
        ]

    # -- events

    def _event(self, row: Row) -> None:
        event = happening_of(row)
        self.events.append(event)
        what = event.what
        if what:
            self.event_counts[
                what if what in self.event_counts or len(self.event_counts) < MOST_KINDS else "other"
            ] += 1
        if what == SKIPPED and (cell := self.cells.get(row.cell)) is not None:
            cell.why_skipped = reason(row)
        where = row.cell if row.edge_round else ""
        if what == "refused":
            code = str(row.values.get("code", ""))
            known = code in self.refused_by_code or len(self.refused_by_code) < MOST_KINDS
            self.refused_by_code[code if known else "other"] += 1
            one = _kept(self.refused, (row.node, where, code), Refusals)
            if one is not None:
                one.times += 1
                one.first = one.first or row.round
                one.last = row.round
                one.why = one.why or event.text.partition(f"refused ({code}): ")[2] or event.text
        elif what == "rewarded":
            micro = row.values.get("micro", 0)
            micro = int(micro) if isinstance(micro, int | float) and abs(micro) < _MOST_MICRO else 0
            self.paid_micro += micro
            payments = _kept(self.paid, (row.node, where), Payments)
            if payments is not None:
                payments.times += micro > 0
                payments.micro += micro
        elif (
            row.node
            and what in ("entered", "handed-over", "left")
            and (row.node in self.attached or len(self.attached) < MOST_NODES)
        ):
            self.attached[row.node] = "" if what == "left" else row.cell


_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


def _kept(table: dict[_Key, _Value], key: _Key, make: Callable[[], _Value]) -> _Value | None:
    found = table.get(key)
    if found is None and len(table) < MOST_NODES:
        found = table[key] = make()
    return found


def _number(row: Row, name: str, otherwise: float | None = None) -> float | None:
    value = row.number(name)
    return otherwise if value is None else value
