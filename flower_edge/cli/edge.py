"""`flower-edge edge`: everything an edge host consists of, started and kept going."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("edge")(edge)


def edge(
    app: Annotated[Path, typer.Argument(metavar="APP", help="The edge's app: edge_server, and what terminals run.")],
    name: Annotated[str, typer.Option(metavar="CELL", help="What the centre calls this edge.")],
    state: Annotated[Path, typer.Option(metavar="DIR", help="Where it keeps everything, its bridge among it.")],
    serve: Annotated[str, typer.Option(metavar="HOST:PORT", help="Start a SuperLink for the terminals here.")] = "",
    superlink: Annotated[str, typer.Option(metavar="HOST:PORT", help="Or: it runs there, on this host.")] = "",
    centre: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The centre's SuperLink; none: its SuperNode is not started here.")
    ] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Without TLS, to the centre and to terminals.")] = False,
    authority: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Who vouches for this edge's SuperLink.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Of this edge's SuperLink; good for 127.0.0.1, too.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="The key that belongs to it.")] = None,
    node_keys: Annotated[
        bool, typer.Option("--node-keys", help="Let in only terminals whose key is registered.")
    ] = False,
    root_certificates: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Who vouches for the centre's SuperLink.")
    ] = None,
    auth_supernode_private_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="This host's key, registered at the centre.")
    ] = None,
    run_config: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help='Of the edge\'s app: "terminals=3 seed=5".')
    ] = None,
    node_config: Annotated[str, typer.Option(metavar="TEXT", help="More for its SuperNode at the centre.")] = "",
    in_memory: Annotated[
        bool, typer.Option("--in-memory", help="The SuperLink's state is lost with it; faster.")
    ] = False,
    stock: Annotated[bool, typer.Option("--stock", help="Flower's own SuperNode at the centre.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Tell what happens as JSON lines.")] = False,
) -> None:
    """Be an edge between a centre and terminals, until Ctrl-C or SIGTERM; start again whatever ends.

    It starts a SuperLink for the terminals, hands the edge's app to it, and starts the SuperNode that speaks with the
    centre. What the edge knows is in --state: killed and started again, it goes on.

    Exit code: 0 ended, by Ctrl-C or SIGTERM; 2 an option, a file or an app that cannot be used.

    Example: flower-edge edge edge-app/ --name edge-0 --state /var/lib/flower-edge/edge-0 --serve 0.0.0.0:9092
    --authority ca.pem --certificate edge.pem --key edge.key --centre centre.example:8000 --root-certificates ca.pem
    """
    from ..runtime.bridge.keeper import EdgeKeeper, EdgePlan
    from ..runtime.launching.app import parse_run_config
    from ..runtime.launching.processes import Interrupts

    own = auth_supernode_private_key
    if not serve:
        _no_use({"--certificate": certificate, "--key": key, "--node-keys": node_keys}, "--serve")
    if not centre:
        _no_use({"--root-certificates": root_certificates, "--auth-supernode-private-key": own}, "--centre")
    given: list[str] = []
    for option, file in (("--ssl-ca-certfile", authority), ("--ssl-certfile", certificate), ("--ssl-keyfile", key)):
        if file is not None:
            given += [option, str(_there(file))]
    if serve and len(given) not in (0, 6):
        raise ConfigError("--authority, --certificate and --key belong together: give all of them, or --insecure")
    if serve and not given:
        _expect(insecure, "--serve without --certificate would be without TLS")
        if node_keys:
            raise ConfigError("--node-keys needs TLS: give --authority, --certificate and --key")
        given = ["--insecure"]
    dial: tuple[str, ...] | None = None
    if centre:
        if root_certificates is None:
            _expect(insecure, "--centre without --root-certificates would be without TLS")
        trust = ["--insecure"] if root_certificates is None else ["--root-certificates", str(_there(root_certificates))]
        if own is not None and root_certificates is None:
            raise ConfigError(
                "--auth-supernode-private-key needs TLS: give --root-certificates, the centre's authority"
            )
        proof = [] if own is None else ["--auth-supernode-private-key", str(_there(own))]
        dial = ("--superlink", centre, *trust, *proof)
    if "'" in name or not name:
        raise ConfigError(f"--name {name!r}: expected a word, such as edge-0")
    plan = EdgePlan(
        name=name, state=state, app=app, serve=serve, superlink=superlink, in_memory=in_memory, stock=stock,
        superlink_options=(*given, *(["--enable-supernode-auth"] if node_keys else [])),
        authority=None if authority is None else authority.absolute(),
        centre_options=dial, node_config=node_config, run_config=parse_run_config(run_config or []),
    )  # fmt: skip

    def tell(words: str) -> None:
        typer.echo(json.dumps({"edge": name, "event": words}) if as_json else f"flower-edge edge: {words}")

    with Interrupts() as interrupts:
        EdgeKeeper(plan, tell).keep(lambda: interrupts.signal is not None)


def _no_use(given: dict[str, object], without: str) -> None:
    """Refuse options of which nothing would come: somebody believes that they protect."""
    if named := [option for option, value in given.items() if value]:
        raise ConfigError(
            f"{', '.join(named)} without {without}: nothing would come of it; give {without}, or leave it out"
        )


def _expect(insecure: bool, what: str) -> None:
    if not insecure:
        raise ConfigError(f"{what}: everybody on the way could read and change models; add --insecure if that is meant")


def _there(file: Path) -> Path:
    if not file.is_file():
        raise ConfigError(f"{file}: there is no such file")
    return file.absolute()
