"""What `flower-edge doctor` looks at on a machine that has joined a server, or is about to.

As in `checks`: one function per question, nothing is printed or changed. Whether the server is right about the time is
not known here: what is told is how far the two clocks are apart, by the server's own word.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import EdgeError, EnrolmentRefused
from ..units import human_bits
from .checks import Check

if TYPE_CHECKING:
    from ..enrolment.desk_client import ServerUrl
    from ..enrolment.device_folder import DeviceFolder, Joined

__all__ = ["certificate", "clock_of_server", "device_disk", "join_checks", "server_before"]

_SOON_DAYS: Final = 14.0
#: An app and a model, and a log that is cut at 5 MB.
_DISK_BYTES: Final = 200_000_000


def join_checks(folder: DeviceFolder, url: str = "") -> Iterator[Check]:
    """The checks in order.

    Args:
        folder: of the join, if there is one.
        url: of a server that is to be joined; looked at where nothing has joined yet.
    """
    try:
        joined = folder.joined()
    except EdgeError as error:
        yield Check("join", "fail", str(error), "flower-edge leave --force, then join anew")
        return
    if joined is None:
        if url:
            yield from server_before(url)
        else:
            from ..enrolment.device_folder import or_was_it_root

            looked = f"nothing has joined here (looked in {folder.path}){or_was_it_root('doctor')}"
            yield Check("join", "ok", looked)
        return
    yield from _joined(folder, joined)


def _joined(folder: DeviceFolder, joined: Joined) -> Iterator[Check]:
    from ..enrolment.desk_client import DeskClient, ServerUrl
    from ..enrolment.node_keys import NodeKey
    from ..enrolment.runners import runner_of

    yield device_disk(folder.path)
    for file, what in (("authority.pem", "server's authority"), ("peer.pem", "peer certificate")):
        if folder.file(file).exists():
            yield certificate(what, folder.file(file).read_bytes())
    if joined.manner != "foreground":
        running = runner_of(folder, joined).running()
        fix = "" if running else "do the join line again, its token is not needed any more"
        yield Check(
            "node", "ok" if running else "fail", f"{'runs' if running else 'does not run'} ({joined.manner})", fix
        )
    try:
        client = DeskClient(
            ServerUrl.read(joined.url), folder.file("authority.pem").read_bytes(), NodeKey.at(folder.file("node.key"))
        )
        with client as desk:
            _, ahead = desk.challenge()
            yield Check("server", "ok", f"{joined.url} answers, and is vouched for by the authority it was joined with")
            yield clock_of_server(ahead)
            status = desk.status()
    except EnrolmentRefused as refused:
        yield Check("join", "fail", str(refused), "flower-edge leave, then join with a new token")
        return
    except (EdgeError, OSError) as error:
        yield Check(
            "server", "fail", str(error), f"look at {joined.url} from here: network, firewall, `flower-edge up`"
        )
        return
    seen = "never since it was started" if status.seen_s_ago is None else f"{status.seen_s_ago:.0f} s ago"
    found = f"{status.name}, node {status.node_id}, last seen by the server {seen}"
    if status.online:
        yield Check("join", "ok", f"online: {found}")
    else:
        yield Check("join", "warn", f"not online: {found}", f"see {folder.file('node.log')}, or the log of systemd")


def server_before(url: str) -> Iterator[Check]:
    """Whether a server can be reached, with nothing known of it but where it is."""
    import httpx

    from ..enrolment.desk_client import ServerUrl, ahead_s
    from ..transport.certificates import fingerprint

    where: ServerUrl | None = None
    try:
        where = ServerUrl.read(url)
        answer = httpx.get(f"{where}/enrol/authority", verify=False, timeout=10.0, trust_env=False)
        found = fingerprint(answer.content)
    except (EdgeError, httpx.HTTPError) as error:
        yield Check(
            "server",
            "fail",
            f"{where or url}: {error}",
            "is `flower-edge up` running, and does a firewall let it through?",
        )
        return
    yield Check(
        "server", "ok", f"{where} answers; its authority's fingerprint is {found}: compare it with the join line"
    )
    yield clock_of_server(ahead_s(answer))


def clock_of_server(ahead: float | None) -> Check:
    """Whether Flower would take this device's signatures: it takes those of the last five minutes."""
    from ..enrolment.desk_client import check_clock

    if ahead is None:
        return Check("clock and server", "ok", "the server tells no time")
    found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's, by its own word"
    try:
        check_clock(ahead)
    except EdgeError:
        return Check(
            "clock and server", "fail", found, "Flower would refuse this device: sudo timedatectl set-ntp true"
        )
    if abs(ahead) > 60.0:
        return Check("clock and server", "warn", found, "set the time: sudo timedatectl set-ntp true")
    return Check("clock and server", "ok", found)


def certificate(what: str, pem: bytes) -> Check:
    """Whether a certificate is valid now, by this machine's clock, and for a while."""
    from ..enrolment.peer_certificates import validity

    try:
        begins, ends = validity(pem)
    except EdgeError as error:
        return Check(what, "fail", str(error), "do the join line again")
    days = (ends.timestamp() - time.time()) / 86_400.0
    if time.time() < begins.timestamp():
        return Check(what, "fail", f"valid from {begins:%Y-%m-%d} on", "set the clock")
    if days <= 0.0:
        return Check(what, "fail", f"expired on {ends:%Y-%m-%d}", "do the join line again")
    if days < _SOON_DAYS:
        return Check(what, "warn", f"expires in {days:.0f} days", "do the join line again")
    return Check(what, "ok", f"valid for {days:.0f} days")


def device_disk(folder: Path) -> Check:
    """Room for apps and the log."""
    free_bytes = shutil.disk_usage(folder).free
    found = f"{human_bits(8 * free_bytes)} free for {folder}"
    if free_bytes < _DISK_BYTES:
        return Check("device disk", "warn", found, "make room: 200 MB for apps, models and logs")
    return Check("device disk", "ok", found)
