"""Ctrl-C and SIGTERM: programs that stay end with the code that their help names, and leave no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ending import end_all

from flower_edge.runtime.launching.environment import hold_port

pytestmark = [pytest.mark.slow, pytest.mark.flwr]

EDGE_APP = Path(__file__).parents[2] / "benchmarks" / "apps" / "tiers_edge"
#: Who runs these tests in the background has Ctrl-C ignored, and children inherit that.
MAIN = (
    "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from flower_edge.cli.main import main\nsys.argv[0] = 'flower-edge'\nmain()"
)


class Programs:
    """What a test has started, with what each printed in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> None:
        variables = {**os.environ, "FLWR_HOME": str(self.folder / f"{name}-home"), "FLWR_TELEMETRY_ENABLED": "0"}
        with (self.folder / f"{name}.log").open("wb") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-c", MAIN, *arguments], cwd=self.folder, env=variables, stdout=out, stderr=out
            )

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def wait(self, holds: Callable[[], bool], seconds: float = 240.0) -> None:
        latest_s = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < latest_s, "\n".join(self.said(name)[-2000:] for name in self.processes)
            time.sleep(0.1)

    def left(self) -> list[str]:
        """Command lines of processes that belong to this test's folder, however they were started."""
        mark, found = str(self.folder).encode(), []
        for place in Path("/proc").iterdir():
            if place.name.isdigit() and int(place.name) != os.getpid():
                try:
                    command = (place / "cmdline").read_bytes()
                    if mark in command or mark in (place / "environ").read_bytes():
                        found.append(command.replace(b"\0", b" ").decode("utf-8", "replace"))
                except OSError:  # it has ended, or is somebody else's
                    continue
        return [command for command in found if command]


@contextmanager
def programs_in(folder: Path) -> Iterator[Programs]:
    made = Programs(folder)
    try:
        yield made
    finally:
        end_all(made.processes.values())


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="who is left is looked up in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_edge_and_nodes_end_with_code_0_and_leave_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    with programs_in(tmp_path) as programs, hold_port() as port:
        address = f"127.0.0.1:{port}"
        programs.start(
            "edge", *("edge", str(EDGE_APP), "--name", "e", "--state", str(tmp_path / "edge"), "--insecure"),
            *("--serve", address, "--run-config", "terminals=2 run-name='ends'"),
        )  # fmt: skip
        programs.wait(lambda: "is handed to its SuperLink" in programs.said("edge"))
        (tmp_path / "where").write_text(f"{address}\n")
        programs.start("node", "node", "--insecure", "--superlink", address, "--node-config", "partition-id=0")
        where = ("--attach", str(tmp_path / "where"))
        programs.start("moving", "node", "--insecure", *where, "--node-config", "partition-id=1")
        for name in ("node", "moving"):
            programs.wait(lambda name=name: "SuperNode ID" in programs.said(name))  # type: ignore[misc]
        for name in ("node", "moving", "edge"):
            programs.processes[name].send_signal(number)
            assert programs.processes[name].wait(90) == 0, programs.said(name)[-2000:]
        programs.wait(lambda: not programs.left(), 60.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_that_is_ended_while_it_starts_ends_with_code_0_and_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    with programs_in(tmp_path) as programs:
        programs.start(
            "up", "up", "--state", str(tmp_path / "server"), "--listen", "127.0.0.1:0", "--host", "127.0.0.1"
        )
        programs.wait(lambda: "the SuperLink is started" in programs.said("up"))
        programs.processes["up"].send_signal(number)
        assert programs.processes["up"].wait(90) == 0, programs.said("up")
        assert programs.left() == []
