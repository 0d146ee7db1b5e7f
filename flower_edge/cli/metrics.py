"""`flower-edge metrics`: a run's numbers for Prometheus, while it runs and afterwards. Looking does not touch it."""

from __future__ import annotations

import json
import sys
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
    agent: Annotated[
        Path | None, typer.Option(metavar="SOCKET", help="Tell a peer agent's numbers too; without RUN, only those.")
    ] = None,
    grafana: Annotated[
        bool, typer.Option("--grafana", help="Print a dashboard for Grafana to import, and serve nothing.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Print them once, and serve nothing.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print them once as one JSON document, and serve nothing.")
    ] = False,
) -> None:
    """Serve /metrics of a run, of all runs or of a peer agent, for Prometheus to scrape, until Ctrl-C.

    An agent that does not answer is told as flower_edge_agent_up 0, and by the exit code of --once and --json.

    Exit code: 0 ended, or printed; 1 printed, and the agent does not answer; 2 an option or a run that is not there.

    Example: flower-edge metrics latest --port 9464
    """
    if grafana:
        from importlib import resources

        print((resources.files("flower_edge.monitoring") / "grafana_dashboard.json").read_text("utf-8"), end="")
        return
    from ..telemetry import Metrics, MetricsServer

    told, places, asked = Metrics(), list[str](), None
    if agent is not None:
        from ..monitoring.agent_exporter import AgentExporter

        asked = AgentExporter(agent, told)
        places.append(asked.socket)
    if agent is None or which is not None:
        from ..monitoring.exporter import RunExporter

        place = runs_root(root) if which is None else RunFolder.open(which, root).path
        if which is None and not place.is_dir():
            raise ConfigError(f"no folder {place}; name a run, or set FLOWER_EDGE_RUNS or --root to a folder of runs")
        places.append(str(RunExporter(place, told).place))
    if as_json:
        print(json.dumps({"places": places, "metrics": told.samples()}, indent=2, allow_nan=False))
    elif once:
        print(told.text(), end="")
    if as_json or once:
        if asked is not None and not asked.up:
            print(f"no agent answers at {asked.socket}; start `flower-edge agent` on this host", file=sys.stderr)
            raise typer.Exit(1)
        return
    with MetricsServer(told, host, port, token, certificate=certificate, key=key) as server:
        # Ctrl-C may come as soon as the line is out.
        try:
            # Flushed: whoever starts this as a process waits for that line.
            print(f"metrics: {server.url}", flush=True)
            while True:
                time.sleep(3600.0)
        except KeyboardInterrupt:
            print("metrics: ended", flush=True)
