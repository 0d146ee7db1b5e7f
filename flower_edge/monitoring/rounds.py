"""What the metric rows of a run say, one line per round: for tables, charts and the live view.

Reads rows, draws nothing. Where rows of several scopes tell the same number, the widest scope is believed: a row of
the whole federation over rows of cells, rows of cells over rows of nodes. A row told again (same kind, round, cell,
node and edge round) replaces the one before, so a round that was taken up again counts once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from ..store.metrics import Row
from ..store.run_folder import RunFolder

__all__ = [
    "ACCURACY",
    "LOSS",
    "CellLine",
    "RoundLine",
    "cells_of",
    "latest",
    "line_of",
    "round_lines",
    "rounds_of",
    "total",
    "without_table",
]

#: Names a metric goes by: ours, then those of Flower's app templates.
ACCURACY = ("accuracy", "eval_acc", "eval_accuracy")
LOSS = ("loss", "eval_loss")

#: Kinds that a line is made of. Rows of single training steps are not read: there may be very many.
_KINDS = ("central", "evaluate", "traffic", "nodes", "links")


@dataclass(frozen=True)
class RoundLine:
    """One round in the numbers everybody asks for; None where nothing was recorded."""

    round: int
    accuracy: float | None = None
    loss: float | None = None
    up_bits: float | None = None
    down_bits: float | None = None
    nodes_sampled: float | None = None
    nodes_replied: float | None = None
    nodes_failed: float | None = None
    cells_skipped: float | None = None
    #: How far the edges' models were from their mean before the merge, on average and the farthest; κ2.
    divergence: float | None = None
    divergence_max: float | None = None
    edge_rounds: float | None = None
    #: Links between terminals; what a model took over them, on average and the slowest.
    links: float | None = None
    link_mean_s: float | None = None
    link_slowest_s: float | None = None
    #: Seconds since the run began, at the end of this round.
    wall_s: float | None = None
    virtual_s: float | None = None


@dataclass(frozen=True)
class CellLine:
    """One cell over the whole run: how often it took part, and its last numbers."""

    cell: str
    rounds: int
    accuracy: float | None = None
    loss: float | None = None
    examples: float | None = None
    up_bits: float | None = None
    down_bits: float | None = None


def rounds_of(run: RunFolder) -> list[RoundLine]:
    """The lines of a run on disk."""
    return round_lines([without_table(row) for kind in _KINDS for row in run.rows(kind)])


def round_lines(rows: Iterable[Row]) -> list[RoundLine]:
    """One line per round, in order.

    Accuracy and loss are the centre's own where it evaluated, else what the clients evaluated (over cells or nodes:
    the mean weighted by `num-examples`).

    >>> round_lines([Row("central", 2, {"accuracy": 0.5}), Row("traffic", 2, {"up_bits": 640})])[0].up_bits
    640
    """
    by_round: dict[int, dict[tuple[str, str, str, int], Row]] = {}
    for row in rows:
        if row.kind in _KINDS:
            by_round.setdefault(row.round, {})[row.kind, row.cell, row.node, row.edge_round] = row
    return [line_of(at, list(by_round[at].values())) for at in sorted(by_round)]


def cells_of(run: RunFolder) -> list[CellLine]:
    """One line per cell of a run, by name; empty for a run without cells."""
    by_cell: dict[str, list[Row]] = {}
    for kind in ("train", *_KINDS):
        for row in run.rows(kind):
            if row.cell and not row.node:
                by_cell.setdefault(row.cell, []).append(without_table(row))
    return [_cell_line(cell, by_cell[cell]) for cell in sorted(by_cell, key=_natural)]


def latest(lines: Sequence[RoundLine], name: str) -> float | None:
    """The last recorded value of one field, None if there is none.

    >>> latest([RoundLine(1, accuracy=0.5), RoundLine(2)], "accuracy")
    0.5
    """
    return next((value for line in reversed(lines) if (value := getattr(line, name)) is not None), None)


def total(lines: Iterable[RoundLine | CellLine], name: str) -> float | None:
    """The sum of one field over those that have it, None if none has.

    >>> total([RoundLine(1, up_bits=8), RoundLine(2)], "up_bits")
    8
    """
    values = [value for line in lines if (value := getattr(line, name)) is not None]
    return sum(values) if values else None


def line_of(at: int, rows: list[Row]) -> RoundLine:
    """The line of one round, of its rows that count."""
    scores = [[row for row in rows if row.kind == kind] for kind in ("central", "evaluate")]
    counts = {
        name: _sum([row for row in rows if row.kind in ("traffic", "nodes")], name)
        for name in (field.name for field in fields(RoundLine))
        if name.endswith("_bits") or name.startswith(("nodes_", "cells_"))
    }
    # Of the federation alone: distances of single cells do not add up to one.
    whole = [row for row in rows if row.kind == "nodes" and not row.cell and not row.node]
    for name in ("divergence", "divergence_max", "edge_rounds"):
        counts[name] = _first(row.number(name) for row in whole)
    return RoundLine(
        round=at,
        **_of_links([row for row in rows if row.kind == "links"]),
        accuracy=_first(_mean(part, ACCURACY) for part in scores),
        loss=_first(_mean(part, LOSS) for part in scores),
        wall_s=max((row.wall_s for row in rows if row.wall_s is not None), default=None),
        virtual_s=max((row.virtual_s for row in rows if row.virtual_s is not None), default=None),
        **counts,
    )


def _of_links(rows: list[Row]) -> dict[str, float | None]:
    """All cells together."""
    timed = [(row.number("timed"), row.number("mean_s")) for row in rows]
    means = [(times, mean_s) for times, mean_s in timed if times and times > 0 and mean_s is not None]
    weight = sum(times for times, _ in means)
    slowest = [value for row in rows if (value := row.number("slowest_s")) is not None]
    return {
        "links": _sum(rows, "links"),
        "link_mean_s": sum(times * mean_s for times, mean_s in means) / weight if means else None,
        "link_slowest_s": max(slowest, default=None),
    }


def without_table(row: Row) -> Row:
    """A row of links in its few numbers; any other as it is."""
    if row.kind != "links" or "table" not in row.values:
        return row
    return replace(row, values={name: value for name, value in row.values.items() if name != "table"})


def _cell_line(cell: str, rows: list[Row]) -> CellLine:
    newest = sorted(rows, key=lambda row: (row.kind == "evaluate", row.round, row.edge_round), reverse=True)
    # A cell that was skipped is told with no examples.
    trained = [row for row in rows if row.kind == "train" and row.number("num-examples") != 0]
    told = {(row.kind, row.round, row.edge_round): row for row in rows}.values()
    return CellLine(
        cell=cell,
        rounds=len({row.round for row in (trained if any(row.kind == "train" for row in rows) else rows)}),
        accuracy=_first(_number(row, ACCURACY) for row in newest),
        loss=_first(_number(row, (*LOSS, "train_loss")) for row in newest),
        examples=_first(_number(row, ("num-examples",)) for row in newest if row.kind == "train"),
        up_bits=_sum(told, "up_bits"),
        down_bits=_sum(told, "down_bits"),
    )


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """edge-2 comes before edge-10."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))


def _widest(rows: Iterable[Row]) -> list[Row]:
    rows = list(rows)
    return (
        [row for row in rows if not row.cell and not row.node]
        or [row for row in rows if row.cell and not row.node]
        or rows
    )


def _sum(rows: Iterable[Row], name: str) -> float | None:
    values = [
        value for row in _widest(row for row in rows if name in row.values) if (value := row.number(name)) is not None
    ]
    return sum(values) if values else None


def _mean(rows: Iterable[Row], names: Sequence[str]) -> float | None:
    having = _widest(row for row in rows if _number(row, names) is not None)
    weights = [row.number("num-examples") or 0.0 for row in having]
    values = [_number(row, names) or 0.0 for row in having]
    try:
        # Numbers of examples that are none, such as negative ones, weigh nothing.
        if not (all(weight >= 0 for weight in weights) and 0 < math.fsum(weights) < math.inf):
            weights = [1.0] * len(having)
        told = math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights) if having else None
    except (OverflowError, ValueError):  # infinities of both signs, or beyond what a float holds
        told = math.nan
    return told


def _number(row: Row, names: Sequence[str]) -> float | None:
    return _first(row.number(name) for name in names)


def _first(values: Iterable[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)
