"""`flower-edge watch`: look at a run while it runs. Looking does not touch it."""

from __future__ import annotations

import contextlib
import json
from typing import Annotated

import typer

from ..monitoring.attendance import attendance, sentences
from ..monitoring.overview import overview
from ..store.run_folder import RunFolder
from .live import LiveView
from .runs import RootOption

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("watch")(watch)


def watch(
    which: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, the beginning of its name, or `latest`.")],
    root: RootOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Wait for the end, then print one JSON document and nothing else.")
    ] = False,
) -> None:
    """Follow a run until it ends, from any other terminal; Ctrl-C stops looking, not the run.

    Exit code: 0 the run finished (or goes on), 1 it failed, was stopped or was interrupted.

    Example: flower-edge watch latest
    """
    run = RunFolder.open(which, root)

    def ended() -> bool:
        return RunFolder.open(run.path).status != "running"

    from rich.console import Console

    view = LiveView(Console(quiet=as_json))
    with contextlib.suppress(KeyboardInterrupt):
        view.follow(run.path, ended)
    after = RunFolder.open(run.path)
    if as_json:
        print(json.dumps(overview(after), indent=2, allow_nan=False))
    else:
        for line in sentences(attendance(after)):
            print(line)
        print(f"{after.path.name}: {after.status}" + (f": {after.info['error']}" if after.info.get("error") else ""))
    raise typer.Exit(0 if after.status in ("running", "finished") else 1)
