"""Charts of a connection over the iterations, as options for ECharts: original against optimised, with what was tried.

    line, dashed     before any compression
    line in steps    the version that is current after each iteration
    circle, cross    an iteration at this connection that was accepted, or rolled back

Colours are the page's own variables, so a chart follows light and dark by itself; circles and crosses differ in shape,
too. Nothing here draws, and nothing needs NiceGUI.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ...runtime.compression.told import ConnectionTold

__all__ = ["bytes_chart", "described", "latency_chart"]

# Scripts of this page, not of anybody else: NiceGUI evaluates options whose name begins with a colon in the browser.
_IN_BYTES: Final = (
    "v => v >= 1e6 ? +(v / 1e6).toPrecision(3) + ' MB' : "
    "v >= 1e3 ? +(v / 1e3).toPrecision(3) + ' kB' : +v.toPrecision(3) + ' B'"
)
_IN_MS: Final = "v => +Number(v).toPrecision(3) + ' ms'"

Pairs = Sequence[tuple[int, float]]


def bytes_chart(one: ConnectionTold) -> dict[str, Any]:
    """Bytes of an inference at this connection, on a scale of powers: what matters is how many times less."""
    now = [(point["iteration"], float(point["size_bytes"])) for point in one["points"]]
    tried = [(point["iteration"], float(point["tried_bytes"]), point["accepted"]) for point in _here(one)]
    before = [(number, float(one["before_bytes"])) for number, _ in now]
    return _chart(before, now, tried, "log", _IN_BYTES)


def latency_chart(one: ConnectionTold) -> dict[str, Any]:
    """Milliseconds of an inference at this connection."""
    now = [(point["iteration"], 1e3 * point["latency_s"]) for point in one["points"]]
    tried = [(point["iteration"], 1e3 * point["latency_s"], point["accepted"]) for point in _here(one)]
    before = [(number, 1e3 * one["before_s"]) for number, _ in now]
    return _chart(before, now, tried, "value", _IN_MS)


def described(one: ConnectionTold) -> str:
    """What the charts of a connection show, for who cannot see them.

    >>> described({"name": "a -> b", "before_bytes": 10, "now_bytes": 5, "points": []})  # type: ignore[typeddict-item]
    'a -> b: from 10 to 5 bytes in 0 iterations, 0 of them accepted here and 0 rolled back; the table has all numbers'
    """
    here = _here(one)
    taken = sum(point["accepted"] for point in here)
    return (
        f"{one['name']}: from {one['before_bytes']} to {one['now_bytes']} bytes in {max(0, len(one['points']) - 1)} "
        f"iterations, {taken} of them accepted here and {len(here) - taken} rolled back; the table has all numbers"
    )


def _here(one: ConnectionTold) -> list[Any]:
    return [point for point in one["points"] if point["here"] and point["iteration"] > 0]


def _chart(
    before: Pairs, now: Pairs, tried: Sequence[tuple[int, float, bool]], scale: str, formatter: str
) -> dict[str, Any]:
    ink, muted, grid = "var(--fe-ink)", "var(--fe-muted)", "var(--fe-line)"
    text = {"color": ink, "fontFamily": "inherit"}
    axis = {"axisLine": {"lineStyle": {"color": grid}}, "nameTextStyle": {"color": muted}}
    lines = [
        {
            "name": "original",
            "type": "line",
            "data": [list(pair) for pair in before],
            "symbol": "none",
            "lineStyle": {"color": "var(--fe-before)", "type": "dashed", "width": 2},
            "itemStyle": {"color": "var(--fe-before)"},
        },
        {
            "name": "optimised",
            "type": "line",
            "step": "end",
            "data": [list(pair) for pair in now],
            # A single point makes no line.
            "symbol": "circle" if len(now) == 1 else "none",
            "lineStyle": {"color": "var(--fe-now)", "width": 3},
            "itemStyle": {"color": "var(--fe-now)"},
        },
    ]
    marks = [
        {
            "name": name,
            "type": "scatter",
            "data": [[number, value] for number, value, accepted in tried if accepted is wanted],
            "symbol": symbol,
            "symbolSize": 11,
            "itemStyle": {"color": colour},
            "z": 5,
        }
        for name, wanted, symbol, colour in (
            ("accepted", True, "circle", "var(--fe-good)"),
            # A cross as a path: ECharts has none of its own.
            (
                "rolled back",
                False,
                "path://M2,0 L5,3 L8,0 L10,2 L7,5 L10,8 L8,10 L5,7 L2,10 L0,8 L3,5 L0,2 Z",
                "var(--fe-bad)",
            ),
        )
    ]
    return {
        "animation": False,
        "textStyle": text,
        "grid": {"left": 8, "right": 20, "top": 14, "bottom": 44, "containLabel": True},
        "legend": {"bottom": 0, "textStyle": text, "icon": None, "itemWidth": 18, "itemGap": 14},
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "backgroundColor": "var(--fe-surface)",
            "borderColor": grid,
            "textStyle": text,
            ":valueFormatter": formatter,
        },
        "xAxis": {
            "type": "value",
            "min": 0,
            "max": max(1, now[-1][0]) if now else 1,
            "minInterval": 1,
            "name": "iteration",
            "nameLocation": "middle",
            "nameGap": 24,
            "splitLine": {"show": False},
            "axisLabel": {"color": muted, "hideOverlap": True},
            **axis,
        },
        "yAxis": {
            "type": scale,
            "splitLine": {"lineStyle": {"color": grid}},
            **axis,
            "axisLabel": {"color": muted, ":formatter": formatter},
        },
        "series": [*lines, *marks],
    }
