"""`flower-edge scenarios [NAME]`: the scenarios there are, or one of them. Starts none."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from .columns import columns
from .scenario_library import Scenario, find_scenario
from .scenario_library import scenarios as all_of_them

__all__ = ["register"]

_HEAD = ("scenario", "what it shows", "run time")


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("scenarios")(scenarios)


def scenarios(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of one scenario, to read all about it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """List the scenarios, or describe one: what it shows, how to run it, its last lines, what can be changed.

    Exit code: 0, or 2 if there is none of that name.

    Example: flower-edge scenarios moving_terminals
    """
    if name is not None:
        _describe(find_scenario(name), as_json=as_json)
        return
    found = all_of_them()
    if as_json:
        print(json.dumps({"scenarios": [_facts(one) for one in found]}, indent=2))
        return
    print("\n".join(columns(_HEAD, [(one.name, one.title, one.run_time) for one in found], left=3)))
    print(
        "\nAll about one, and how to run it:  flower-edge scenarios NAME"
        "\nAn app of your own from one:        flower-edge new MY_APP --from NAME"
    )


def _facts(one: Scenario) -> dict[str, Any]:
    return {
        "name": one.name,
        "title": one.title,
        "run_time": one.run_time,
        "kind": one.kind,
        "folder": str(one.folder),
        "command": one.command,
    }


def _describe(one: Scenario, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**_facts(one), "config": dict(one.config()), "readme": one.readme}, indent=2))
        return
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        from rich.markdown import Markdown

        console.print(Markdown(one.readme))
    else:
        print(one.readme.rstrip())
    print(f"\nRun it: {one.command}\nAn app of your own from it: flower-edge new MY_APP --from {one.name}")
