"""A run while it runs: a table that grows on a terminal, one line per round anywhere else.

Follows the run folder's `metrics.jsonl`, so the run may be in any process of any machine that shares the disk.
Nothing here writes or touches the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..monitoring.rounds import RoundLine, latest, round_lines, total
from ..store.metrics import Row, parse_lines
from .columns import columns, ratio, seconds, traffic
from .table import HEAD, cells, took_s

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["LiveView", "follow"]


def follow(path: Path, stop: Callable[[], bool], *, poll_s: float = 0.2) -> Iterator[list[Row]]:
    """The rows of a growing `metrics.jsonl`, as they come.

    Args:
        path: the file; it may not be there yet.
        stop: asked between looks; what was written before it said True is still read.
        poll_s: seconds between looks.

    Yields:
        The rows that are new since the last look, often none, so that the caller can do something else meanwhile.
    """
    read, ended = 0, False
    while True:
        ended = ended or stop()
        new: list[Row] = []
        if path.exists():
            with path.open("rb") as file:
                file.seek(read)
                whole, feed, _torn = file.read().rpartition(b"\n")
            new = list(parse_lines(whole, source=str(path)))
            read += len(whole) + len(feed)
        yield new
        if ended:
            return
        time.sleep(poll_s)


class LiveView:
    """Shows one run.

    A round is shown as done when rows of a later one come, when the run ends, or when it has an accuracy (the last
    thing a round brings) and nothing came for `settle_s`.

    Args:
        console: where to show it; by default standard output.
        height: how many rounds the table on a terminal shows.
        settle_s: seconds of silence after which a round with an accuracy counts as done.
    """

    def __init__(self, console: Console | None = None, *, height: int = 15, settle_s: float = 1.0) -> None:
        from rich.console import Console

        self._console = Console() if console is None else console
        self._height = height
        self._settle_s = settle_s

    def follow(self, path: Path, stop: Callable[[], bool], *, poll_s: float = 0.2) -> list[RoundLine]:
        """Show the run until `stop()`; returns its lines.

        Args:
            path: the run folder.
            stop: asked between looks; what was recorded before it said True is still shown.
            poll_s: seconds between looks.
        """
        show = self._on_terminal if self._console.is_terminal else self._line_by_line
        return show(path, follow(path / "metrics.jsonl", stop, poll_s=poll_s))

    def _on_terminal(self, path: Path, news: Iterator[list[Row]]) -> list[RoundLine]:
        from rich.live import Live

        rows: list[Row] = []
        lines: list[RoundLine] = []
        began_s = time.monotonic()
        with Live(console=self._console, auto_refresh=False) as live:
            for new in news:
                if new:
                    rows += new
                    lines = round_lines(rows)
                    began_s = time.monotonic() - (max((row.wall_s or 0.0 for row in rows), default=0.0))
                live.update(self._table(path.name, lines, time.monotonic() - began_s), refresh=True)
        return lines

    def _table(self, name: str, lines: list[RoundLine], elapsed: float) -> RenderableType:
        from rich.table import Table

        bits = sum(total(lines, f"{way}_bits") or 0 for way in ("up", "down"))
        now = f"accuracy {ratio(latest(lines, 'accuracy'))}, {traffic(bits)}, {seconds(elapsed)}"
        table = Table(title=f"{name}: {now}", title_justify="left", title_style="bold", box=None, pad_edge=False)
        for title in HEAD:
            table.add_column(title, justify="right")
        for line, took in list(zip(lines, took_s(lines), strict=True))[-self._height :]:
            table.add_row(*cells(line, took))
        return table

    def _line_by_line(self, path: Path, news: Iterator[list[Row]]) -> list[RoundLine]:
        rows: list[Row] = []
        lines: list[RoundLine] = []
        shown = 0
        last_news_s = time.monotonic()
        for new in news:
            if new:
                rows += new
                lines = round_lines(rows)
                last_news_s = time.monotonic()
            quiet = time.monotonic() - last_news_s >= self._settle_s
            done = len(lines) if lines and quiet and lines[-1].accuracy is not None else len(lines) - 1
            shown = self._print(lines, shown, done)
        self._print(lines, shown, len(lines))
        return lines

    def _print(self, lines: list[RoundLine], shown: int, done: int) -> int:
        taken = took_s(lines)
        for at in range(shown, done):
            # Every line repeats the head's widths: it was printed long ago, perhaps in another log file.
            head, line = columns([name.rjust(9) for name in HEAD], [cells(lines[at], taken[at])], left=0)
            for text in (head, line) if at == 0 else (line,):
                self._console.print(text, soft_wrap=True, markup=False, highlight=False)
        return max(shown, done)
