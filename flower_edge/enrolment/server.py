"""`EnrolmentServer`: a SuperLink behind a fleet filter, with a desk where devices join. One process, which ends it all.

    EnrolmentServer(ServerFolder.at(path), listen=("0.0.0.0", 8000), hosts=["edge.example"])

What is public is one port. The SuperLink, and with it the control API, is on the loopback address of this machine:
whoever has an account here may start runs, and nobody else. Nothing here prints; `tell` is called with lines.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from ..errors import ConfigError, EdgeError, EnrolmentError
from ..peers.revoked import REVOKED_VARIABLE, revoked_as_bytes
from ..runtime.launching.environment import HOST, hold_port
from .book import Device, EnrolmentBook
from .desk import ONLINE_S, EnrolmentDesk, Sightings
from .fleet_filter import FilterLimits, FleetFilter
from .listening import PublicPort, bind
from .seen import WRITTEN_EVERY_S, write_seen
from .server_folder import ServerFolder, write_whole
from .superlink import SuperLink

__all__ = ["AppRun", "EnrolmentServer", "SeenDevice", "addresses_here", "join_line"]

_RENEW_EVERY_S: Final = 3600.0
_RUN_EVERY_S: Final = 5.0
#: Before the list of who is out is read and written again, where it did not work.
_TELL_EVERY_S: Final = 5.0


@dataclass(frozen=True)
class AppRun:
    """An app that is run once enough devices are online.

    Attributes:
        app: its folder, or a `.fab` file.
        run_config: as of `flwr run --run-config`.
        nodes: how many devices have to be online first.
        again: whether it is run again when it has ended.
    """

    app: Path
    run_config: str = ""
    nodes: int = 1
    again: bool = False


@dataclass(frozen=True)
class SeenDevice:
    """A device, and how many seconds ago a request of it was taken; None: not since the server was started, or left."""

    device: Device
    seen_s_ago: float | None

    @property
    def online(self) -> bool:
        """Whether that is a short time."""
        return self.seen_s_ago is not None and self.seen_s_ago < ONLINE_S


class EnrolmentServer:
    """Serves while the context lasts; `look` keeps it going and is to be called every second or so.

    Args:
        folder: what it keeps.
        listen: address and port for devices; port 0 takes a free one, the same again at the next start where it can.
        hosts: names and addresses under which devices dial it. The first stands in join lines.
        wheels: a folder of wheels to give to anybody.
        run: an app to run.
        control_port: of the SuperLink, on the loopback address; 0 as above.
        limits: what a device may cost.
        tell: is called with a line about what happens.
        ended: whether to give up while it is started.

    Raises:
        EdgeError: something is not there, or a port is taken.
    """

    def __init__(
        self,
        folder: ServerFolder,
        *,
        listen: tuple[str, int],
        hosts: Sequence[str],
        wheels: Path | None = None,
        run: AppRun | None = None,
        control_port: int = 0,
        limits: FilterLimits | None = None,
        tell: Callable[[str], None] = lambda line: None,
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        if not hosts:
            raise ConfigError("hosts is empty: give the name or address under which devices reach this server")
        if run is not None and not run.app.exists():
            raise ConfigError(f"--app {run.app}: there is no such folder or file")
        self.folder, self.sightings, self._tell, self._hosts = folder, Sightings(), tell, list(hosts)
        self._listen, self._control_port, self._run = listen, control_port, run
        self._wheels, self._limits, self._ended = wheels, limits, ended
        self._stack = ExitStack()
        self._run_id: int | None = None
        self._run_at_s, self._renew_at_s = 0.0, time.monotonic() + _RENEW_EVERY_S
        self._tell_at_s, self._seen_at_s = 0.0, 0.0
        self._revoked: list[str] | None = None
        #: Called when the public port's certificate may be another one.
        self.renewed: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.folder.locked())
            authority, peers = self.folder.authority(), self.folder.peers()
            self.book = EnrolmentBook(self.folder.book)
            # Before Flower is started, which takes seconds: a port that is taken is told at once.
            held = bind(self._listen[0], self._port("public-port", self._listen[1], self._listen[0]))
            stack.callback(held.close)
            port = self._port("control-port", self._control_port, HOST)
            if port == 0:
                port = stack.enter_context(hold_port())
            self.folder.remember("control-port", port)
            self._write_revoked()
            variables = {REVOKED_VARIABLE: str(self.folder.revoked)}
            self.superlink = SuperLink(self.folder, port, self._tell, variables)
            stack.callback(self.superlink.stop)
            self.superlink.start(self._ended)
            trust = ssl.create_default_context(cafile=str(self.folder.authority_file()))
            self.desk = EnrolmentDesk(
                self.book,
                self.superlink,
                authority_pem=authority.certificate_pem,
                peers=peers,
                sightings=self.sightings,
                wheels=self._wheels,
                tell=self._tell,
            )
            # Before anybody is let in: who was taken out while nobody served.
            self.desk.tell_flower(ended=self._ended)
            # After that: a node of somebody who is out is then nobody else's.
            self._catch_up()
            if self._ended():
                raise EnrolmentError("ended before the public port was opened")
            self._guard = FleetFilter(
                self.superlink.url, trust=trust, own=self.desk, limits=self._limits, watch=self.sightings.note
            )
            certificate, key = self.folder.public_certificate(self._hosts)
            self._public = stack.enter_context(PublicPort(self._guard, held, certificate, key))
            self.folder.remember("public-port", self._public.port)
            self.folder.remember("public-url", self.url)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """Where devices find it."""
        host = self._hosts[0]
        return f"https://{f'[{host}]' if ':' in host else host}:{self._public.port}"

    @property
    def run_id(self) -> int | None:
        """Of the app's run, while there is one."""
        return self._run_id

    def online(self) -> list[Device]:
        """Devices of which the SuperLink has taken a request within the last minute."""
        return [device for device in self.book.devices() if self.sightings.online(device.public_key)]

    def seen(self) -> list[SeenDevice]:
        """All devices that this server knows, and when they were last seen; those that are out at the end."""
        devices = self.book.devices(removed=True)
        return [SeenDevice(device, self.sightings.ago_s(device.public_key)) for device in devices]

    def requests(self) -> dict[str, int]:
        """Requests at the public port since it was opened, by the verdict on them."""
        seen = self.sightings
        return {"taken": seen.taken, "refused": seen.refused, "filtered": self._guard.refused}

    def certificate(self) -> tuple[Path, Path]:
        """Files of the public port's certificate and key, renewed by `look`."""
        return self.folder.public_certificate(self._hosts)

    def invite(self, *, uses: int = 1, valid_s: float = 3600.0) -> str:
        """The line that lets `uses` devices join."""
        return join_line(self.url, self.book.invite(uses=uses, valid_s=valid_s), self.folder.fingerprint())

    def look(self) -> None:
        """Keep it going.

        Raises:
            EnrolmentError: the public port is gone.
        """
        if not self._public.alive:
            raise EnrolmentError("the public port has closed by itself; the log above says why; start it again")
        self.superlink.look()
        now_s = time.monotonic()
        if now_s >= self._renew_at_s:
            self._renew_at_s = now_s + _RENEW_EVERY_S
            self.folder.public_certificate(self._hosts)
            for renew in (self._public.renew, *self.renewed):
                renew()
        if now_s >= self._tell_at_s:
            self._tell_who_is_out(now_s)
        if now_s >= self._seen_at_s:
            self._seen_at_s = now_s + WRITTEN_EVERY_S
            with suppress(EnrolmentError):  # no room: who is online is then not told, and the rest goes on
                write_seen(self.folder, self.sightings.all_s(self.book.devices()))
        if self._run is not None and self.superlink.healthy and now_s >= self._run_at_s:
            self._run_at_s = now_s + _RUN_EVERY_S
            self._look_at_run(self._run)

    def _look_at_run(self, run: AppRun) -> None:
        try:
            if self._run_id is None:
                if len(self.online()) >= run.nodes:
                    self._run_id = self.superlink.verbs.start_run(run.app, run.run_config)
                    self._tell(f"run {self._run_id} of {run.app} has started")
                return
            now = self.superlink.verbs.run_status(self._run_id)
        except EdgeError as error:
            self._tell(f"{error}; tried again in {_RUN_EVERY_S:.0f} s")
            return
        if now.finished:
            self._tell(f"run {self._run_id} has {now.status}{f': {now.details}' if now.details else ''}")
            self._run_id = None
            if not run.again:
                self._run = None

    def _write_revoked(self) -> None:
        """For runs: certificates of devices that are out, whoever took them out."""
        revoked = self.book.revoked()
        if revoked != self._revoked:
            write_whole(self.folder.revoked, revoked_as_bytes(revoked))
            self._revoked = revoked

    def _tell_who_is_out(self, now_s: float) -> None:
        try:
            self._write_revoked()
            if self.superlink.healthy:
                # One at a time: each takes seconds, and whoever calls has more to look at.
                for device in self.desk.tell_flower(most=1):
                    self._tell(f"{device.name} (node {device.node_id or '-'}) is out")
        except EdgeError as error:
            self._tell_at_s = now_s + _TELL_EVERY_S
            self._tell(f"who is out could not be told: {error}; tried again in {_TELL_EVERY_S:.0f} s")

    def _catch_up(self) -> None:
        """Flower's database may be younger than the book: an older copy, or none."""
        devices = [device for device in self.book.devices() if device.node_id is not None]
        if not devices or self._ended():
            return
        nodes = self.superlink.nodes()
        for device in devices:
            if device.node_id not in nodes and not self._ended():
                again = self.superlink.register(device.public_key, device.name)
                self.book.joined(device.public_key, again)
                self._tell(f"{device.name} was not known to Flower any more; it is node {again} now")

    def _port(self, name: str, wanted: int, host: str) -> int:
        """What is asked for, or what it was the last time where that is free, or 0."""
        last = self.folder.recall(name)
        if wanted or not isinstance(last, int):
            return wanted
        try:
            bind(host, last).close()
        except EnrolmentError:
            return 0
        return last


def join_line(url: str, token: str, fingerprint: str) -> str:
    """What is typed on a device."""
    return f"flower-edge join {url} --token {token} --ca-fingerprint {fingerprint}"


def addresses_here() -> list[str]:
    """Under which names and addresses others may reach this machine, the likeliest first."""
    found = []
    # No packet is sent: the system only says which of its addresses it would send from.
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        found.append(str(probe.getsockname()[0]))
    name = socket.gethostname()
    with suppress(OSError):
        found += sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    usable = [address for address in found if not _useless(address)]
    return [*dict.fromkeys([*usable, *([name] if name else []), HOST])]


def _useless(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return True
    return parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified
