"""`flower-edge metrics`: a run's numbers for Prometheus, while it runs and afterwards. Looking does not touch it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..store.places import runs_root
from ..store.run_folder import RunFolder
from .runs import RootOption

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("metrics")(metrics)


def metrics(
    which: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A run folder, the beginning of its name, `latest`; left out: all runs."),
    ] = None,
    root: RootOption = None,
    host: Annotated[str, typer.Option(help="To bind to; any but this machine's own needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 9464,
    token: Annotated[
        str | None,
        typer.Option(help="That is asked for, 16 characters or more.", envvar="FLOWER_EDGE_METRICS_TOKEN"),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(metavar="PEM", help="For TLS.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="That belongs to it.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Print them once, and serve nothing.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print them once as one JSON document, and serve nothing.")
    ] = False,
) -> None:
    """Serve /metrics of a run, or of all runs, for Prometheus to scrape, until Ctrl-C.

    Exit code: 0.

    Example: flower-edge metrics latest --port 9464
    """
    from ..monitoring.exporter import RunExporter
    from ..telemetry import MetricsServer

    place = runs_root(root) if which is None else RunFolder.open(which, root).path
    if which is None and not place.is_dir():
        raise ConfigError(f"no folder {place}; name a run, or set FLOWER_EDGE_RUNS or --root to a folder of runs")
    told = RunExporter(place).metrics
    if as_json:
        print(json.dumps({"place": str(place), "metrics": told.samples()}, indent=2, allow_nan=False))
        return
    if once:
        print(told.text(), end="")
        return
    with MetricsServer(told, host, port, token, certificate=certificate, key=key) as server:
        # Flushed: whoever starts this as a process waits for that line.
        print(f"metrics: {server.url}", flush=True)
        try:
            while True:
                time.sleep(3600.0)
        except KeyboardInterrupt:
            print("metrics: ended", flush=True)
