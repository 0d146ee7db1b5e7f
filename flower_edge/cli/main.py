"""The `flower-edge` command: one verb per module, registered here. No verb is implemented here."""

from __future__ import annotations

import sys

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
    node,
    plan_split,
    report,
    rewards,
    run,
    runs,
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
    run, runs, up, join, leave, devices, node, edge, split_edge, stage, compress, watch, report, dashboard,
    metrics, controllers, codecs, plan_split, rewards, doctor, agent,
):  # fmt: skip
    verb.register(app)


def main() -> None:
    """Run the command line; a user's mistake ends in one clear line on stderr and exit code 2, never in a traceback."""
    try:
        if wanted_by_environment():
            log_to_json()
        app()
    except EdgeError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
