"""Curves of a run over its rounds, as options for ECharts, and the same as a table.

A curve of thousands of rounds is thinned out to what a screen can show; the least and the most of each stretch stay,
so that no spike is lost. Colours are the page's own variables, so a chart follows light and dark by itself; lines
differ in their dashes, too. Nothing here draws, and nothing needs NiceGUI.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from ...monitoring.rounds import RoundLine
from .. import words
from ..markup import table

__all__ = ["Curve", "curves_of", "options", "rounds_table", "thin"]

#: Points of a curve that are drawn.
MOST_POINTS: Final = 400
#: Rounds that the table shows, the latest ones.
MOST_ROWS: Final = 200

# Scripts of this page, not of anybody else: NiceGUI evaluates options whose name begins with a colon in the browser.
_IN_BYTES: Final = (
    "v => v == null ? '-' : v >= 1e9 ? +(v / 1e9).toPrecision(3) + ' GB' : v >= 1e6 ? +(v / 1e6).toPrecision(3) + ' MB'"
    " : v >= 1e3 ? +(v / 1e3).toPrecision(3) + ' kB' : +v.toPrecision(3) + ' B'"
)
_IN_S: Final = (
    "v => v == null ? '-' : v >= 7200 ? +(v / 3600).toPrecision(3) + ' h' : v >= 120 ? +(v / 60).toPrecision(3)"
    " + ' min' : v >= 1 ? +v.toPrecision(3) + ' s' : +(v * 1e3).toPrecision(3) + ' ms'"
)
_IN_SHARE: Final = "v => v == null ? '-' : +(v * 100).toPrecision(4) + ' %'"
_PLAIN: Final = "v => v == null ? '-' : +Number(v).toPrecision(4) + ''"

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One picture: its title, its lines by name, how its numbers are written, whether its axis begins at 0."""

    name: str
    title: str
    lines: tuple[tuple[str, Points], ...]
    formatter: str
    from_zero: bool = True

    def says(self) -> str:
        """What it shows, for who cannot see it."""
        told = [
            f"{name} from {points[0][1]:.4g} in round {points[0][0]:g} to {points[-1][1]:.4g} in {points[-1][0]:g}"
            for name, points in self.lines
            if points
        ]
        return f"{self.title}: {'; '.join(told)}; the table has all numbers"


def curves_of(lines: Sequence[RoundLine]) -> list[Curve]:
    """The pictures of a run; one without a number is left out."""
    ends = [(line.round, line.wall_s) for line in lines if line.wall_s is not None]
    took = [(float(at), max(0.0, end - start)) for (_, start), (at, end) in pairwise([(0, 0.0), *ends]) if at > 0]
    share = all(0.0 <= line.accuracy <= 1.0 for line in lines if line.accuracy is not None)
    scores = _IN_SHARE if share else _PLAIN
    all_ = [
        Curve("accuracy", "accuracy", (("accuracy", _points(lines, "accuracy")),), scores, False),
        Curve("loss", "loss", (("loss", _points(lines, "loss")),), _PLAIN, False),
        Curve(
            "bytes",
            "bytes of a round",
            (("up", _points(lines, "up_bits", 1 / 8)), ("down", _points(lines, "down_bits", 1 / 8))),
            _IN_BYTES,
        ),
        Curve(
            "terminals",
            "terminals",
            (
                ("replied", _points(lines, "nodes_replied")),
                ("sampled", _points(lines, "nodes_sampled")),
                ("failed", _points(lines, "nodes_failed")),
            ),
            _PLAIN,
        ),
        Curve("seconds", "wall-clock time of a round", (("time", took),), _IN_S),
        Curve("divergence", "how far the edges' models were apart", (("mean", _points(lines, "divergence")),
              ("farthest edge", _points(lines, "divergence_max"))), _PLAIN),
    ]  # fmt: skip
    return [curve for curve in all_ if any(points for _, points in curve.lines)]


def _points(lines: Sequence[RoundLine], field: str, times: float = 1.0) -> Points:
    # NaN and infinity have no place on an axis.
    return [
        (float(line.round), value * times)
        for line in lines
        if (value := getattr(line, field)) is not None and abs(value) < float("inf")
    ]


def thin(points: Points, most: int = MOST_POINTS) -> Points:
    """At most about `most` of them: the first and the last, and of each stretch the least and the most, in order.

    >>> thin([(float(n), float(n == 500)) for n in range(1000)], 10)[:4]
    [(0.0, 0.0), (1.0, 0.0), (250.0, 0.0), (500.0, 1.0)]
    """
    if len(points) <= most:
        return points
    inner, stretches = points[1:-1], max(1, (most - 2) // 2)
    width = len(inner) / stretches
    kept = [points[0]]
    for number in range(stretches):
        part = inner[int(number * width) : int((number + 1) * width)]
        if part:
            ends = {min(part, key=lambda pair: pair[1]), max(part, key=lambda pair: pair[1])}
            kept += sorted(ends)
    return [*kept, points[-1]]


_LOOKS: Final = (
    ("var(--fe-now)", "solid", "circle"),
    ("var(--fe-before)", "dashed", "diamond"),
    ("var(--fe-bad)", "dotted", "triangle"),
)


def options(curve: Curve) -> dict[str, Any]:
    """Of a chart."""
    ink, muted, grid = "var(--fe-ink)", "var(--fe-muted)", "var(--fe-line)"
    text = {"color": ink, "fontFamily": "inherit"}
    axis = {"axisLine": {"lineStyle": {"color": grid}}, "nameTextStyle": {"color": muted}}
    series = [
        {
            "name": name,
            "type": "line",
            "data": [[at, float(f"{value:.6g}")] for at, value in thin(points)],
            "symbol": symbol if len(points) < 40 else "none",
            "symbolSize": 6,
            "lineStyle": {"color": colour, "type": dash, "width": 2.5},
            "itemStyle": {"color": colour},
        }
        for (name, points), (colour, dash, symbol) in zip(curve.lines, _LOOKS, strict=False)
        if points
    ]
    last = max((points[-1][0] for _, points in curve.lines if points), default=1.0)
    return {
        "animation": False,
        "textStyle": text,
        "grid": {"left": 8, "right": 20, "top": 14, "bottom": 44 if len(series) > 1 else 26, "containLabel": True},
        "legend": {"show": len(series) > 1, "bottom": 0, "textStyle": text, "itemWidth": 26, "itemGap": 14},
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "backgroundColor": "var(--fe-surface)",
            "borderColor": grid,
            "textStyle": text,
            ":valueFormatter": curve.formatter,
        },
        "xAxis": {
            "type": "value",
            "min": "dataMin",
            "max": max(1.0, last),
            "minInterval": 1,
            "splitLine": {"show": False},
            "axisLabel": {"color": muted, "hideOverlap": True},
            **axis,
        },
        "yAxis": {
            "type": "value",
            "scale": not curve.from_zero,
            "splitNumber": 4,
            "splitLine": {"lineStyle": {"color": grid}},
            **axis,
            "axisLabel": {"color": muted, ":formatter": curve.formatter},
        },
        "series": series,
    }


def rounds_table(lines: Sequence[RoundLine]) -> str:
    """The rounds in numbers, the latest first."""
    ends: list[float | None] = [0.0, *(line.wall_s for line in lines)]
    took = [None if a is None or b is None else max(0.0, b - a) for a, b in pairwise(ends)]
    rows = [
        (
            str(line.round),
            words.share(line.accuracy)
            if line.accuracy is not None and 0 <= line.accuracy <= 1
            else _told(line.accuracy),
            _told(line.loss),
            words.size(None if line.up_bits is None else line.up_bits / 8),
            words.size(None if line.down_bits is None else line.down_bits / 8),
            _of(line),
            words.seconds(seconds),
        )
        for line, seconds in list(zip(lines, took, strict=True))[-MOST_ROWS:][::-1]
    ]
    heads = ["round", "accuracy", "loss", "up", "down", "terminals", "time"]
    more = f" of {len(lines)}" if len(lines) > MOST_ROWS else ""
    return table(f"The latest {len(rows)}{more} rounds, the latest first", heads, rows)


def _told(value: float | None) -> str:
    return words.NONE if value is None else f"{value:.4g}"


def _of(line: RoundLine) -> str:
    if line.nodes_sampled is None:
        return words.NONE
    replied = words.NONE if line.nodes_replied is None else f"{line.nodes_replied:g}"
    return f"{replied} of {line.nodes_sampled:g}"
