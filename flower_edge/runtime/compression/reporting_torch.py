"""The report at the end, and files of it: JSON of all, CSV of the iterations.

What was measured stands beside what was modelled, where it was measured. Nothing here compresses.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ...errors import FringeError, StateError
from ...fringe.report import Measured, savings, savings_table
from ...store.atomic import write_bytes
from .requests import Requests
from .run_torch import Run
from .task_torch import CompressionTask
from .telling_torch import Moment, frozen_told, total_told
from .told import Told

__all__ = ["csv_text", "json_text", "report_of", "save_text"]

_COLUMNS: Final = (
    *("number", "method", "connection", "amount", "accepted", "why", "before_bytes", "after_bytes", "before_s"),
    *("after_s", "before_score", "after_score", "version", "healed", "seconds_s", "frozen_digest", "digest"),
)


def report_of(run: Run | None, task: CompressionTask, requests: Requests, rate_per_s: float) -> dict[str, Any]:
    """Eqs. 1 and 2 per connection and over all, the metric on the test set, the proof, and requests.

    Raises:
        FringeError: nothing was compressed yet.
    """
    if run is None or run.controller is None or run.serving is None or run.whole is None or run.choice is None:
        raise FringeError("nothing was compressed yet, so there is nothing to report; submit first")
    controller, serving = run.controller, run.serving
    moment, links = Moment.of(controller), run.links()
    assert moment is not None
    first, now = moment.versions[0], moment.version
    names = [f"{one.producer} -> {one.consumer}" for one in run.whole.connections]
    measured = []
    for number in range(len(names)):
        was, later = serving.seen(0, number), serving.seen(now.number, number)
        measured.append(
            Measured(
                math.nan if was is None else was.size_bytes,
                math.nan if later is None else later.size_bytes,
                math.nan if was is None or was.seconds is None else was.seconds,
                math.nan if later is None or later.seconds is None else later.seconds,
            )
        )
    saving = savings(
        names, first.sizes_bytes, now.sizes_bytes, links, measured=measured, rate_per_s=rate_per_s
    )  # fmt: skip
    test = {name: run.test_score(task, number) for name, number in (("test_before", 0), ("test_score", now.number))}
    rows = [_plain(row) for row in saving.rows()]
    total = total_told(run, moment, links, requests)
    assert total is not None
    return {
        "task": task.name,
        "settings": run.settings.config(),
        **run.choice.config(),
        "status": controller.status,
        "iterations": len(moment.iterations),
        "versions": len(moment.versions),
        "version": now.number,
        "digest": now.digest,
        **test,
        "test_lost": controller.goals.judge.lost(test["test_score"], test["test_before"]),
        "connections": rows[:-1],
        "all": rows[-1],
        "rate_per_s": rate_per_s,
        "saved_bps": saving.bandwidth_saved_bps,
        "total": dict(total),
        "frozen": frozen_told(run, moment),
        "table": savings_table(saving),
    }


def csv_text(iterations: list[dict[str, Any]]) -> str:
    """One line per iteration; lists are joined by blanks."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in iterations:
        writer.writerow({**row, **{name: " ".join(map(str, row[name])) for name in ("before_bytes", "after_bytes")}})
    return out.getvalue()


def json_text(told: Told, report: Mapping[str, Any] | None) -> str:
    """All that is told, and the report if there is one."""
    return json.dumps({"told": told, "report": report}, indent=2, allow_nan=False) + "\n"


def save_text(path: str | Path, text: str) -> Path:
    """Write a file, whole or not at all; its folder is made.

    Raises:
        StateError: it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, text.encode())
    except OSError as error:
        raise StateError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
