"""The `flower-edge` command: one verb per module, registered here. No verb is implemented here."""

from __future__ import annotations

import sys
from typing import Final, NoReturn

import typer

from ..errors import EdgeError
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
    watch,
)

app = typer.Typer(
    name="flower-edge",
    help=(
        "Edge tiers for Flower: run an app, look at what it did, serve and compress a model on several machines, "
        "compare controllers, plan splits, check the machine."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

for verb in (
    run, runs, scenarios, new, up, join, leave, devices, node, edge, split_edge, stage, compress, watch, report,
    dashboard, metrics, controllers, codecs, plan_split, rewards, doctor, agent,
):  # fmt: skip
    verb.register(app)


#: What is imported where it is needed, and the extra that brings it.
_EXTRAS: Final = {
    "jinja2": "report",
    "matplotlib": "report",
    "nicegui": "ui",
    "numba": "fast",
    "psutil": "device",
    "ray": "simulation",
    "sklearn": "data",
    "torch": "torch",
    "torchvision": "torch",
}


def main() -> None:
    """Run the command line; a user's mistake ends in one clear line on stderr and exit code 2, never in a traceback."""
    try:
        if wanted_by_environment():
            log_to_json()
        app()
    except EdgeError as error:
        _end(f"{type(error).__name__}: {error}")
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
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
