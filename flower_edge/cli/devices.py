"""`flower-edge devices`: who has joined a server, a join line for more, and out with one that was lost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError, EdgeError
from .up import StateOption, parse_duration

if TYPE_CHECKING:
    from ..enrolment.server_folder import ServerFolder

__all__ = ["register"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
_DEFAULT = Path("flower-edge-server")

verbs = typer.Typer(
    help="Devices of a `flower-edge up` on this machine: list them, invite more, remove one.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.add_typer(verbs, name="devices")


@verbs.command("list")
def show(state: StateOption = _DEFAULT, as_json: JsonOption = False) -> None:
    """List the devices that have joined, whether `up` runs or not.

    Exit code: 0 listed; 2 the folder is not one of `up`.

    Example: flower-edge devices list --state /srv/flower
    """
    from rich.console import Console
    from rich.table import Table

    from ..enrolment.book import EnrolmentBook

    devices = EnrolmentBook(_folder(state).book).devices()
    if as_json:
        rows = [{"name": d.name, "node_id": d.node_id, "state": d.state, "since_s": d.since_s} for d in devices]
        print(json.dumps({"devices": rows}, indent=2))
        return
    if not devices:
        print("no device has joined; `flower-edge devices invite` makes a join line")
        return
    table = Table("device", "node id", "state", "since (UTC)", box=None, pad_edge=False)
    for device in devices:
        since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(device.since_s))
        table.add_row(device.name, str(device.node_id or "-"), device.state, since)
    Console(highlight=False, soft_wrap=True).print(table)


@verbs.command("invite")
def invite(
    state: StateOption = _DEFAULT,
    uses: Annotated[int, typer.Option(metavar="DEVICES", help="For how many the line is good.")] = 1,
    valid: Annotated[str, typer.Option(metavar="TIME", help="And how long: 30m, 12h, 7d.")] = "1h",
    as_json: JsonOption = False,
) -> None:
    """Print a line that lets devices join. The token in it is shown once; the server keeps only its SHA-256.

    Exit code: 0 made; 2 the folder is not one of `up`, or no such number or time.

    Example: flower-edge devices invite --state /srv/flower --uses 20 --valid 7d
    """
    from ..enrolment.book import EnrolmentBook
    from ..enrolment.server import join_line

    folder = _folder(state)
    token = EnrolmentBook(folder.book).invite(uses=uses, valid_s=parse_duration(valid))
    line = join_line(str(folder.recall("public-url")), token, folder.fingerprint())
    print(json.dumps({"join": line, "uses": uses, "valid": valid}) if as_json else line)


@verbs.command("remove")
def remove(
    device: Annotated[str, typer.Argument(metavar="NAME", help="Of the device, or its node id.")],
    state: StateOption = _DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Take a device out for good: lost, stolen or broken. Its key is never taken again. Needs `up` to run.

    Exit code: 0 removed; 2 there is no such device, or Flower could not be told: then do it again.

    Example: flower-edge devices remove raspberrypi-2 --state /srv/flower
    """
    from ..enrolment.book import EnrolmentBook
    from ..enrolment.superlink import SuperLink

    folder = _folder(state)
    book = EnrolmentBook(folder.book)
    found = book.called(device)
    port = folder.recall("control-port")
    if found.node_id is not None and isinstance(port, int):
        try:
            SuperLink(folder, port).unregister(found.node_id)
        except EdgeError as error:
            raise ConfigError(f"{found.name} is still in: {error}; is `flower-edge up` running here?") from None
    book.removed(found.public_key)
    words = f"{found.name} (node {found.node_id}) is out; its key is not taken again"
    print(json.dumps({"removed": found.name, "node_id": found.node_id}) if as_json else words)


def _folder(state: Path) -> ServerFolder:
    from ..enrolment.server_folder import ServerFolder

    if not (state / "enrolment.sqlite").exists():
        raise ConfigError(f"--state {state} is no folder of `flower-edge up`; give the one that it was started with")
    return ServerFolder.at(state)
