"""`flower-edge agent`: the process beside a SuperNode that exchanges models with its neighbours."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ..errors import ConfigError
from .served_beside import Address, MetricsOption, MetricsTokenOption, address_of, serve_metrics
from .split_edge import read_pem

__all__ = ["register"]

#: How soon a signal is noticed, should the thread that waits for it not be the one that gets it.
_LOOK_S: Final = 0.2
#: After which the process ends though a connection has not closed.
_END_S: Final = 10.0


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("agent")(agent)


def agent(
    folder: Annotated[
        Path, typer.Option(metavar="FOLDER", help="What it remembers: its key, and letters. For its owner alone.")
    ] = Path("agent"),
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where neighbours dial it; port 0 takes a free one.")
    ] = "127.0.0.1:9301",
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Under which neighbours know it, where it is not --listen.")
    ] = "",
    certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="This host's certificate, for the host in --address.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="The key that belongs to it.")] = None,
    authority: Annotated[Path | None, typer.Option(metavar="PEM", help="Who vouches for all agents.")] = None,
    socket: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Of this node's mailbox; by default agent.sock in the folder.")
    ] = None,
    letter_mb: Annotated[float, typer.Option(metavar="MB", help="The largest letter taken.")] = 1000.0,
    durable: Annotated[
        bool, typer.Option("--durable", help="Acknowledge only what the disk has: survives a power cut too.")
    ] = False,
    metrics: MetricsOption = "",
    metrics_token: MetricsTokenOption = None,
    status: Annotated[
        bool, typer.Option("--status", help="Ask the agent that runs, at --socket, what it is and has done.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Tell where it listens, or its status, as JSON.")] = False,
) -> None:
    """Exchange models with neighbours, beside a SuperNode, until Ctrl-C or SIGTERM.

    A ClientApp lives for one message; this process stays, and owns the socket that neighbours dial. The ClientApp finds
    it by agent='FOLDER/agent.sock' in the SuperNode's --node-config, or by FLOWER_EDGE_AGENT. Who may send is told
    each round by the server of a Gossip(mailbox="direct"). All agents show certificates of one authority.

    Exit code: 0 ended, by Ctrl-C or SIGTERM, or told its status; 2 a file, address or folder that cannot be used, or
    no agent to ask.

    Example: flower-edge agent --folder /var/lib/flower-edge/agent --listen 0.0.0.0:9301 --address pi3.example:9301
    --certificate pi3.pem --key pi3.key --authority ca.pem
    """
    where = socket if socket is not None else folder / "agent.sock"
    if status:
        _tell(where, as_json)
        return
    from ..monitoring.agent_exporter import AgentExporter
    from ..runtime.agent.agent import Agent
    from ..runtime.agent.settings import AgentLimits
    from ..transport.credentials import MutualTls, split_address

    if certificate is None or key is None or authority is None:
        raise ConfigError(
            "agents prove to each other who they are: give --certificate, --key and --authority; "
            "docs/agent.md shows how they are made"
        )
    if not 0 < letter_mb < 1e9:
        raise ConfigError(f"--letter-mb {letter_mb:g}: expected a number above 0")
    host, port = address_of(listen)
    numbers_at = Address.of("--metrics", metrics, metrics_token)
    if address:
        split_address(address)
    elif host in ("0.0.0.0", "::"):
        raise ConfigError(
            f"--listen {listen}: neighbours cannot dial that; give the name they know: --address host:port"
        )
    credentials = MutualTls(read_pem(certificate), read_pem(key), read_pem(authority))
    ended: list[int] = []
    # No lock in a handler: it may come while this thread holds that lock.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: ended.append(number))
    served = Agent(
        folder,
        credentials,
        host,
        port,
        address=address,
        socket=socket,
        limits=AgentLimits(letter_bytes=int(letter_mb * 1e6)),
        durable=durable,
    )
    try:
        # First: a port for numbers that is taken is told before neighbours are let in.
        numbers = None
        if numbers_at is not None:
            numbers = serve_metrics(AgentExporter(served.status).metrics, numbers_at, (certificate, key))
        served.open()
    except BaseException:
        served.close()
        raise
    card = served.card
    told: dict[str, Any] = {} if numbers is None else {"metrics": numbers.url}
    if as_json:
        told |= {"listening": f"{host}:{served.port}", "socket": str(served.socket), "card": card.model_dump()}
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"flower-edge agent: {card.address}, for the node with agent='{served.socket}'; Ctrl-C ends it")
        if numbers is not None:
            typer.echo(f"flower-edge agent: metrics at {numbers.url}")
    sys.stdout.flush()
    while not ended:
        time.sleep(_LOOK_S)
    closing = threading.Thread(target=served.close, name="closing", daemon=True)
    closing.start()
    closing.join(_END_S)
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Python's own way out waits without limit for threads that gRPC leaves behind; all that is kept is in files.
    os._exit(0)


def _tell(socket: Path, as_json: bool) -> None:
    from ..peers.agent_client import AgentClient

    with AgentClient(socket) as client:
        told = client.status()
    told.pop("body_bytes", None)
    if as_json:
        typer.echo(json.dumps(told))
        return
    card, counters = told["card"], told["counters"]
    typer.echo(f"agent at {card['address']}, up {told['up_s']:.0f} s, {told['connections']} connections of neighbours")
    typer.echo(f"certificate {card['fingerprint'][:16]}…, signs with {card['key'][:16]}…")
    for run in told["runs"]:
        typer.echo(_run_line(run))
        for link in run["links"]:
            typer.echo(f"  to {link['to']}: {link['state']} for {link['since_s']:.0f} s, {link['waiting']} waiting")
    refused = ", ".join(f"{code} {count}" for code, count in counters.pop("refused").items())
    told_counters = ", ".join(f"{name} {count}" for name, count in counters.items())
    typer.echo(f"so far: {told_counters or 'nothing sent or received'}; refused: {refused or 'nobody'}")


def _run_line(run: dict[str, Any]) -> str:
    what = "relays" if run["node"] is None else f"node {run['node']}"
    held = f"{run['letters']} letters here, {run['to_relay']} to relay, {run['pending']} to deliver"
    return f"run {run['run']}, round {run['round']}, {what}: {held}"
