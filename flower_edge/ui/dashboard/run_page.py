"""The page of one run: drawn for each browser, and brought up to date every second while the run goes on.

All that it shows is what the run's folder tells. Nothing here serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, Final

from nicegui import ui

from ...errors import EdgeError
from ...monitoring.follower import RunFollower
from ...monitoring.run_state import RunState
from ..layout import alert, begin_page, colours, folded, heading, panel, tall
from ..markup import paragraph
from . import run_views, tier_map
from .curves import Curve, curves_of, options, rounds_table
from .style import DASHBOARD_STYLE
from .watched import Watched

__all__ = ["RunView", "draw_missing", "draw_run"]

#: Seconds between two looks at a run.
_EVERY_S: Final = 1.0


async def draw_run(watched: Watched, name: str, *, may_stop: bool, alone: bool) -> RunView:
    """Draw the page for a browser that has just come.

    Args:
        watched: the runs.
        name: folder of the one that is shown.
        may_stop: whether it may be asked to stop from here.
        alone: whether there is no list of runs to go back to.
    """
    return RunView(watched, name, await watched.seen(name, _Drawn.of), may_stop=may_stop, alone=alone)


def draw_missing(name: str) -> None:
    """A page for a run that is not there."""
    begin_page("missing", "what is missing", DASHBOARD_STYLE)
    with ui.element("div").classes("fe-board"), panel("No such run", "missing"):
        ui.html(paragraph(f"There is no run folder {name!r} here."), sanitize=False)
        ui.html('<p><a href="/">All runs</a></p>', sanitize=False)
    ui.html("No such run", sanitize=False, tag="h1").classes("fe-hidden")


@dataclass(frozen=True)
class _Drawn:
    """A run as HTML and charts: made away from the thread that answers browsers."""

    name: str
    running: bool
    parts: dict[str, str]
    curves: list[Curve]

    @staticmethod
    def of(follower: RunFollower, state: RunState) -> _Drawn:
        parts = {
            "status": run_views.status_mark(follower),
            "sentence": run_views.status_sentence(follower, state),
            "figures": run_views.figures(follower, state),
            "map": tier_map.tier_map(state),
            "map_table": tier_map.tier_table(state),
            "rounds": rounds_table(state.lines),
            "selection": run_views.selection(state),
            "links": run_views.links(state),
            "refusals": run_views.refusals(state),
            "rewards": run_views.rewards(state),
            "events": run_views.events(state),
            "facts": run_views.facts(follower),
        }
        return _Drawn(follower.name, follower.status == "running", parts, curves_of(state.lines))


class RunView:
    """One browser's page of a run. Made by `draw_run`."""

    def __init__(self, watched: Watched, name: str, drawn: _Drawn, *, may_stop: bool, alone: bool) -> None:
        self._watched, self._name = watched, name
        self._parts: dict[str, ui.html] = {}
        self._content: dict[str, str] = {}
        self._curves: dict[str, tuple[ui.element, ui.echart]] = {}
        self._drawn_curves: dict[str, Curve] = {}
        self._stop: ui.button | None = None
        ui.page_title(f"{drawn.name}: flower-edge")
        begin_page("figures", "the run's figures", DASHBOARD_STYLE)
        self._top(drawn.name, may_stop=may_stop, alone=alone)
        with ui.element("div").classes("fe-board"):
            self._panels()
        self._show(drawn)
        ui.timer(_EVERY_S, self.refresh)

    def _top(self, title: str, *, may_stop: bool, alone: bool) -> None:
        with ui.element("header").classes("fe-top"):
            if not alone:
                ui.html('<a href="/">All runs</a>', sanitize=False)
            heading(title, "h1")
            self._part("status")
            ui.element("div").classes("fe-spring")
            if may_stop:
                self._stop = ui.button("Stop after this round", on_click=self._ask, color=None).classes("fe-button")
            colours()
            with ui.element("div").style("width: 100%"):
                self._part("sentence").classes("fe-status").props('role="status" aria-live="polite"')
                self._said = alert()

    def _panels(self) -> None:
        with panel("Now", "figures"):
            self._part("figures")
        with ui.element("div").classes("fe-uneven"):
            with ui.element("div").classes("fe-rest"), panel("Map", "map"):
                self._part("map")
                with folded("Edges as a table") as self._edges:
                    self._part("map_table")
            with ui.element("div").classes("fe-rest"):
                with panel("Rounds", "rounds"):
                    self._charts = ui.element("div").classes("fe-charts")
                    self._empty = ui.html(paragraph("No round was recorded yet.", "quiet"), sanitize=False)
                    with folded("Rounds as a table"), tall("rounds"):
                        self._part("rounds")
                with panel("Selection", "selection"):
                    self._part("selection").classes("fe-nowrap")
        with panel("Links", "links"), tall("links"):
            self._part("links")
        with ui.element("div").classes("fe-two"):
            with panel("Refusals", "refusals"), tall("refusals"):
                self._part("refusals").classes("fe-nowrap")
            with panel("Rewards", "rewards"), tall("rewards"):
                self._part("rewards")
        with panel("Events", "events"), tall("events"):
            self._part("events").classes("fe-nowrap")
        with panel("What was asked for", "facts"), folded("Config and versions"):
            self._part("facts")

    def _part(self, name: str) -> ui.html:
        self._parts[name] = ui.html("", sanitize=False)
        return self._parts[name]

    async def refresh(self) -> None:
        """Show what the run's folder tells now."""
        self._show(await self._watched.seen(self._name, _Drawn.of))

    def _show(self, drawn: _Drawn) -> None:
        for name, content in drawn.parts.items():
            # Only what changed goes over the wire, and only that loses a selection.
            if self._content.get(name) != content:
                self._content[name] = content
                self._parts[name].set_content(content)
        for curve in drawn.curves:
            if self._drawn_curves.get(curve.name) != curve:
                self._drawn_curves[curve.name] = curve
                self._draw(curve)
        self._empty.set_visibility(not drawn.curves)
        self._edges.set_visibility(bool(drawn.parts["map_table"]))
        if self._stop is not None:
            self._stop.set_enabled(drawn.running)

    def _draw(self, curve: Curve) -> None:
        if curve.name not in self._curves:
            with self._charts, ui.element("figure").style("margin: 0; min-width: 0") as figure:
                ui.html(escape(curve.title), sanitize=False, tag="figcaption").classes("fe-quiet")
                chart = ui.echart({}, renderer="svg").classes("fe-curve").props('role="img"')
            self._curves[curve.name] = (figure, chart)
        _, chart = self._curves[curve.name]
        made: dict[str, Any] = options(curve)
        chart.options.clear()
        chart.options.update(made)
        said = curve.says().replace('"', "'").replace("\\", "/")
        chart.props(f'aria-label="{said}"')
        chart.update()

    async def _ask(self) -> None:
        self._said.set_content("")
        try:
            await self._watched.ask_to_stop(self._name, "by the dashboard")
        except EdgeError as error:
            self._said.set_content(paragraph(str(error), "bad"))
        await self.refresh()
