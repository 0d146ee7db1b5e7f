"""`ConnectionPanels`: for each connection two charts, of bytes and of latency, and the same as a table.

Options of the charts are made in `charts`. Nothing here computes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from html import escape
from typing import Any, Final

from nicegui import ui

from ...runtime.compression.told import ConnectionTold
from ..markup import paragraph
from . import charts, views

__all__ = ["ConnectionPanels"]

#: Seconds between two drawings of latencies, where nothing happened but that a link was measured again.
_AGAIN_S: Final = 5.0


class ConnectionPanels:
    """Made inside the element that it is to stand in."""

    def __init__(self) -> None:
        self._place = ui.element("div").style("width: 100%")
        self._names: list[str] | None = None
        self._drawn: list[tuple[ui.echart, ui.echart, ui.html]] = []
        self._points: list[Any] = []
        self._at_s: list[float] = []
        self._before_s: list[float] = []

    def show(self, connections: Sequence[ConnectionTold]) -> None:
        """Of this state: drawn anew where the connections are others, else only those that have something new."""
        names = [one["name"] for one in connections]
        if names != self._names:
            self._names = names
            self._points, self._before_s = [None] * len(names), [math.nan] * len(names)
            self._at_s = [-math.inf] * len(names)
            self._place.clear()
            with self._place:
                self._drawn = [_panel(name) for name in names]
                if not names:
                    nothing = "After the first submission: curves over the iterations, for each connection."
                    ui.html(paragraph(nothing, "quiet"), sanitize=False)
        for number, one in enumerate(connections):
            self._draw(number, one)

    def _draw(self, number: int, one: ConnectionTold) -> None:
        sizes, latencies, rows = self._drawn[number]
        points = [{**point, "latency_s": 0.0} for point in one["points"]]
        new, now_s = points != self._points[number], time.monotonic()
        # Latencies are those of the link as it is now: each look at a link moves all of them a little.
        if not new and (now_s - self._at_s[number] < _AGAIN_S or one["before_s"] == self._before_s[number]):
            return
        self._points[number], self._at_s[number], self._before_s[number] = points, now_s, one["before_s"]
        if new:
            _redraw(sizes, charts.bytes_chart(one), f"bytes, {charts.described(one)}")
        _redraw(latencies, charts.latency_chart(one), f"latency, {charts.described(one)}")
        rows.set_content(views.points(one))


def _redraw(chart: ui.echart, options: dict[str, Any], said: str) -> None:
    chart.options.clear()
    chart.options.update(options)
    chart.props(f'aria-label="{_quoted(said)}"')
    chart.update()


def _panel(name: str) -> tuple[ui.echart, ui.echart, ui.html]:
    ui.html(escape(name), sanitize=False, tag="h3")
    drawn = []
    with ui.element("div").classes("fe-two"):
        for title in ("bytes of an inference", "latency of the link"):
            with ui.element("figure").style("margin: 0; min-width: 0"):
                ui.html(title, sanitize=False, tag="figcaption").classes("fe-quiet")
                drawn.append(ui.echart({}, renderer="svg").classes("fe-chart").props('role="img"'))
    with ui.element("details"):
        ui.html(f"The charts of {escape(name)} as a table", sanitize=False, tag="summary")
        rows = ui.html("", sanitize=False)
    return drawn[0], drawn[1], rows


def _quoted(text: str) -> str:
    return text.replace("\\", "/").replace('"', "'")
