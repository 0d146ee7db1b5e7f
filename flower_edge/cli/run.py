"""`flower-edge run APP`: launch a Flower app, show its log as it comes, then its result.

What to run and how it is stopped is the launcher's business; nothing here starts a process.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from ..errors import EdgeError
from ..runtime.launching.app import parse_run_config
from ..runtime.launching.launcher import LaunchInterrupted, LaunchResult, launch
from ..store.places import runs_root
from ..store.run_folder import RunFolder
from .runs import RootOption

__all__ = ["register"]

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("run")(run)


def run(
    app: Annotated[Path, typer.Argument(metavar="APP", help="Folder of the Flower app, the one with pyproject.toml.")],
    run_config: Annotated[
        list[str] | None,
        typer.Option("--run-config", "-c", help="""Like "lr=0.1 name='a b'", or a .toml file; may be given again."""),
    ] = None,
    num_supernodes: Annotated[
        int | None, typer.Option(help="Nodes to simulate, instead of the app's own number.")
    ] = None,
    client_cpus: Annotated[int | None, typer.Option(help="Processor cores one client takes.")] = None,
    total_cpus: Annotated[int | None, typer.Option(help="Processor cores the simulation may use.")] = None,
    runs: RootOption = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on from this run: its folder, its name, or `latest`.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Stop the run after so long.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave Flower's and Ray's own files, and say where.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show the log.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document at the end, and nothing else.")
    ] = False,
) -> None:
    """Run the Flower app in folder APP in simulation, through `flwr run`, and leave no process behind.

    Exit code: 0 completed, 1 failed, 2 could not be started, 3 stopped, 130 Ctrl-C.

    Example: flower-edge run scenarios/quickstart --num-supernodes 12 -c "num-server-rounds=3"
    """
    earlier = None if resume is None else RunFolder.open(resume, root=runs_root(runs)).path
    view = _View(silent=quiet or as_json)
    try:
        result = launch(
            app,
            run_config=parse_run_config(run_config or []),
            num_supernodes=num_supernodes,
            client_cpus=client_cpus,
            total_cpus=total_cpus,
            runs=runs,
            resume=earlier,
            on_line=view.line,
            on_folder=view.begin,
            timeout_s=timeout,
            keep=keep,
        )
    except LaunchInterrupted as interrupted:
        result = interrupted.result
    finally:
        shown = view.end()
    if as_json:
        print(json.dumps(asdict(result), default=str, indent=2))
    else:
        _tell(result, rounds=not shown)
    raise typer.Exit(result.exit_code)


class _View:
    """What is shown while the run runs: its log and, on a terminal, the rounds so far below it."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._console = Console()
        self._over = threading.Event()
        self._rounds: threading.Thread | None = None
        self._shown = 0

    def line(self, line: str) -> None:
        """Show a line of the log."""
        if self._silent:
            return
        if self._console.is_terminal:
            self._console.print(Text.from_ansi(line), soft_wrap=True)
        else:
            print(_COLOURS.sub("", line), flush=True)

    def begin(self, folder: Path) -> None:
        """Follow the rounds in this run folder."""
        if self._silent or not self._console.is_terminal:
            return

        def follow() -> None:
            from .live import LiveView

            self._shown = len(LiveView(self._console).follow(folder, self._over.is_set))

        self._rounds = threading.Thread(target=follow, name="live-view", daemon=True)
        self._rounds.start()

    def end(self) -> bool:
        """Stop following. True if rounds were shown, and stand on the screen."""
        self._over.set()
        if self._rounds is not None:
            self._rounds.join(timeout=5.0)
        return self._shown > 0


def _tell(result: LaunchResult, *, rounds: bool) -> None:
    if result.run_folder is not None and (result.run_folder / "run.json").is_file():
        try:
            _tell_rounds(RunFolder.open(result.run_folder), table=rounds)
        except EdgeError as error:
            # The run is over and its exit code stands; that it cannot be shown is a second matter.
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    number = "" if result.run_id is None else f" {result.run_id}"
    print(f"run{number} {result.status} after {result.seconds:.1f} s")
    if result.run_folder is not None:
        print(f"run folder: {result.run_folder}")
    if result.work_folder is not None:
        print(f"work folder: {result.work_folder}")
    if result.details:
        print(result.details, file=sys.stderr)


def _tell_rounds(run: RunFolder, *, table: bool) -> None:
    from ..monitoring.attendance import attendance, sentences
    from .report import write_report
    from .table import final_table

    # Where the rounds stand on the screen already, what is left to say is which edges did not count.
    for line in [final_table(run)] if table else sentences(attendance(run)):
        print(line)
    print(f"report: {write_report(run)[0]}")
