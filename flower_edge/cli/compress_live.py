"""A compression while it runs: a table that grows on a terminal, a line per event anywhere else; and Ctrl-C.

The first Ctrl-C stops after the iteration that goes on, so that what was kept is whole; a second one ends at once.
Reads what a session tells, and stops it. Nothing here compresses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from ..errors import EdgeError
from .columns import seconds
from .compress_table import ITERATION, iteration_cells

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ..runtime.compression.told import Event, Phase, Told

__all__ = ["BUSY", "Watched", "Watcher"]

#: While it is in one of these, it goes on by itself.
BUSY: Final = ("preparing", "running", "paused")
#: Rows of the table on a terminal, and sentences below it.
_ROWS, _SENTENCES = 12, 4


class Watched(Protocol):
    """What is needed of a session."""

    def told(self) -> Told:
        """All of it."""
        ...

    def stop(self) -> None:
        """After the iteration that goes on, end."""
        ...


class Watcher:
    """Shows a session until it ends.

    Args:
        session: see `Watched`.
        console: where it is shown; None: nowhere.
        stay: go on watching when goals are met, or the floor reached, until Ctrl-C.
        poll_s: seconds between two looks.
        served: is called once, when the first version is there to be asked.

    Attributes:
        interrupted: whether Ctrl-C came.
    """

    def __init__(
        self,
        session: Watched,
        console: Console | None,
        *,
        stay: bool = False,
        poll_s: float = 0.25,
        served: Callable[[], None] | None = None,
    ) -> None:
        self._served = served
        self._session, self._console, self._stay, self._poll_s = session, console, stay, poll_s
        self._last: Event | None = None
        self.interrupted = False

    def watch(self) -> Phase:
        """Until it has ended; returns how.

        Raises:
            KeyboardInterrupt: a second Ctrl-C.
        """
        if self._console is None or not self._console.is_terminal:
            return self._until_ended(self._print)
        from rich.live import Live

        with Live(console=self._console, auto_refresh=False) as live:
            return self._until_ended(lambda told: live.update(self._picture(told), refresh=True))

    def _until_ended(self, show: Callable[[Told], None]) -> Phase:
        while True:
            try:
                told = self._session.told()
                show(told)
                if self._served is not None and told["total"] is not None:
                    served, self._served = self._served, None
                    served()
                over = told["phase"] not in BUSY and (told["phase"] == "failed" or not self._stay or self.interrupted)
                if over:
                    return told["phase"]
                time.sleep(self._poll_s)
            except KeyboardInterrupt:
                if self.interrupted:
                    raise
                self.interrupted = True
                if self._console is not None:
                    self._console.print("stopping after this iteration; Ctrl-C once more ends at once", markup=False)
                with suppress(EdgeError):  # nothing went on, or it has failed: that is told anyway
                    self._session.stop()

    # -- what is shown -----------------------------------------------------------------------------------------------

    def _print(self, told: Told) -> None:
        events = told["events"]
        # The latest ones are told, so what was shown last is looked for and not counted.
        known = next((at for at in range(len(events) - 1, -1, -1) if events[at] == self._last), -1)
        for event in events[known + 1 :]:
            self._last = event
            if self._console is not None:
                self._console.print(_sentence(event), soft_wrap=True, markup=False, highlight=False)

    def _picture(self, told: Told) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title=_title(told), title_justify="left", title_style="bold", box=None, pad_edge=False)
        for at, name in enumerate(ITERATION):
            table.add_column(name, justify="right" if at == 0 else "left", no_wrap=at < 6, overflow="ellipsis")
        names = [one["name"] for one in told["connections"]]
        for row in told["iterations"][-_ROWS:]:
            table.add_row(*map(Text, iteration_cells(row, names)), style=None if row["accepted"] else "dim")
        said = [Text(_sentence(event), style="dim") for event in told["events"][-_SENTENCES:]]
        return Group(table, *said)


def _title(told: Told) -> str:
    parts: list[str] = [told["phase"]]
    total, requests = told["total"], told["requests"]
    if total is not None:
        parts += [
            f"{100 * total['saved_share']:.1f} % fewer bytes",
            f"latency {seconds(total['before_s'])} -> {seconds(total['now_s'])}",
            f"{total['metric']} {total['score']:.4f} (limit {total['floor']:.4f})",
        ]
        if total["answer_s"] is not None:
            parts.append(f"answers p50 {seconds(total['answer_s'])}")
    if requests is not None:
        parts.append(f"{requests['served']} served, {requests['lost']} lost")
    return "; ".join(parts)


def _sentence(event: Event) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(event['time_s']))}  {event['text']}"
