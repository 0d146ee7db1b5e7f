"""A real SuperNode restarted in the middle of a run: what was in a file is there again, what was not is told."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flower_edge.runtime.launching.environment import CONNECTION, HOST, WorkFolder, answers, hold_port, scripts_folder
from flower_edge.runtime.launching.processes import Family

APP = Path(__file__).parents[1] / "apps" / "node_state_app"
#: On a busy machine every part takes long to start; nothing here waits longer than it has to.
LONG_S = 240.0


class Deployment:
    """One SuperLink and one SuperNode with ports, FLWR_HOME and processes of their own."""

    def __init__(self, work: WorkFolder, family: Family, ports: tuple[int, int], state: Path, report: Path) -> None:
        self.work, self.family, self.ports, self.state, self.report = work, family, ports, state, report
        self.scripts = scripts_folder()
        self.environment: dict[str, str] = {}

    def start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.work.path / f"{program}.log").open("ab") as out:
            return self.family.start(
                [str(self.scripts / program), *arguments],
                environment=self.environment,
                cwd=self.work.cwd,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def start_superlink(self) -> None:
        switch = "--disable-runtime-dependency-installation"
        self.start("flower-superlink", "--insecure", switch, "--host", HOST, "--port", str(self.ports[0]))
        self.wait_for(lambda: answers(self.ports[0]), LONG_S)

    def start_supernode(self) -> subprocess.Popen[bytes]:
        where = ["--superlink", f"{HOST}:{self.ports[0]}", "--host", HOST, "--port", str(self.ports[1])]
        config = f"partition-id=0 state-dir='{self.state}'"
        return self.start("flower-supernode", "--insecure", *where, "--node-config", config)

    def wait_for(self, there: Callable[[], bool], seconds: float) -> None:
        latest_s = time.monotonic() + seconds
        while not there():
            assert time.monotonic() < latest_s, self.logs()
            time.sleep(0.1)

    def told(self, name: str) -> dict[str, Any]:
        path = self.report / f"{name}.json"
        self.wait_for(lambda: path.exists() and path.read_bytes().endswith(b"}"), LONG_S)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def logs(self) -> str:
        return "\n".join(path.read_text("utf-8", "replace")[-3000:] for path in self.work.path.glob("*.log"))


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    work, launch_id = WorkFolder.make(), uuid.uuid4().hex
    family = Family(launch_id)
    (tmp_path / "report").mkdir()
    with hold_port() as superlink, hold_port() as supernode:
        made = Deployment(work, family, (superlink, supernode), tmp_path / "state", tmp_path / "report")
        made.environment = work.environment(
            os.environ,
            launch_id=launch_id,
            port=superlink,
            scripts=made.scripts,
            runs=tmp_path,
            run_folder=tmp_path / "run",
        )
        work.write_flower_config(superlink)
        try:
            yield made
        finally:
            family.stop()
            work.remove()
    assert family.alive() == set()


@pytest.mark.slow
@pytest.mark.flwr
def test_a_restarted_supernode_finds_its_file_and_says_what_it_lost(deployment: Deployment) -> None:
    deployment.start_superlink()
    supernode = deployment.start_supernode()
    config = f"report='{deployment.report}'"
    deployment.start("flwr", "run", str(APP), CONNECTION, "--run-config", config)

    before = deployment.told("before")
    assert before["replies"] == [{"count": 1.0, "recovered": 0}, {"count": 2.0, "recovered": 0}, {"there": 1}]

    supernode.terminate()
    supernode.wait(timeout=120)
    deployment.start_supernode()

    after = deployment.told("after")
    assert after["node"] != before["node"], "Flower gives a restarted node another id"
    counted, lost, again = after["replies"]
    assert counted == {"count": 3.0, "recovered": 1}
    assert again == {"count": 4.0, "recovered": 0}
    for words in ("StateError", "'note' of node partition-0", "lost with the SuperNode's memory", "durable=True"):
        assert words in lost["error"]
    assert len(list(deployment.state.rglob("counter-*.safetensors"))) == 2
