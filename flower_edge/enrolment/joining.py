"""Join a server, and leave it: what `flower-edge join` and `flower-edge leave` do, without the printing.

Each step may have been done before: a join that broke off anywhere is done again with the same line, and ends as if it
had not. What protects whom is in docs/joining.md.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ..errors import ConfigError, EnrolmentError, EnrolmentRefused
from .desk_client import DeskClient, ServerUrl, check_clock, fetch_authority, fingerprint_digits
from .device_folder import DeviceFolder, Joined, Manner, NodeOptions, or_was_it_root
from .node_keys import NodeKey
from .requests import StatusReply, device_name
from .runners import runner_of

__all__ = ["JoinLine", "Left", "join", "leave", "wait_online"]

_LOOK_S: Final = 1.0


@dataclass(frozen=True)
class JoinLine:
    """What a join line says.

    Attributes:
        url: of the server.
        fingerprint: of its authority.
        token: good for a device or several; None where this device has joined before.
    """

    url: ServerUrl
    fingerprint: str
    token: str | None = None


@dataclass(frozen=True)
class Left:
    """What `leave` has done, a line each; and what is still to be done on the server, empty where nothing is."""

    done: tuple[str, ...]
    still: str = ""


def join(
    folder: DeviceFolder,
    line: JoinLine,
    *,
    name: str,
    manner: Manner,
    options: NodeOptions,
    tell: Callable[[str], None] = lambda words: None,
) -> Joined:
    """Let this device in at a server, and keep what its node needs. Does not start the node.

    Args:
        folder: where it is kept.
        line: where, and by what right.
        name: what the device would be called.
        manner: what will run the node.
        options: how.
        tell: is called with a line about each step.

    Raises:
        EdgeError: what could not be done; done again, it goes on from there.
    """
    folder.make()
    before, digits = folder.joined(), fingerprint_digits(line.fingerprint)
    if before is not None and (before.url, before.ca_fingerprint) != (str(line.url), digits):
        raise EnrolmentError(
            f"this device has joined {before.url} as {before.name} (kept in {folder.path}); run `flower-edge leave` "
            "first, or give a --state of its own to the second one"
        )
    authority = fetch_authority(line.url, digits)
    tell(f"the authority of {line.url} has the fingerprint it should have")
    check_clock(authority.ahead_s)
    wish = before.name if before is not None else device_name(name)
    joined = Joined(
        url=str(line.url), ca_fingerprint=digits, name=wish, manner=manner, options=options,
        node_id=None if before is None else before.node_id,
    )  # fmt: skip
    folder.write("authority.pem", authority.pem, mode=0o644)
    key = NodeKey.at(folder.file("node.key"))
    # Before the token is used up: a device that cannot keep what it gets must not be let in.
    folder.keep(joined)
    with DeskClient(line.url, authority.pem, key) as desk:
        reply = desk.join(wish, line.token)
    folder.write("peer.key", key.pem())
    folder.write("peer.pem", reply.certificate.encode("ascii"), mode=0o644)
    folder.write("peers.pem", reply.peer_authority.encode("ascii"), mode=0o644)
    joined = joined.model_copy(update={"name": reply.name, "node_id": reply.node_id})
    folder.keep(joined)
    tell(f"joined as {reply.name}, node {reply.node_id}")
    return joined


def wait_online(folder: DeviceFolder, joined: Joined, *, seconds: float) -> StatusReply:
    """Wait until the SuperLink has taken a request of this device's node.

    Raises:
        EnrolmentError: it has not, in so many seconds.
        EnrolmentRefused: the server has let the device go.
    """
    latest_s = time.monotonic() + seconds
    began_s = time.monotonic()
    while True:
        said = ""
        try:
            with _desk(folder, joined) as desk:
                status = desk.status()
            # A node of before that was replaced would be seen as well, for a minute.
            fresh = status.seen_s_ago is not None and status.seen_s_ago <= time.monotonic() - began_s
            if status.online and fresh:
                return status
        except EnrolmentRefused:
            raise
        except EnrolmentError as error:
            said = f"; the server: {error}"
        if time.monotonic() > latest_s:
            raise EnrolmentError(f"the node is not online after {seconds:.0f} s{said}; {_last_words(folder)}")
        time.sleep(_LOOK_S)


def leave(folder: DeviceFolder, *, force: bool = False) -> Left:
    """Stop the node, let the server forget this device, and remove what the join has written.

    Args:
        folder: of the join.
        force: remove it also where the server cannot be told.

    Raises:
        ConfigError: nothing has joined here.
        EnrolmentError: the server could not be told; nothing but the node's run was ended.
    """
    try:
        joined = folder.joined()
    except EnrolmentError:
        if not force:
            raise
        joined = None
    here = [name for name in DeviceFolder.FILES if folder.file(name).exists()]
    if joined is None and not (force and here):
        hint = or_was_it_root("leave")
        raise ConfigError(f"nothing has joined in {folder.path}; give the --state that `flower-edge join` had{hint}")
    done, still = [], ""
    if joined is not None:
        if joined.manner != "foreground":
            done += runner_of(folder, joined).stop()
        if folder.file("node.key").exists() and folder.file("authority.pem").exists():
            try:
                with _desk(folder, joined) as desk:
                    gone = desk.leave()
                done.append(f"{joined.url} has let {gone.name} go (node {gone.node_id})")
            except EnrolmentRefused as refused:
                if refused.code != "unknown":
                    raise
                done.append(f"{joined.url} did not know this device")
            except EnrolmentError as error:
                if not force:
                    raise EnrolmentError(
                        f"{_sentence(error)} The node is stopped, the rest is as it was: do it again when the server "
                        "is there, or use --force and remove the device on the server"
                    ) from None
                still = f"{_sentence(error)} On the server: flower-edge devices remove {joined.name}"
    for name in here:
        folder.file(name).unlink(missing_ok=True)
    shutil.rmtree(folder.file("flower"), ignore_errors=True)
    done.append(f"removed from {folder.path}: {', '.join(here)}")
    with suppress(OSError):  # something else lies there
        folder.path.rmdir()
    return Left(tuple(done), still)


def _sentence(error: EnrolmentError) -> str:
    words = str(error)
    return words if words.endswith(("?", ".")) else f"{words}."


def _desk(folder: DeviceFolder, joined: Joined) -> DeskClient:
    try:
        authority = folder.file("authority.pem").read_bytes()
    except OSError as error:
        raise EnrolmentError(f"{error.filename} cannot be read ({error.strerror}); join anew") from None
    return DeskClient(ServerUrl.read(joined.url), authority, NodeKey.at(folder.file("node.key")))


def _last_words(folder: DeviceFolder) -> str:
    try:
        lines = folder.file("node.log").read_text("utf-8", "replace").splitlines()[-8:]
    except OSError:
        return "see `journalctl -u flower-edge-node`, or with --user"
    return "\n".join([f"the last of {folder.file('node.log')}:", *lines])
