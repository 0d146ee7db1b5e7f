"""`flower-edge devices`: who has joined a server, a join line for more, and out with one that was lost."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..errors import ConfigError
from .columns import seconds
from .up import StateOption, parse_duration

if TYPE_CHECKING:
    from ..enrolment.book import EnrolmentBook
    from ..enrolment.server_folder import ServerFolder

__all__ = ["register"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
_DEFAULT = Path("flower-edge-server")
#: For `up` to tell Flower of a device that is out.
_FLOWER_S: Final = 60.0

verbs = typer.Typer(
    help="Devices of a `flower-edge up` on this machine: list them, invite more, remove one.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.add_typer(verbs, name="devices")


@verbs.command("list")
def show(
    state: StateOption = _DEFAULT,
    removed: Annotated[bool, typer.Option("--removed", help="Those that were removed or have left, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the devices that have joined, whether `up` runs or not; while it runs, also when they were last seen.

    Exit code: 0 listed; 2 the folder is not one of `up`.

    Example: flower-edge devices list --state /srv/flower
    """
    from rich.console import Console
    from rich.table import Table

    from ..enrolment.book import EnrolmentBook
    from ..enrolment.seen import read_seen

    folder = _folder(state)
    devices, seen = EnrolmentBook(folder.book).devices(removed=removed), read_seen(folder)
    if as_json:
        rows = [
            {
                "name": d.name,
                "node_id": d.node_id,
                "state": d.state,
                "since_s": d.since_s,
                "seen_s_ago": None if seen is None else seen.get(d.public_key),
            }
            for d in devices
        ]
        print(json.dumps({"serves": folder.in_use, "devices": rows}, indent=2))
        return
    if not devices:
        print("no device has joined; `flower-edge devices invite` makes a join line")
        return
    table = Table("device", "node id", "state", "since (UTC)", "last seen", box=None, pad_edge=False)
    for device in devices:
        since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(device.since_s))
        table.add_row(device.name, str(device.node_id or "-"), device.state, since, _last_seen(seen, device.public_key))
    Console(highlight=False, soft_wrap=True).print(table)
    if seen is None:
        why = "has not said so for a minute" if folder.in_use else "does not run with this --state"
        print(f"who is online is not known: `flower-edge up` {why}")


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
    """Take a device out for good: lost, stolen or broken. Its key is never taken again.

    Its certificate for peers is on the list that runs of this server read before each round. Where `up` runs, this
    waits until Flower's SuperLink has let the node go; where it does not, `up` sees to that until it has worked.

    Exit code: 0 removed; 2 there is no such device.

    Example: flower-edge devices remove raspberrypi-2 --state /srv/flower
    """
    from ..enrolment.book import EnrolmentBook

    folder = _folder(state)
    book = EnrolmentBook(folder.book)
    found = book.called(device)
    book.removed(found.public_key)
    serves, told, latest_s = folder.in_use, _told(book, found.public_key), time.monotonic() + _FLOWER_S
    while serves and not told and time.monotonic() < latest_s:
        time.sleep(0.2)
        serves, told = folder.in_use, _told(book, found.public_key)
    if as_json:
        print(json.dumps({"removed": found.name, "node_id": found.node_id, "flower_told": told}))
        return
    print(f"{found.name} (node {found.node_id}) is out; its key is not taken again")
    if not told:
        later = "as soon as the SuperLink answers" if serves else "when it is started"
        print(f"Flower does not know it yet: `flower-edge up` tells it {later}")


def _last_seen(seen: Mapping[str, float] | None, public_key: str) -> str:
    from ..enrolment.desk import ONLINE_S

    ago_s = None if seen is None else seen.get(public_key)
    if ago_s is None:
        return "-"
    return "online" if ago_s < ONLINE_S else f"{seconds(ago_s)} ago"


def _told(book: EnrolmentBook, public_key: str) -> bool:
    return all(device.public_key != public_key for device in book.untold())


def _folder(state: Path) -> ServerFolder:
    from ..enrolment.server_folder import ServerFolder

    if not (state / "enrolment.sqlite").exists():
        raise ConfigError(f"--state {state} is no folder of `flower-edge up`; give the one that it was started with")
    return ServerFolder.at(state)
