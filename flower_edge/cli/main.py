"""The `flower-edge` command: one verb per module, registered here. No verb is implemented here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Annotated, Final, NoReturn

import typer

from ..errors import EdgeError
from ..lazy import EXTRAS
from ..telemetry.json_lines import log_to_json, wanted_by_environment
from . import (
    agent,
    codecs,
    compress,
    controllers,
    dashboard,
    devices,
    doctor,
    edge,
    join,
    leave,
    metrics,
    new,
    node,
    plan_split,
    report,
    rewards,
    run,
    runs,
    scenarios,
    split_edge,
    stage,
    up,
    version,
    watch,
)

app = typer.Typer(name="flower-edge", no_args_is_help=True, pretty_exceptions_enable=False)

#: The verbs, by what somebody wants who looks for one.
_PANELS: Final[Mapping[str, tuple[ModuleType, ...]]] = {
    "Simulate on this machine": (doctor, scenarios, new, run),
    "Look at runs": (runs, watch, report, dashboard, rewards, metrics),
    "Choose and plan": (codecs, controllers, plan_split),
    "Deploy on several machines": (up, devices, join, leave, node, edge, agent, split_edge),
    "A model that serves on several machines": (stage, compress),
}


def _told(asked: bool) -> None:
    if asked:
        print(version.line())
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_told,
            is_eager=True,
            help="Print the versions of flower-edge, Flower and Python, and exit.",
        ),
    ] = False,
) -> None:
    """Edge tiers for Flower: terminals, edges and a centre, neighbours that gossip, codes instead of models.

    Each verb's --help has an example and its exit codes; a mistake ends in one line and exit code 2.

    Begin with: flower-edge scenarios, then flower-edge new my-app.
    """


def _add(verb: ModuleType, panel: str) -> None:
    # A verb with verbs of its own is a group to typer.
    commands, groups = len(app.registered_commands), len(app.registered_groups)
    verb.register(app)
    for command in app.registered_commands[commands:]:
        command.rich_help_panel = panel
    for group in app.registered_groups[groups:]:
        group.rich_help_panel = panel


for _panel, _verbs in _PANELS.items():
    for _verb in _verbs:
        _add(_verb, _panel)


def main() -> None:
    """Run the command line; a user's mistake ends in one clear line on stderr and exit code 2, never in a traceback."""
    try:
        if wanted_by_environment():
            log_to_json()
        app()
    except EdgeError as error:
        _end(f"{type(error).__name__}: {error}")
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        _end(f"{error.name} is not installed, and this needs it: pip install 'flower-edge[{extra}]'")
    except OSError as error:
        # With a name it is about a file that the user has given; without one it may be anything.
        if error.filename is None:
            raise
        _end(f"{error.filename}: {error.strerror or error}; give another path, or see who may read and write it")


def _end(text: str) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
