"""Who was refused when and why, and who was paid how much: the events `refused` and `rewarded` of a run, as tables.

Reads rows; draws and writes nothing, and decides nothing. There may be very many, so what a page shows is bounded; the
book (`flower-edge rewards`) has the rewards one by one, and is what counts where the two differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from ..store.metrics import Row
from ..store.run_folder import RunFolder

__all__ = ["Standing", "spans", "standing"]

#: Lines of each table.
MOST_LINES: Final = 200
#: Stretches of rounds in one line, and characters of one reason.
MOST_SPANS: Final = 6
MOST_CHARACTERS: Final = 300

_MICRO_PER_CREDIT: Final = 1_000_000


@dataclass(frozen=True)
class Standing:
    """Two tables: lines of replies that were refused, and lines of nodes that were paid; notes on what is left out."""

    refused_head: tuple[str, ...]
    refused: tuple[tuple[str, ...], ...]
    paid_head: tuple[str, ...]
    paid: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def standing(run: RunFolder) -> Standing:
    """What the events of a run say of refusals and rewards; both tables are empty where it had neither."""
    rows = [row for row in run.rows("event") if row.values.get("what") in ("refused", "rewarded")]
    # Where no edge round is told it is the centre's, or the only server's; its events may name the cell they are about.
    top = "centre" if any(row.cell for row in run.rows()) else "server"
    refused = _refused([row for row in rows if row.values["what"] == "refused"], top)
    paid = _paid([row for row in rows if row.values["what"] == "rewarded"], top)
    notes = [
        f"{len(lines) - MOST_LINES:,} more lines of {what}"
        for lines, what in ((refused, "refusals"), (paid, "rewards"))
        if len(lines) > MOST_LINES
    ]
    return Standing(
        ("node", "at", "code", "times", "rounds", "why, the first time"),
        tuple(refused[:MOST_LINES]),
        ("node", "payer", "times paid", "credits"),
        tuple(paid[:MOST_LINES]),
        tuple(notes),
    )


def spans(rounds: Iterable[int], most: int = MOST_SPANS) -> str:
    """Rounds in words, the first stretches of them.

    >>> spans([1, 2, 3, 7])
    '1-3 7'
    """
    numbers = sorted(set(rounds))
    firsts = [number for before, number in pairwise([-2, *numbers]) if number != before + 1]
    lasts = [number for number, after in pairwise([*numbers, -2]) if after != number + 1]
    told = [str(a) if a == b else f"{a}-{b}" for a, b in zip(firsts, lasts, strict=True)]
    return " ".join(told[:most]) + (" …" if len(told) > most else "")


def _refused(rows: list[Row], top: str) -> list[tuple[str, ...]]:
    """By node, where it was refused, and code."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        at = row.cell if row.edge_round else top
        groups.setdefault((row.node, at, str(row.values.get("code", ""))), []).append(row)
    return [
        (
            node,
            at,
            code,
            f"{len(some):,}",
            spans(row.round for row in some),
            _why(str(some[0].values.get("text", "")), code),
        )
        for (node, at, code), some in sorted(groups.items(), key=lambda item: (_order(item[0][0]), item[0][1:]))
    ]


def _paid(rows: list[Row], top: str) -> list[tuple[str, ...]]:
    """By node and payer's place."""
    groups: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        micro = row.values.get("micro", 0)
        if isinstance(micro, int | float):
            groups.setdefault((row.node, row.cell if row.edge_round else top), []).append(int(micro))
    return [
        (node, at, f"{sum(micro > 0 for micro in some):,}", _credits(sum(some)))
        for (node, at), some in sorted(groups.items(), key=lambda item: (_order(item[0][0]), item[0][1]))
    ]


def _why(text: str, code: str) -> str:
    """The reason without what the other columns say.

    >>> _why("a reply of 7: refused (norm): moved 9 times as far", "norm")
    'moved 9 times as far'
    """
    return (text.partition(f"refused ({code}): ")[2] or text)[:MOST_CHARACTERS]


def _credits(micro: int) -> str:
    """Whole micro-credits as credits, exactly.

    >>> _credits(1_250_000), _credits(7)
    ('1.250000', '0.000007')
    """
    return f"{micro // _MICRO_PER_CREDIT:,}.{micro % _MICRO_PER_CREDIT:06}"


def _order(node: str) -> tuple[int, int, str]:
    return (0, int(node), "") if node.isdecimal() else (1, 0, node)
