"""A run in a few values: what a list of runs shows of each. Reads a run folder, changes none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..errors import EdgeError
from ..store.json_file import to_json_value
from ..store.run_folder import RunFolder
from .rounds import latest, rounds_of, total

__all__ = ["duration_s", "overview"]


def overview(run: RunFolder) -> dict[str, Any]:
    """A run in ten JSON values; what was not recorded is None."""
    try:
        lines = rounds_of(run)
    except EdgeError:  # damaged metrics: the run is still there
        lines = []
    bits = [value for value in (total(lines, "up_bits"), total(lines, "down_bits")) if value is not None]
    return {
        "folder": run.path.name,
        "path": str(run.path),
        "name": run.name,
        "status": run.status,
        "started_at": run.info["started_at"],
        "rounds": max((line.round for line in lines), default=0),
        "accuracy": to_json_value(latest(lines, "accuracy")),
        "loss": to_json_value(latest(lines, "loss")),
        "payload_bits": sum(bits) if bits else None,
        "duration_s": duration_s(run, latest(lines, "wall_s")),
        "error": run.info.get("error"),
    }


def duration_s(run: RunFolder, last_row_s: float | None = None) -> float | None:
    """Seconds from start to end; of a run that goes on, to now; of an interrupted one, to its last row."""
    if run.status == "interrupted":
        return last_row_s
    end = run.info.get("finished_at")
    moment = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return max(0.0, (moment - datetime.fromisoformat(run.info["started_at"])).total_seconds())
