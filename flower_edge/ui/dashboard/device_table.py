"""Devices of a server as a table: who has joined, who is there, who is out. Nothing here serves or asks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from ...units import human_s
from .. import words
from ..markup import mark, paragraph, text_of

__all__ = ["DeviceLine", "devices_listed"]

#: Rows that are shown; those behind them are counted.
MOST_SHOWN: Final = 200
_JUST_NOW_S: Final = 5.0
_HEADS: Final = ("device", "state", "last seen", "node id", "since (UTC)")
_KINDS: Final = {"online": "good", "away": "warn", "pending": "quiet", "removed": "quiet"}


@dataclass(frozen=True)
class DeviceLine:
    """A device as a page shows it.

    Attributes:
        name: what it calls itself.
        node_id: Flower's; None where it has none yet.
        state: `pending`, `joined` or `removed`.
        since_s: when it came into this state, seconds since 1970.
        seen_s_ago: when it was heard last; None: not since the server was started, or it has said good-bye.
        online: whether that is a short time.
    """

    name: str
    node_id: int | None
    state: str
    since_s: float
    seen_s_ago: float | None
    online: bool

    @property
    def shown_state(self) -> str:
        """In a word: of one that has joined, whether it is there."""
        if self.state == "joined":
            return "online" if self.online else "away"
        return self.state


def devices_listed(lines: Sequence[DeviceLine]) -> str:
    """The table of devices, with how many there are above it."""
    if not lines:
        return paragraph("No device has joined yet; `flower-edge devices invite` makes a join line.", "quiet")
    shown = [line.shown_state for line in lines]
    told = ", ".join(f"{shown.count(state)} {state}" for state in _KINDS if state in shown)
    rest = f"; the first {MOST_SHOWN} are shown" if len(lines) > MOST_SHOWN else ""
    head = "".join(f'<th role="columnheader" scope="col">{escape(one)}</th>' for one in _HEADS)
    body = "\n".join(f'<tr role="row">{_row(line)}</tr>' for line in lines[:MOST_SHOWN])
    return (
        f'<div class="fe-scroll"><table class="fe-table" role="table"><caption>{text_of(told)}{rest}</caption>\n'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n<tbody role="rowgroup">\n{body}\n</tbody></table>'
        "</div>"
    )


def _row(line: DeviceLine) -> str:
    state = line.shown_state
    seen = words.NONE if line.seen_s_ago is None else _ago(line.seen_s_ago)
    cells = [
        mark(state, _KINDS.get(state, "quiet")),
        text_of(seen),
        words.NONE if line.node_id is None else str(line.node_id),
        time.strftime("%Y-%m-%d %H:%M", time.gmtime(line.since_s)),
    ]
    return f'<th role="rowheader" scope="row">{escape(line.name)}</th>' + "".join(
        f'<td role="cell" data-label="{escape(name)}">{cell}</td>' for name, cell in zip(_HEADS[1:], cells, strict=True)
    )


def _ago(seconds: float) -> str:
    # A node asks for messages every few seconds: which of them it is, is no news.
    return "just now" if seconds < _JUST_NOW_S else f"{human_s(round(seconds))} ago"
