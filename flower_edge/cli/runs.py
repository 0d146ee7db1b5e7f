"""`flower-edge runs`: the runs there are, one line each. Reads run folders, changes none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..monitoring.overview import overview
from ..store.places import runs_root
from ..store.run_folder import RunFolder
from .columns import columns, count, ratio, seconds, traffic

__all__ = ["RootOption", "register"]

#: `--root`, the same for every verb that names a run.
RootOption = Annotated[
    Path | None,
    typer.Option("--root", "--runs", metavar="DIR", help="Folder of run folders: else $FLOWER_EDGE_RUNS, else ./runs."),
]

_HEAD = ("run", "status", "started (UTC)", "rounds", "accuracy", "bytes", "duration")
_STYLES: Mapping[str, str] = {
    "running": "cyan",
    "finished": "green",
    "failed": "bold red",
    "stopped": "yellow",
    "interrupted": "yellow",
}


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("runs")(runs)


def runs(
    root: RootOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """List the runs: name, status, start, rounds, final accuracy, bytes, duration.

    Exit code: 0, also where there is none; 2 --root is a file.

    Example: flower-edge runs --root ~/experiments/runs
    """
    found = [overview(run) for run in RunFolder.all(root)]
    if as_json:
        document = {"root": str(runs_root(root)), "runs": found}
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    if not found:
        print(f"no runs in {runs_root(root)}; `flower-edge run APP` makes one")
        return
    lines = [_texts(entry) for entry in found]

    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # rich would cut lines to 80 columns
        print("\n".join(columns(_HEAD, lines, left=3)))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for at, title in enumerate(_HEAD):
        table.add_column(title, justify="left" if at < 3 else "right", overflow="fold")
    for line in lines:
        table.add_row(*line[:1], f"[{_STYLES[line[1]]}]{line[1]}[/]", *line[2:])
    console.print(table)


def _texts(entry: Mapping[str, Any]) -> list[str]:
    accuracy = entry["accuracy"]
    return [
        entry["folder"],
        entry["status"],
        str(entry["started_at"])[:16].replace("T", " "),
        count(entry["rounds"]),
        ratio(float(accuracy)) if accuracy is not None else ratio(None),
        traffic(entry["payload_bits"]),
        seconds(entry["duration_s"]),
    ]
