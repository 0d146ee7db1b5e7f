"""The page of all runs, the newest first, and of a server's devices, brought up to date while somebody looks.

Nothing here serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final
from urllib.parse import quote

from nicegui import ui

from ...units import human_s
from .. import words
from ..layout import begin_page, colours, heading, panel
from ..markup import mark, paragraph, text_of
from .device_table import devices_listed
from .run_views import KINDS
from .style import DASHBOARD_STYLE
from .watched import Entry, Watched

__all__ = ["draw_list", "listed"]

#: Seconds between two looks.
_EVERY_S: Final = 2.0
_HEADS: Final = ("run", "status", "started (UTC)", "rounds", "accuracy", "bytes", "refused", "duration")


async def draw_list(watched: Watched) -> None:
    """Draw the page for a browser that has just come.

    Args:
        watched: the runs.
    """
    begin_page("runs", "the runs", DASHBOARD_STYLE)
    with ui.element("header").classes("fe-top"):
        heading("flower-edge: devices and runs" if watched.has_devices else "flower-edge: runs", "h1")
        ui.element("div").classes("fe-spring")
        colours()
    place, devices = str(watched.place), None
    with ui.element("div").classes("fe-board"):
        if watched.has_devices:
            with panel("Devices", "devices"):
                devices = ui.html(devices_listed(await watched.devices()), sanitize=False)
        with panel("Runs", "runs"):
            rows = ui.html(listed(await watched.entries(), place), sanitize=False)

    async def refresh() -> None:
        if devices is not None:
            _show(devices, devices_listed(await watched.devices()))
        _show(rows, listed(await watched.entries(), place))

    ui.timer(_EVERY_S, refresh)


def _show(part: ui.html, content: str) -> None:
    if part.content != content:
        part.set_content(content)


def listed(entries: Sequence[Entry], place: str) -> str:
    """The table of runs; each name leads to the run's page."""
    if not entries:
        return paragraph(
            f"No runs in {place} yet; an app that records its run makes one, as with `flower-edge run APP`, and it "
            "appears here.",
            "quiet",
        )
    head = "".join(f'<th role="columnheader" scope="col">{escape(one)}</th>' for one in _HEADS)
    body = "\n".join(f'<tr role="row">{_row(entry)}</tr>' for entry in entries)
    return (
        f'<div class="fe-scroll"><table class="fe-table" role="table"><caption>{len(entries)} runs of '
        f'{text_of(place)}, the newest first</caption>\n<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{body}\n</tbody></table></div>'
    )


def _row(entry: Entry) -> str:
    link = f'<a href="/run/{quote(entry.folder, safe="")}">{escape(entry.name)}</a>'
    cells = [
        mark(entry.status, KINDS.get(entry.status, "quiet")),
        text_of(entry.started_at[:16].replace("T", " ")),
        words.NONE if entry.rounds is None else str(entry.rounds),
        text_of(words.share(entry.accuracy)),
        text_of(words.size(entry.bytes)),
        words.NONE if entry.refusals is None else str(entry.refusals),
        words.NONE if entry.duration_s is None else text_of(human_s(entry.duration_s)),
    ]
    return f'<th role="rowheader" scope="row">{link}</th>' + "".join(
        f'<td role="cell" data-label="{escape(name)}">{cell}</td>' for name, cell in zip(_HEADS[1:], cells, strict=True)
    )
