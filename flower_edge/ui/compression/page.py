"""`ControlPage`'s page itself: one look at a session, drawn for each browser, and brought up to date every second.

All that it shows is what the session tells; but for what stands in the form it keeps nothing. Nothing here serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nicegui import ui

from ...runtime.compression.settings import CompressionSettings
from ...runtime.compression.told import Told
from ..layout import alert, begin_page, colours, folded, heading, panel, tall
from ..markup import paragraph
from . import machine_views, views
from .connection_panels import ConnectionPanels
from .controls import Buttons, Overrides, Versions, called
from .form import Form
from .form_values import FormValues
from .watch import Watch

if TYPE_CHECKING:
    from ...runtime.compression.session_torch import CompressionSession

__all__ = ["ControlView", "draw"]

#: Seconds between two looks at the session.
_EVERY_S: Final = 1.0


async def draw(session: CompressionSession, watch: Watch) -> ControlView:
    """Draw the page for a browser that has just come.

    Args:
        session: that it shows and drives.
        watch: reads the session for all pages.
    """
    return ControlView(session, watch, await watch.told())


class ControlView:
    """One browser's page. Made by `draw`.

    Args:
        session, watch: as of `draw`.
        told: what the session tells now.
    """

    def __init__(self, session: CompressionSession, watch: Watch, told: Told) -> None:
        self._session, self._watch = session, watch
        self._parts: dict[str, ui.html] = {}
        self._content: dict[str, str] = {}
        self._folds: list[ui.element] = []
        begin_page("state", "the state")
        self._top(told)
        with ui.element("main").classes("fe-main"):
            with ui.element("div").classes("fe-side"), panel("What to reach", "settings"):
                known = told["known"]
                values = FormValues.of(known, told["settings"])
                self.form = Form(values, told["task"].get("units", ()), watch.proposed, self._submit)
            with ui.element("div").classes("fe-rest"):
                self._results(told)
        self._show(told)
        ui.timer(_EVERY_S, self.refresh)

    def _top(self, told: Told) -> None:
        with ui.element("header").classes("fe-top"):
            name = told["task"].get("name", "")
            heading(f"Fringe compression{f': {name}' if name else ''}", "h1")
            self._part("phase")
            ui.element("div").classes("fe-spring")
            self._buttons = Buttons(self._session, self._say, self.refresh)
            colours()
            with ui.element("div").style("width: 100%"):
                self._part("status").classes("fe-status").props('role="status" aria-live="polite"')
                self._said = alert()

    def _results(self, told: Told) -> None:
        with panel("The whole pipeline", "state"):
            self._part("total")
            self._folded("The same as a table", "total_table")
        with ui.element("div").classes("fe-two"):
            with panel("Frozen layers", "frozen"):
                self._part("frozen")
            with panel("Requests", "requests"):
                self._part("requests")
        with panel("Connections", "connections"):
            self._connections = ConnectionPanels()
            self._part("connections")
        with panel("Bandwidth", "bandwidth"):
            self._part("bandwidth")
            self._folded("The bars as a table", "bandwidth_table")
        with panel("Machines", "machines"):
            self._part("machines")
            self._folded("Layers of each machine", "layers")
        with panel("Links", "links"):
            self._part("links")
            heading("Set a link by hand", "h3")
            self._overrides = Overrides(self._session, self._say_link, self.refresh)
            self._said_link = alert()
        with panel("Versions", "versions"):
            self._versions = Versions(self._session, self._say, self.refresh)
        with panel("History", "history"):
            with folded("Iterations"), tall("iterations"):
                self._part("iterations")
            with folded("Events").props("open"), tall("events"):
                self._part("events")
            ui.html(
                '<p>Export: <a href="/export/iterations.csv" download>iterations as CSV</a>, '
                '<a href="/export/session.json" download>everything as JSON</a></p>',
                sanitize=False,
            )

    def _folded(self, title: str, name: str) -> None:
        with folded(title) as made:
            self._part(name)
        self._folds.append(made)

    def _part(self, name: str) -> ui.html:
        self._parts[name] = ui.html("", sanitize=False)
        return self._parts[name]

    async def refresh(self) -> None:
        """Show what the session tells now."""
        self._show(await self._watch.told())

    def _show(self, told: Told) -> None:
        drawn = {
            "phase": views.phase_mark(told),
            "status": views.status(told, self.form.said),
            "total": views.total(told["total"]),
            "total_table": views.total_table(told["total"]),
            "frozen": views.frozen(told["frozen"]),
            "requests": views.requests(told["requests"], told["phase"] not in ("idle", "preparing")),
            "bandwidth": machine_views.bandwidth(told["machines"], told["connections"]),
            "bandwidth_table": machine_views.bandwidth_table(told["machines"], told["connections"]),
            "machines": machine_views.cards(told["machines"], told["connections"]),
            "layers": machine_views.layers(told["machines"]),
            "links": views.links(told["connections"]),
            "connections": views.connections(told["connections"]),
            "iterations": views.iterations(told),
            "events": views.events(told["events"]),
        }
        for name, content in drawn.items():
            # Only what changed goes over the wire, and only that loses a selection.
            if self._content.get(name) != content:
                self._content[name] = content
                self._parts[name].set_content(content)
        for one in self._folds:
            one.set_visibility(bool(told["connections"]))
        self._connections.show(told["connections"])
        self._versions.show(told)
        self._buttons.show(told)
        self._overrides.show(told)

    async def _submit(self, settings: CompressionSettings) -> None:
        self.form.button.set_enabled(False)
        try:
            await called(self._session.submit, settings, say=self.form.refuse)
            self._show(await self._watch.told(fresh=True))
        finally:
            self.form.button.set_enabled(True)

    def _say(self, message: str) -> None:
        self._said.set_content(paragraph(message, "bad") if message else "")

    def _say_link(self, message: str) -> None:
        self._said_link.set_content(paragraph(message, "bad") if message else "")
