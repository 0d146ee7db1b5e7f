"""`flower-edge join`: make this machine a node of a server, with the line that `flower-edge up` printed."""

from __future__ import annotations

import json
import os
import shlex
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, cast

import typer

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..enrolment.device_folder import DeviceFolder, Joined, Manner

__all__ = ["DeviceStateOption", "device_folder", "register"]

DeviceStateOption = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="What the device keeps. Not given: /var/lib or ~/.local/state."),
]
_MANNERS = ("auto", "systemd", "process", "termux")


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("join", context_settings={"allow_extra_args": True})(join)


def join(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="Of the server, as https://edge.example:8000.")],
    ca_fingerprint: Annotated[str, typer.Option(metavar="SHA256", help="Of the server's authority.")],
    token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="The right to join; not needed where this device has joined before."),
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="Of this device, for people. Not given: the host's.")] = "",
    state: DeviceStateOption = None,
    node_config: Annotated[
        str, typer.Option(metavar="TEXT", help="As flower-supernode: \"partition-id=0 site='north'\".")
    ] = "",
    memory_mb: Annotated[float, typer.Option(metavar="MB", help="For the node, at most, under systemd; 0: any.")] = 0.0,
    cpus: Annotated[float, typer.Option(metavar="NUMBER", help="Processors, the same; 0: all.")] = 0.0,
    min_battery: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Below it, and not plugged in, the node rests; without systemd. Not given: 0.3 in Termux, else 0.",
        ),
    ] = None,
    runner: Annotated[
        str, typer.Option(metavar="KIND", help="What runs the node: auto, systemd, process or termux.")
    ] = "auto",
    wait_s: Annotated[float, typer.Option(metavar="SECONDS", help="For the node to be online.")] = 180.0,
    stock: Annotated[bool, typer.Option("--stock", help="Run Flower's own SuperNode.")] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Become the node, and install nothing: for containers.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written; send and write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document at the end.")] = False,
) -> None:
    """Make this machine a node of a server, and wait until it is online.

    The key is made here and stays here. The server's fingerprint is checked before anything is sent. The node is run
    by systemd, where there is none by a process that starts it again, in Termux by a script. Options of
    `flower-edge node` go behind --. May be done again: what is done already is left, what broke off goes on.

    Exit code: 0 online, or as --foreground says; 2 something could not be done, and what; 130 Ctrl-C: what was done
    stays, and the same line goes on.

    Example: flower-edge join https://edge.example:8000 --token 4f1c... --ca-fingerprint 9b2e...
    --node-config "partition-id=0"
    """
    from ..enrolment import joining
    from ..enrolment.desk_client import ServerUrl, fingerprint_digits
    from ..enrolment.device_folder import Joined, NodeOptions
    from ..enrolment.requests import device_name
    from ..enrolment.runners import choose_manner, runner_of

    if runner not in _MANNERS:
        raise ConfigError(f"--runner {runner}: expected one of {', '.join(_MANNERS)}")
    sizes = 0.0 <= memory_mb < float("inf") and 0.0 <= cpus < float("inf")
    if not (sizes and 0.0 <= (min_battery or 0.0) <= 1.0 and wait_s > 0.0):
        raise ConfigError("--memory-mb and --cpus are 0 or more, --min-battery from 0 to 1, --wait-s above 0")
    manner = choose_manner() if runner == "auto" else cast("Manner", runner)
    if foreground:
        manner = "foreground"
    battery = (0.3 if manner == "termux" else 0.0) if min_battery is None else min_battery
    options = NodeOptions(
        node_config=node_config, memory_bytes=round(memory_mb * 1e6), cpu_share=cpus, stock=stock, min_battery=battery,
        more=tuple(context.args),
    )  # fmt: skip
    folder = device_folder(state)
    line = joining.JoinLine(ServerUrl.read(url), fingerprint_digits(ca_fingerprint), token)
    called = device_name(name or socket.gethostname())
    if dry_run:
        planned = Joined(
            url=str(line.url), ca_fingerprint=line.fingerprint, name=called, manner=manner, options=options
        )
        _show_plan(folder, planned, as_json)
        return
    say = (lambda words: None) if as_json else typer.echo
    if manner != "systemd" and (memory_mb or cpus):
        say(f"--memory-mb and --cpus hold under systemd only; here, by {manner}, the node takes what it needs")
    joined = joining.join(folder, line, name=called, manner=manner, options=options, tell=say)
    if foreground:
        _become(folder, joined)
    how = runner_of(folder, joined)
    how.start()
    say(f"the node is started ({manner}); waiting for it to be online ...")
    status = joining.wait_online(folder, joined, seconds=wait_s)
    if as_json:
        told = {"online": True, "name": status.name, "node_id": status.node_id, "url": joined.url, "runner": manner}
        typer.echo(json.dumps({**told, "state": str(folder.path), "files": [str(path) for path in how.files()]}))
        return
    typer.echo(f"online: {status.name}, node {status.node_id} of {joined.url}")
    typer.echo(f"its files are in {folder.path}; `flower-edge leave` undoes it all")
    if manner == "process":
        typer.echo("nothing starts it after a reboot: do this line again then, its token is not needed any more")


def device_folder(state: Path | None) -> DeviceFolder:
    """The folder of the join that is meant."""
    from ..enrolment.device_folder import DeviceFolder, default_device_folder

    return DeviceFolder((state or default_device_folder()).expanduser().absolute())


def _show_plan(folder: DeviceFolder, joined: Joined, as_json: bool) -> None:
    from ..enrolment.runners import runner_of

    files = {} if joined.manner == "foreground" else runner_of(folder, joined).files()
    command = shlex.join(folder.command(joined))
    kept = [
        str(folder.file(name))
        for name in ("node.key", "authority.pem", "join.json", "peer.key", "peer.pem", "peers.pem")
    ]
    if as_json:
        texts = {str(path): text for path, text in files.items()}
        typer.echo(json.dumps({"runner": joined.manner, "node": command, "keeps": kept, "files": texts}))
        return
    typer.echo(f"would join {joined.url} as {joined.name} and run, by {joined.manner}:\n  {command}")
    typer.echo("would keep:\n  " + "\n  ".join(kept))
    for path, text in files.items():
        typer.echo(f"would write {path}:\n\n{text}")


def _become(folder: DeviceFolder, joined: Joined) -> NoReturn:
    """Be the node from here on, with the same process id: signals go straight to it."""
    command = folder.command(joined)
    os.environ.update(folder.variables())
    os.execv(command[0], command)
