"""A real deployment of Flower on this machine's loopback: one SuperLink, some SuperNodes, and the runs of an app.

For benchmarks and slow tests. Everything has ports, a FLWR_HOME and processes of its own, found again by a mark in
their environment and ended with the context. Nothing here measures.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flower_edge.errors import LaunchError
from flower_edge.runtime.launching.environment import CONNECTION, HOST, WorkFolder, answers, hold_port, scripts_folder
from flower_edge.runtime.launching.processes import Family

__all__ = ["Deployment", "deployment"]


class Deployment:
    """A SuperLink and SuperNodes that run. Made by `deployment`."""

    def __init__(self, work: WorkFolder, family: Family, scripts: Path, environment: dict[str, str], port: int) -> None:
        self.port = port
        self._work, self._family, self._scripts, self._environment = work, family, scripts, environment

    def start(self, log: str, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one of Flower's programs; it ends with the deployment."""
        with (self._work.path / f"{log}.log").open("ab") as out:
            return self._family.start(
                [str(self._scripts / program), *arguments],
                environment=self._environment,
                cwd=self._work.cwd,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def run(self, app: Path, config: str) -> None:
        """Hand an app to the SuperLink, which starts it; `config` as of `flwr run --run-config`."""
        self.start("run", "flwr", "run", str(app), CONNECTION, "--run-config", config)

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

    def logs(self) -> str:
        """The end of what each program printed."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text('utf-8', 'replace')[-3000:]}" for path in self._work.path.glob("*.log")
        )


@contextmanager
def deployment(nodes: Sequence[str]) -> Iterator[Deployment]:
    """A deployment without TLS on the loopback address.

    Args:
        nodes: the node config of each SuperNode, as `partition-id=0 site='here'`.

    Raises:
        LaunchError: Flower's programs are not installed, or do not start.
    """
    launch_id, scripts, family = uuid.uuid4().hex, scripts_folder(), None
    with ExitStack() as stack:
        runs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, *node_ports = [stack.enter_context(hold_port()) for _ in range(1 + len(nodes))]
        work = WorkFolder.make()
        stack.callback(work.remove)
        family = Family(launch_id)
        stack.callback(family.stop)
        environment = work.environment(
            os.environ, launch_id=launch_id, port=port, scripts=scripts, runs=runs, run_folder=runs / "run"
        )
        work.write_flower_config(port)
        made = Deployment(work, family, scripts, environment, port)
        made.start(
            "superlink",
            "flower-superlink",
            *("--insecure", "--disable-runtime-dependency-installation", "--host", HOST, "--port", str(port)),
        )
        made.wait_for(lambda: answers(port), 90.0, "SuperLink")
        for number, (config, node_port) in enumerate(zip(nodes, node_ports, strict=True)):
            made.start(
                f"supernode-{number}",
                "flower-supernode",
                *("--insecure", "--superlink", f"{HOST}:{port}", "--host", HOST, "--port", str(node_port)),
                *("--node-config", config),
            )
        yield made
