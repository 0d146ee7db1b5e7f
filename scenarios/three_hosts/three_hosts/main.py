"""The scenario's command line."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from flower_edge.cli.report import write_report
from flower_edge.errors import EdgeError
from flower_edge.runtime.launching.processes import Interrupts
from flower_edge.store import RunFolder

from .federation import Federation, Sizes
from .network import Network, why_no_namespaces
from .programs import Programs

__all__ = ["app"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

#: For every program: nothing is sent to anybody, and one core is enough for a small perceptron.
_QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@app.command()
def main(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]", help="Of all that is kept; it must not exist. Not given: runs/three-hosts-TIME."
        ),
    ] = None,
    edges: Annotated[int, typer.Option(min=1, help="Edge hosts.")] = 2,
    terminals: Annotated[int, typer.Option(min=2, help="Of each edge.")] = 3,
    cloud_rounds: Annotated[int, typer.Option(min=1)] = 4,
    edge_rounds: Annotated[int, typer.Option(min=1, help="In each cloud round.")] = 5,
    mailbox: Annotated[str, typer.Option(help="How terminals exchange models: direct or relay.")] = "direct",
    mbps: Annotated[
        float, typer.Option(min=0, help="Of a terminal's radio, shared among neighbours; 0: unpaced.")
    ] = 20.0,
    link_mbps: Annotated[
        float, typer.Option(min=0, help="What a host may send, with namespaces; 0: all it can.")
    ] = 0.0,
    namespaces: Annotated[
        str, typer.Option(metavar="auto|yes|no", help="A network namespace for each host, where this is root.")
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0)] = 5,
) -> None:
    """A centre, two edges and six terminals, each a host of its own, from nothing to a report.

    Hosts join by the lines that servers print, with keys of their own, over TLS. Terminals gossip with the others of
    their edge; the centre merges the edges. Ends all it started.

    Exit code: 0 trained; 2 something could not be started, or ended; 130 by Ctrl-C.

    Example: python scenarios/three_hosts --cloud-rounds 2 --edge-rounds 3
    """
    began_s = time.monotonic()
    where = (folder or Path("runs") / f"three-hosts-{time.strftime('%Y%m%d-%H%M%S')}").absolute()

    def tell(words: str) -> None:
        typer.echo(f"{time.monotonic() - began_s:6.1f} s  {words}")

    try:
        if namespaces not in ("auto", "yes", "no"):
            raise EdgeError(f"--namespaces {namespaces}: expected auto, yes or no")
        if mailbox not in ("direct", "relay"):
            raise EdgeError(f"--mailbox {mailbox}: expected direct or relay")
        if where.exists():
            raise EdgeError(f"{where} is there already; give another folder")
        why = "" if namespaces == "no" else why_no_namespaces()
        if why and namespaces == "yes":
            raise EdgeError(f"--namespaces yes: {why}; run it as root, or with --namespaces no")
        spaces = namespaces != "no" and not why
        shared = f"all hosts on the loopback address ({why or 'as asked'})"
        tell("a network namespace for each host" if spaces else shared)
        sizes = Sizes(edges, terminals, cloud_rounds, edge_rounds, mailbox, mbps, seed)
        where.mkdir(parents=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FLOWER_EDGE_")}
        with (
            Interrupts() as interrupts,
            Network(sizes.names, namespaces=spaces, mbps=link_mbps) as network,
            Programs(where / "logs", {**environment, **_QUIET}, interrupts) as programs,
        ):
            run = Federation(network, programs, sizes, where, tell).train()
            tell("ending all programs")
        report = write_report(RunFolder.open(run))
        tell(f"trained; the report is {report[0]}")
    except EdgeError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
