"""A 64-bit ARM under qemu joins a real SuperLink over TLS, trains, is killed and comes back as who it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from arm_root import arm_root, command, missing
from up_cases import APP, server_in, wait

from flower_edge.enrolment.device_folder import DeviceFolder
from flower_edge.enrolment.keeper import keeper_pid

pytestmark = [pytest.mark.slow, pytest.mark.flwr, pytest.mark.full]

#: Emulated, on a machine that does something else as well: imports of Flower take minutes.
_PATIENCE_S = 1800.0
_DEVICE = "/var/lib/flower-edge-test"


def ask(root: Path, *arguments: str) -> dict[str, object]:
    done = subprocess.run(
        command(root, "-m", "flower_edge.cli.main", *arguments), capture_output=True, text=True, timeout=_PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(4 * _PATIENCE_S)
def test_an_arm_without_torch_joins_trains_three_rounds_is_killed_and_rejoins(tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    root = arm_root()
    device = DeviceFolder(root / _DEVICE.lstrip("/"))
    for name in DeviceFolder.FILES:
        device.file(name).unlink(missing_ok=True)
    machine = ask_machine(root)
    assert machine == "aarch64 without torch"
    report = tmp_path / "report.jsonl"
    with server_in(tmp_path) as up:
        up.start("--app", str(APP), "--run-config", f"rounds=3 nodes=1 report='{report}'", "--again")
        line = str(up.opening()["join"]).split()[1:]
        options = ("--state", _DEVICE, "--name", "arm", "--json", "--runner", "process", "--wait-s", str(_PATIENCE_S))
        try:
            first = ask(root, *line, *options, "--node-config", "partition-id=0")
            node_id = first["node_id"]
            wait(lambda: trained_by(report).count([node_id]) >= 3, _PATIENCE_S, up.logs)
            keeper = keeper_pid(device)
            assert keeper is not None
            (node,) = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
            os.kill(int(node), signal.SIGKILL)
            os.kill(keeper, signal.SIGKILL)
            wait(lambda: keeper_pid(device) is None, 60.0, up.logs)
            seen = len(trained_by(report))
            without_token = [word for at, word in enumerate(line) if "--token" not in (word, line[at - 1])]
            again = ask(root, *without_token, *options, "--node-config", "partition-id=0")
            assert again["node_id"] == node_id
            # In the round it was killed in nobody answered.
            wait(lambda: trained_by(report)[seen:].count([node_id]) >= 3, _PATIENCE_S, up.logs)
            assert all(nodes in ([], [node_id]) for nodes in trained_by(report))
            left = ask(root, "leave", "--state", _DEVICE, "--json")
            assert left["still"] == ""
        finally:
            if (keeper := keeper_pid(device)) is not None:
                os.kill(keeper, signal.SIGTERM)
                wait(lambda: keeper_pid(device) is None, 120.0, up.logs)


def trained_by(report: Path) -> list[list[int]]:
    """Whose replies each round had."""
    return [json.loads(text)["nodes"] for text in report.read_text().splitlines()] if report.exists() else []


def ask_machine(root: Path) -> str:
    script = (
        "import importlib.util, platform\n"
        "print(platform.machine(), 'with' if importlib.util.find_spec('torch') else 'without', 'torch')"
    )
    done = subprocess.run(command(root, "-c", script), capture_output=True, text=True, timeout=_PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
