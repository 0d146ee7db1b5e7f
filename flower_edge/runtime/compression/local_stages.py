"""`LocalStages`: `flower-edge stage` processes of this machine, with TLS, and links between them as slow as wanted.

For trials, scenarios and demonstrations: everything is real but the distance. It ends the processes that it started,
and no others; they end with this process, too, however that ends. Nothing here knows a model.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

from ...errors import FringeError, TransportError
from ...fringe.links import Link
from ...splitting.order import ArchitectureSpec
from ...transport.certificates import issue, make_authority
from ...transport.credentials import TrustServer
from ...transport.grpc_transport import GrpcTransport
from ..fringe.shaper import LinkShaper
from .fleets import checked_links, connection_named, links_between

if TYPE_CHECKING:
    from ..fringe.deployment_torch import Deployment

__all__ = ["LocalStages"]

_HOST: Final = "127.0.0.1"
_END_S: Final = 30.0


class LocalStages:
    """Stages on this machine; a context manager, which starts and ends them.

    Args:
        machines: names, one process each.
        links: between each two that follow one another, there and back alike; None: as fast as this machine.
        folder: where certificates, keys, the secret and what the stages say are kept; None: a temporary one.
        threads: of torch, of each process.
        options: more options of `flower-edge stage`, such as ("--batch", "1").

    Raises:
        FringeError: machines and links that do not go together.
    """

    def __init__(
        self,
        machines: Sequence[str],
        links: Sequence[Link | None] | None = None,
        *,
        folder: str | Path | None = None,
        threads: int = 1,
        options: Sequence[str] = (),
    ) -> None:
        self._links = list(checked_links(machines, links))
        for machine in machines:
            if Path(machine).name != machine:  # a file of its own is called so
                raise FringeError(f"machine {machine!r}: expected a name without / and not '..', such as 'camera'")
        self._machines, self._threads, self._options = tuple(machines), threads, tuple(options)
        self._given_folder = None if folder is None else Path(folder)
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._addresses: dict[str, str] = {}
        self._shapers: dict[tuple[str, str], LinkShaper] = {}
        self._running: ExitStack | None = None
        self._transport: GrpcTransport | None = None
        self._secret = b""
        self._lock = threading.RLock()

    @property
    def machines(self) -> tuple[str, ...]:
        """See `Fleet`."""
        return self._machines

    def links(self) -> tuple[Link | None, ...]:
        """See `Fleet`; what they are shaped to now."""
        with self._lock:
            return tuple(self._links)

    def addresses(self) -> Mapping[str, str]:
        """See `Fleet`; none before `open`."""
        return dict(self._addresses)

    @property
    def processes(self) -> dict[str, int]:
        """By machine, the id of its process."""
        return {name: one.pid for name, one in self._processes.items()}

    def open(self) -> None:
        """Start the stages, all at once. Safe to call twice.

        Raises:
            TransportError: one did not start; the message has what it said.
        """
        with self._lock:
            if self._running is not None:
                return
            self._running = ExitStack()
            try:
                self._start(self._running)
            except BaseException:
                self.close()
                raise

    def _start(self, running: ExitStack) -> None:
        if self._given_folder is None:
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="flower-edge-stages-")))
        else:
            folder = self._given_folder
            folder.mkdir(parents=True, exist_ok=True)
        authority = make_authority("flower-edge local stages")
        host = issue(authority, [_HOST])
        self._secret = secrets.token_hex(32).encode()
        files = {
            "authority.pem": authority.certificate_pem,
            "host.pem": host.certificate_pem,
            "host.key": host.key_pem,
            "secret": self._secret,
        }
        for name, data in files.items():
            with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
        self._transport = GrpcTransport(TrustServer(authority.certificate_pem))
        for machine in self._machines:
            said = running.enter_context((folder / f"{machine}.log").open("wb"))
            command = [sys.executable, "-m", "flower_edge.cli.main", "stage", "--json", "--machine", machine]
            command += ["--listen", f"{_HOST}:0", "--threads", str(self._threads), "--secret", str(folder / "secret")]
            command += ["--ends-with-input"]  # even should this process be killed
            for option, name in (("certificate", "host.pem"), ("key", "host.key"), ("authority", "authority.pem")):
                command += [f"--{option}", str(folder / name)]
            # A session of its own: Ctrl-C is for who controls, who then ends the stages.
            self._processes[machine] = subprocess.Popen(
                [*command, *self._options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                start_new_session=True,
            )
        for machine, process in self._processes.items():
            line = _told(process).readline()
            try:
                self._addresses[machine] = json.loads(line)["listening"]
            except (ValueError, KeyError):
                text = (folder / f"{machine}.log").read_text(errors="replace").strip()
                last = text.splitlines()[-1] if text else "it said nothing"
                raise TransportError(f"the stage of machine {machine!r} did not start: {last[:300]}") from None

    def relink(self, connection: int | str, link: Link) -> None:
        """Make a link another one from now on.

        Args:
            connection: its number among neighbours, or such as "camera -> gateway".
            link: both ways.

        Raises:
            FringeError: no such connection, or one that was begun without a link.
        """
        number, name = connection_named(self._machines, connection)
        with self._lock:
            if self._links[number] is None:
                raise FringeError(f"connection {name} has no link that is shaped; give links=[…] at first")
            self._links[number] = link
            for (before, after), shaper in self._shapers.items():
                (now,) = links_between(self._machines, self._links, (before, after))
                if now is not None:
                    shaper.change(now, back=now)

    def deployed(self, machines: Sequence[str], architecture: ArchitectureSpec | None = None) -> Deployment:
        """See `Fleet`; starts the stages if nobody has."""
        from ..fringe.deployment_torch import Deployment

        with self._lock:
            self.open()
            assert self._running is not None
            assert self._transport is not None
            ways = links_between(self._machines, self._links, machines)
            for pair, link in zip(itertools.pairwise(machines), ways, strict=True):
                if link is not None and pair not in self._shapers:
                    shaper = LinkShaper(self._addresses[pair[1]], link, back=link)
                    self._shapers[pair] = self._running.enter_context(shaper)
            pairs = itertools.pairwise(machines)
            via = {pair[1]: self._shapers[pair].address for pair in pairs if pair in self._shapers}
            return Deployment(
                {name: self._addresses[name] for name in machines},
                self._transport,
                via=via,
                secret=self._secret,
                architecture=architecture,
            )

    def close(self) -> None:
        """See `Fleet`: ends the stages and the links between them."""
        with self._lock:
            running, self._running = self._running, None
            processes, self._processes = self._processes, {}
            self._addresses, self._shapers = {}, {}
            for process in processes.values():
                with suppress(OSError):
                    process.terminate()
            for process in processes.values():
                try:
                    process.wait(_END_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                _told(process).close()
                assert process.stdin is not None
                process.stdin.close()
            if running is not None:
                running.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _told(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout
