"""A real deployment of Flower on this machine's loopback: SuperLinks, SuperNodes, and the runs of an app.

For benchmarks and slow tests. Everything has ports, a FLWR_HOME and processes of its own, found again by a mark in
their environment and ended with the context. Nothing here measures.
"""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flower_edge.errors import LaunchError
from flower_edge.runtime.launching.environment import CONNECTION, HOST, WorkFolder, hold_port, scripts_folder
from flower_edge.runtime.launching.processes import Family

__all__ = ["HOST", "Deployment", "Tls", "deployment"]


@dataclass(frozen=True)
class Tls:
    """What a SuperLink and its nodes need for TLS.

    Attributes:
        authority, certificate, key: PEM files; the certificate is good for the loopback address.
        node_keys: let only nodes in whose key is registered.
    """

    authority: Path
    certificate: Path
    key: Path
    node_keys: bool = False


@dataclass(frozen=True)
class _Link:
    name: str
    port: int
    tls: Tls | None
    database: Path | None

    def healthy(self) -> bool:
        """Whether it answers."""
        if self.tls is None:
            connection = http.client.HTTPConnection(HOST, self.port, timeout=0.5)
        else:
            trust = ssl.create_default_context(cafile=str(self.tls.authority))
            connection = http.client.HTTPSConnection(HOST, self.port, timeout=0.5, context=trust)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Deployment:
    """SuperLinks and SuperNodes that run. Made by `deployment`."""

    def __init__(
        self, work: WorkFolder, family: Family, scripts: Path, environment: dict[str, str], stack: ExitStack
    ) -> None:
        self._work, self._family, self._scripts, self._environment = work, family, scripts, environment
        self._stack = stack
        self._links: dict[str, _Link] = {}

    @property
    def port(self) -> int:
        """Of the first SuperLink."""
        return self._links[CONNECTION].port

    @property
    def folder(self) -> Path:
        """A folder of its own, gone at the end."""
        return self._work.path

    def free_port(self) -> int:
        """A port that nobody else is given before the end."""
        return self._stack.enter_context(hold_port())

    def start(
        self, log: str, program: str, *arguments: str, variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start one of the programs beside this Python; it ends with the deployment."""
        with (self._work.path / f"{log}.log").open("ab") as out:
            return self._family.start(
                [str(self._scripts / program), *arguments],
                environment={**self._environment, **(variables or {})},
                cwd=self._work.cwd,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    # -- SuperLinks and SuperNodes -----------------------------------------------------------------------------------

    def add_superlink(
        self, name: str = CONNECTION, *, tls: Tls | None = None, database: Path | None = None, wait: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start a SuperLink; under the same name once more, on the same port, after it has ended.

        Args:
            name: by which `run` finds it.
            tls: none: without.
            database: the file its state is in; none: in its memory.
            wait: until it answers.

        Raises:
            LaunchError: it does not answer.
        """
        link = self._links.get(name)
        if link is None:
            link = self._links[name] = _Link(name, self.free_port(), tls, database)
            self._write_connections()
        given = ["--insecure"]
        if link.tls is not None:
            given = ["--ssl-ca-certfile", str(link.tls.authority), "--ssl-certfile", str(link.tls.certificate)]
            given += ["--ssl-keyfile", str(link.tls.key)]
            given += ["--enable-supernode-auth"] if link.tls.node_keys else []
        if link.database is not None:
            given += ["--database", str(link.database)]
        log = "superlink" if name == CONNECTION else f"superlink-{name}"
        dependencies = "--disable-runtime-dependency-installation"
        started = self.start(log, "flower-superlink", *given, dependencies, "--host", HOST, "--port", str(link.port))
        if wait:
            self.wait_for(link.healthy, 90.0, f"SuperLink {name}")
        return started

    def healthy(self, name: str) -> bool:
        """Whether a SuperLink answers."""
        return self._links[name].healthy()

    def port_of(self, name: str) -> int:
        """Of a SuperLink."""
        return self._links[name].port

    def add_node(
        self,
        log: str,
        config: str,
        *,
        link: str = CONNECTION,
        warm: bool = False,
        key: Path | None = None,
        port: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a SuperNode.

        Args:
            log: what its output is called.
            config: its node config, as `partition-id=0 site='here'`.
            link: name of its SuperLink.
            warm: `flower-edge node`, else Flower's own.
            key: its private key, registered at the SuperLink.
            port: of the SuperLink as the node dials it, where something is between.
        """
        own = self._links[link]
        given = ["--superlink", f"{HOST}:{port or own.port}", "--node-config", config]
        given += ["--insecure"] if own.tls is None else ["--root-certificates", str(own.tls.authority)]
        given += [] if key is None else ["--auth-supernode-private-key", str(key)]
        if warm:
            return self.start(log, "flower-edge", "node", *given)
        return self.start(log, "flower-supernode", *given, "--host", HOST, "--port", str(self.free_port()))

    def _write_connections(self) -> None:
        lines = [f'[superlink]\ndefault = "{CONNECTION}"\n']
        for link in self._links.values():
            lines.append(f'[superlink.{link.name}]\naddress = "{HOST}:{link.port}"')
            trust = "insecure = true" if link.tls is None else f'root-certificates = "{link.tls.authority}"'
            lines.append(f"{trust}\n")
        (self._work.home / "config.toml").write_text("\n".join(lines), "utf-8")

    # -- runs --------------------------------------------------------------------------------------------------------

    def run(self, app: Path, config: str, *, link: str = CONNECTION) -> None:
        """Hand an app to a SuperLink, which starts it; `config` as of `flwr run --run-config`."""
        given = ["--run-config", config] if config else []
        self.start("run", "flwr", "run", str(app), link, *given)

    def wait_for(self, there: Callable[[], bool], seconds: float, what: str) -> None:
        """Look every tenth of a second.

        Raises:
            LaunchError: it was not there in time; shows what the programs printed last.
        """
        latest_s = time.monotonic() + seconds
        while not there():
            if time.monotonic() > latest_s:
                raise LaunchError(f"{what} not there after {seconds:g} s; the programs printed:\n{self.logs()}")
            time.sleep(0.1)

    def wait_for_file(self, path: Path, seconds: float) -> str:
        """The text of a file that an app writes, once it is there.

        Raises:
            LaunchError: as `wait_for`.
        """
        self.wait_for(path.exists, seconds, path.name)
        return path.read_text("utf-8")

    def log(self, name: str) -> str:
        """What a program has printed so far."""
        path = self._work.path / f"{name}.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def logs(self) -> str:
        """The end of what each program printed."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text('utf-8', 'replace')[-3000:]}" for path in self._work.path.glob("*.log")
        )


@contextmanager
def deployment(nodes: Sequence[str], *, tls: Tls | None = None, database: Path | None = None) -> Iterator[Deployment]:
    """A deployment on the loopback address: a SuperLink, and as many SuperNodes of Flower's own as are named.

    Args:
        nodes: the node config of each SuperNode, as `partition-id=0 site='here'`.
        tls: of the SuperLink; none: without.
        database: the file the SuperLink's state is in; none: in its memory.

    Raises:
        LaunchError: Flower's programs are not installed, or do not start.
    """
    launch_id, scripts = uuid.uuid4().hex, scripts_folder()
    with ExitStack() as stack:
        runs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work = WorkFolder.make()
        stack.callback(work.remove)
        # Ports are let go last: what the family still does goes to nobody else.
        ports = stack.enter_context(ExitStack())
        family = Family(launch_id)
        stack.callback(family.stop)
        environment = work.environment(
            os.environ, launch_id=launch_id, port=0, scripts=scripts, runs=runs, run_folder=runs / "run"
        )
        made = Deployment(work, family, scripts, environment, ports)
        made.add_superlink(tls=tls, database=database)
        for number, config in enumerate(nodes):
            made.add_node(f"supernode-{number}", config)
        yield made
