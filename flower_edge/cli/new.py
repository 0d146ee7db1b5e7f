"""`flower-edge new NAME --from SCENARIO`: an app of one's own that runs at once. Overwrites nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .app_copy import AppName, copy_scenario
from .scenario_library import find_scenario

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("new")(new)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the app, its folder and its package.")],
    scenario: Annotated[
        str, typer.Option("--from", metavar="SCENARIO", help="To begin with: one of `flower-edge scenarios`.")
    ] = "quickstart",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Make an app of your own in the folder NAME, from a scenario; what is there already is never overwritten.

    Exit code: 0, or 2 if the name cannot be one, is taken, or there is no such scenario.

    Example: flower-edge new my_terminals --from moving_terminals
    """
    origin, called = find_scenario(scenario), AppName(name)
    files = copy_scenario(origin, called, Path.cwd())
    command = f"flower-edge run {called.text}" if origin.kind == "app" else f"python {called.text}"
    if as_json:
        document = {"name": called.text, "package": called.package, "from": origin.name, "command": command}
        print(
            json.dumps(
                {**document, "folder": str(Path.cwd() / called.text), "files": [path.as_posix() for path in files]},
                indent=2,
            )
        )
        return
    print(f"made {called.text} from {origin.name}: {len(files)} files")
    print(f"  run it:     {command}")
    if origin.kind == "app":
        print(f"  change it:  {called.text}/pyproject.toml has every key, {called.text}/README.md says more")
    else:
        print(f"  read more:  {called.text}/README.md")
