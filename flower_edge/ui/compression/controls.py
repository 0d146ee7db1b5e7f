"""What a user does to a compression that runs: pause, resume, stop, roll back, automatic on or off, set a link by hand.

Each is one call of the session, made on another thread; what it refuses is said in its own words. A button that would
make no sense now cannot be pressed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from nicegui import ui

from ...errors import EdgeError
from ...fringe.links import Link
from ...runtime.compression.told import Told, VersionTold
from .. import words
from ..markup import paragraph

if TYPE_CHECKING:
    from ...runtime.compression.session_torch import CompressionSession

__all__ = ["Buttons", "Overrides", "Versions", "called"]

Say = Callable[[str], None]
Refresh = Callable[[], Awaitable[None]]

_LOG = logging.getLogger(__name__)


async def called(call: Callable[..., Any], *arguments: Any, say: Say) -> Any:
    """Call the session without making other pages wait.

    Args:
        call: of the session.
        arguments: of the call.
        say: is told in words why it was refused; "" before.

    Returns:
        What it returned; None where it was refused.
    """
    say("")
    try:
        return await asyncio.to_thread(call, *arguments)
    except EdgeError as error:
        say(str(error))
    except Exception as error:
        # Nobody at a browser can do anything with a traceback; who runs the process can.
        _LOG.exception("a call of the control page failed")
        say(f"{type(error).__name__}: {error}; the process that serves this page has the details in its log")
    return None


class Buttons:
    """Pause, resume, stop, and the switch for automatic.

    Args:
        session: that they drive.
        say: where a refusal is said.
        refresh: shows the new state at once.
    """

    def __init__(self, session: CompressionSession, say: Say, refresh: Refresh) -> None:
        self._session, self._say, self._refresh = session, say, refresh
        with ui.element("div").classes("fe-buttons").props('role="group" aria-label="Control"'):
            self._pause = self._button("Pause", session.pause)
            self._resume = self._button("Resume", session.resume)
            self._stop = self._button("Stop", session.stop)
        self._automatic = ui.switch("Automatic", on_change=self._switched)
        self._automatic.tooltip("follows the links: compresses on where one degrades, goes back where it recovers")
        self._on: bool | None = None

    def _button(self, text: str, call: Callable[[], Any]) -> ui.button:
        async def press() -> None:
            await called(call, say=self._say)
            await self._refresh()

        return ui.button(text, on_click=press, color=None).classes("fe-button")

    async def _switched(self, event: Any) -> None:
        # What was told sets the switch, too, and is not to be handed back.
        if bool(event.value) == self._on:
            return
        self._on = bool(event.value)
        await called(self._session.automatic, self._on, say=self._say)
        await self._refresh()

    def show(self, told: Told) -> None:
        """Of this state."""
        phase, all_ = told["phase"], told["total"]
        # Goals that were met may be missed since a link has changed.
        missed = phase in ("goals met", "floor reached") and all_ is not None and not all_["goals_met"]
        self._pause.set_enabled(phase == "running")
        self._resume.set_enabled(phase in ("paused", "stopped") or missed)
        self._stop.set_enabled(phase in ("running", "paused", "preparing"))
        self._on = told["automatic"]
        self._automatic.set_value(told["automatic"])


@dataclass
class _Row:
    """A version on the page: its element, its cells by name, and the button that goes back to it."""

    element: ui.element
    cells: dict[str, ui.html]
    button: ui.button
    said: dict[str, str] = field(default_factory=dict)
    waits: bool = False


class Versions:
    """All versions that were accepted, with a button to go back to each.

    Rows are kept and only what changed is written: latencies change with every look at a link, and a button that is
    drawn anew loses the focus, or the click.

    Args:
        session, say, refresh: as of `Buttons`.
    """

    def __init__(self, session: CompressionSession, say: Say, refresh: Refresh) -> None:
        self._session, self._say, self._refresh = session, say, refresh
        self._place = ui.element("div").classes("fe-tall").props('tabindex="0" role="region" aria-label="Versions"')
        self._rows: dict[tuple[int, str], _Row] | None = None
        self._body: ui.element | None = None
        self._metric = ""

    def show(self, told: Told) -> None:
        """Of this state."""
        versions, metric = told["versions"], told["total"]["metric"] if told["total"] else ""
        known = [(one["number"], one["digest"]) for one in versions]
        if self._rows is None or metric != self._metric or any(key not in known for key in self._rows) or not known:
            self._draw(metric, bool(known))
        assert self._rows is not None
        may = told["phase"] not in ("preparing", "failed")
        for key, one in zip(known, versions, strict=True):
            if key not in self._rows:
                self._rows[key] = self._row(one["number"], one["digest"])
            self._fill(self._rows[key], one, may)

    def _draw(self, metric: str, some: bool) -> None:
        if self._rows is not None and not some and not self._rows:
            return
        self._metric, self._rows = metric, {}
        self._place.clear()
        with self._place:
            if not some:
                text = "After the first submission: every version that was accepted."
                ui.html(paragraph(text, "quiet"), sanitize=False)
                return
            with ui.element("div").classes("fe-scroll"), ui.element("table").classes("fe-table").props('role="table"'):
                ui.html("Versions, the latest first", sanitize=False, tag="caption")
                with ui.element("thead").props('role="rowgroup"'), ui.element("tr").props('role="row"'):
                    for head in ("version", metric, "bytes", "latency", "SHA-256", "go back"):
                        _cell("th", head).props('scope="col" role="columnheader"')
                self._body = ui.element("tbody").props('role="rowgroup"')

    def _row(self, number: int, digest: str) -> _Row:
        async def press() -> None:
            # It may have to wait for the iteration that goes on: once is enough.
            made.waits = True
            made.button.set_enabled(False)
            try:
                await called(self._session.roll_back, number, say=self._say)
            finally:
                made.waits = False
            await self._refresh()

        assert self._body is not None
        with self._body, ui.element("tr").props('role="row"') as row:
            cells = {"version": _cell("th", "").props('scope="row" role="rowheader"')}
            for head in (self._metric, "bytes", "latency"):
                cells[head] = _cell("td", "").props(f'role="cell" data-label="{head}"')
            _cell("td", digest[:10]).props('role="cell" data-label="SHA-256"')
            with ui.element("td").props('role="cell" data-label="go back"'):
                button = ui.button("Roll back", on_click=press, color=None).classes("fe-button fe-small")
                button.props(f'aria-label="Roll back to version {number}"')
        row.move(target_index=0)
        made = _Row(row, cells, button)
        return made

    def _fill(self, row: _Row, one: VersionTold, may: bool) -> None:
        texts = {
            "version": f"{one['number']}{', current' if one['current'] else ''}",
            self._metric: words.score(one["score"], self._metric),
            "bytes": words.size(one["size_bytes"]),
            "latency": words.seconds(one["latency_s"]),
        }
        for name, text in texts.items():
            if row.said.get(name) != text:
                row.cells[name].set_content(escape(text))
        if (row.said.get("version") or "").endswith("current") != one["current"]:
            row.element.props(
                'aria-current="true"' if one["current"] else "", remove="" if one["current"] else "aria-current"
            )
        row.said = texts
        wanted = may and not one["current"] and not row.waits
        if row.button.enabled != wanted:
            row.button.set_enabled(wanted)


def _cell(tag: str, text: str) -> ui.html:
    # Numbers, digests and names of metrics; escaped all the same.
    return ui.html(escape(text), sanitize=False, tag=tag)


class Overrides:
    """Sets a link by hand, instead of what was measured or given, and takes that back.

    Args:
        session, say, refresh: as of `Buttons`.
    """

    def __init__(self, session: CompressionSession, say: Say, refresh: Refresh) -> None:
        self._session, self._say, self._refresh = session, say, refresh
        with ui.element("div").classes("fe-line"):
            self._which = ui.select({}, label="connection").props("outlined dense")
            self._goodput = ui.number("goodput").props('outlined dense suffix="Mbit/s" step="any"')
        with ui.element("div").classes("fe-line"):
            self._delay = ui.number("delay, one way").props('outlined dense suffix="ms" step="any"')
            with ui.element("div").classes("fe-buttons"):
                self._set = ui.button("Set by hand", on_click=self._override, color=None).classes("fe-button")
                self._free = ui.button("Take it back", on_click=self._release, color=None).classes("fe-button")
        self._names: list[str] = []

    def show(self, told: Told) -> None:
        """Of this state."""
        names = [one["name"] for one in told["connections"]]
        if names != self._names:
            self._names = names
            self._which.set_options(dict(enumerate(names)), value=0 if names else None)
        self._set.set_enabled(bool(names))
        which = self._which.value
        overridden = which is not None and which < len(names) and told["connections"][which]["overridden"]
        self._free.set_enabled(bool(overridden))

    async def _override(self) -> None:
        goodput, delay = self._goodput.value, self._delay.value
        if goodput is None or delay is None:
            self._say("a link is set by both: expected a goodput in Mbit/s and a delay in ms")
            return
        try:
            link = Link(1e6 * goodput, 1e-3 * delay)
        except EdgeError as error:
            self._say(str(error))
            return
        await called(self._session.override_link, self._which.value, link, say=self._say)
        await self._refresh()

    async def _release(self) -> None:
        await called(self._session.override_link, self._which.value, None, say=self._say)
        await self._refresh()
