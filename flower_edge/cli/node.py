"""`flower-edge node`: Flower's SuperNode with an executor that stays."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from ..errors import ConfigError

__all__ = ["register"]

#: What a node decides itself, and what would need an environment of its own for each message.
_NOT_HERE: Final = {
    "--isolation": "its executors are processes of its own, beside the SuperNode",
    "--host": "its Runtime API is on the loopback address",
    "--ssl-certfile": "its Runtime API is on the loopback address",
    "--ssl-keyfile": "its Runtime API is on the loopback address",
    "--ssl-ca-certfile": "its Runtime API is on the loopback address",
    "--superexec-auth-secret-file": "there is no SuperExec",
    "--allow-runtime-dependency-installation": "an executor that stays has the packages it was started with",
}


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("node", context_settings={"allow_extra_args": True})(node)


def node(
    context: typer.Context,
    superlink: Annotated[str, typer.Option(metavar="HOST:PORT", help="The SuperLink to serve.")] = "",
    attach: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Or a file that names it, and is followed when it names another."),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Without TLS.")] = False,
    root_certificates: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Who vouches for the SuperLink's certificate.")
    ] = None,
    auth_supernode_private_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The node's key, registered at the SuperLink.")
    ] = None,
    node_config: Annotated[
        str, typer.Option(metavar="TEXT", help="As flower-supernode: \"partition-id=0 site='north'\".")
    ] = "",
    port: Annotated[int, typer.Option(help="Of the Runtime API on this machine; 0 takes a free one.")] = 0,
    poll_s: Annotated[float, typer.Option(metavar="SECONDS", help="Between two looks while messages come.")] = 0.1,
    quiet_poll_s: Annotated[
        float, typer.Option(metavar="SECONDS", help="The same when none has come for half a minute.")
    ] = 1.0,
    recycle_after: Annotated[
        int, typer.Option(metavar="MESSAGES", help="Then the executor is a new process; 0: never.")
    ] = 0,
    memory_mb: Annotated[
        float, typer.Option(metavar="MB", help="The same when it holds more than this; 0: any.")
    ] = 0.0,
    keep: Annotated[int, typer.Option(metavar="RUNS", help="That keep an executor at the same time.")] = 1,
    idle_s: Annotated[
        float, typer.Option(metavar="SECONDS", help="Without a message, then an executor lets go of its app.")
    ] = 600.0,
    stock: Annotated[bool, typer.Option("--stock", help="Be Flower's own SuperNode; to compare.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Tell what is started as one JSON document.")] = False,
) -> None:
    """Be a SuperNode that answers within tenths of a second, until Ctrl-C or SIGTERM.

    Flower looks for messages every three seconds and starts a process for each. This node looks ten times a second and
    keeps the process. Everything else is Flower's SuperNode; its further options go behind --. Where this Flower
    cannot be driven so, the stock SuperNode runs and it is said why.

    With --attach the node moves: when the file names another SuperLink it ends at this one and begins there, and when
    it ends by itself it is started again.

    Exit code: 0 ended; 1 Flower's SuperNode could not go on, as without a SuperLink it may use; 2 an option or file
    that cannot be used.

    Example: flower-edge node --superlink edge.example:8000 --root-certificates ca.pem --auth-supernode-private-key
    node.key --node-config "partition-id=0"
    """
    from ..runtime.warm.settings import WarmSettings

    settings = WarmSettings(
        poll_s=poll_s, quiet_poll_s=quiet_poll_s, recycle_after=recycle_after, memory_mb=memory_mb, keep=keep,
        idle_s=idle_s,
    )  # fmt: skip
    if bool(superlink) == (attach is not None):
        raise ConfigError("give --superlink HOST:PORT, or --attach FILE with such a line, and not both")
    if superlink:
        _check_address(superlink)
    given = ["--superlink", superlink, *context.args] if superlink else [*context.args]
    if insecure:
        given.append("--insecure")
    for option, file in (
        ("--root-certificates", root_certificates),
        ("--auth-supernode-private-key", auth_supernode_private_key),
    ):
        if file is not None:
            if not file.is_file():
                raise ConfigError(f"{option} {file}: there is no such file")
            given += [option, str(file)]
    if node_config:
        given += ["--node-config", node_config]
    for argument in context.args:
        if why := _NOT_HERE.get(argument.partition("=")[0]):
            raise ConfigError(f"{argument}: not with flower-edge node, {why}; for it use flower-supernode")
    if attach is not None:
        options = _own_options(settings, given, root_certificates, node_config, stock)
        _follow(attach, options, node_config, as_json)
        return
    own_port = port or _free_port()
    if as_json:
        typer.echo(json.dumps({"superlink": superlink, "runtime_port": own_port, "stock": stock}))
    elif stock:
        typer.echo(f"flower-edge node: the stock SuperNode for {superlink}")
    else:
        typer.echo(f"flower-edge node: a warm SuperNode for {superlink}, looks every {poll_s:g} s; Ctrl-C ends it")
    _become(settings.to_json(), own_port, given, stock)


def _check_address(superlink: str) -> None:
    host, _, port = superlink.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"--superlink {superlink!r}: expected HOST:PORT, as edge.example:8000")


def _own_options(settings: Any, given: list[str], roots: Path | None, node_config: str, stock: bool) -> list[str]:
    """The command line of a node that is started for an attachment: as this one's, without where and as what."""
    words = list(given)
    for option, value in (("--root-certificates", roots), ("--node-config", node_config or None)):
        if value is not None and option in words:
            at = words.index(option)
            del words[at : at + 2]
    for name, value in asdict(settings).items():
        if name != "quiet_after_s":
            words = [f"--{name.replace('_', '-')}", str(value), *words]
    known = [] if roots is None else ["--root-certificates", str(roots)]
    return [*known, *(["--stock"] if stock else []), *words]


def _follow(file: Path, options: list[str], node_config: str, as_json: bool) -> None:
    from ..runtime.launching.processes import Interrupts
    from ..runtime.warm.attached import Attachment, stay_attached

    def command(where: Attachment, count: int) -> list[str]:
        words = list(options)
        if where.authority:
            if "--root-certificates" in words:
                at = words.index("--root-certificates")
                del words[at : at + 2]
            words = ["--root-certificates", where.authority, *words]
        config = f"{node_config} attachment={count}".strip()
        python = [sys.executable, "-m", "flower_edge.cli.main", "node"]
        return [*python, "--superlink", where.superlink, "--node-config", config, *words]

    def tell(words: str) -> None:
        typer.echo(json.dumps({"event": words}) if as_json else f"flower-edge node: {words}")

    with Interrupts() as interrupts:
        stay_attached(file, command, lambda: interrupts.signal is not None, tell)


def _become(settings: str, port: int, given: list[str], stock: bool) -> NoReturn:
    """Be the other program from here on, with the same process id: signals go straight to it."""
    sys.stdout.flush()
    python = [sys.executable, "-P", "-m", "flower_edge.runtime.warm.host"]
    os.execv(sys.executable, [*python, "stock" if stock else settings, str(port), *given])


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
