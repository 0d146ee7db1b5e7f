"""The scenario three_hosts as a person starts it: real processes, TLS, node keys, agents; in namespaces as root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flower_edge.store import RunFolder

ROOT = Path(__file__).parents[2]
SCENARIO = ROOT / "scenarios" / "three_hosts"


def start(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The scenario, to its end."""
    return subprocess.run(
        [sys.executable, str(SCENARIO), str(folder), *options],
        capture_output=True, text=True, timeout=560, check=False, cwd=folder.parent,
    )  # fmt: skip


def mentions(text: str) -> list[str]:
    """Programs that run now and name something."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if text in words:
                found.append(words)
    return found


def trained(folder: Path, said: str, *, edges: int, terminals: int, cloud_rounds: int) -> None:
    """What has to be so after a run of it."""
    run = RunFolder.open(folder / "runs" / "three-hosts")
    assert run.status == "finished"
    judged = {row.round: row.values["accuracy"] for row in run.rows("central")}
    assert set(judged) == set(range(cloud_rounds + 1))
    assert judged[cloud_rounds] > judged[0] + 0.1
    merged = [row for row in run.rows("train") if row.round == cloud_rounds and row.cell]
    assert {row.cell for row in merged} == {f"edge-{number}" for number in range(edges)}
    assert all(float(row.values["num-examples"]) > 0 for row in merged)
    assert run.rows("event") == []  # no edge skipped, no terminal failed
    assert (run.artifacts / "report.html").read_text("utf-8").count("edge-0") >= 1
    assert str(run.artifacts / "report.html") in said
    # Every model that was mixed came from host to host, over mutual TLS.
    for number in range(edges * terminals):
        assert list((folder / f"terminal-{number}-agent").glob("runs/*/in/*"))
    assert mentions(str(folder)) == []
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    assert "-terminal-0" not in spaces


@pytest.mark.slow
@pytest.mark.flwr
def test_hosts_join_gossip_and_are_merged_and_all_of_it_ends(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("hosts") / "kept"  # a short path: sockets of agents are in it
    done = start(
        folder, "--edges", "2", "--terminals", "2", "--cloud-rounds", "1", "--edge-rounds", "2",
        "--namespaces", "auto" if os.name == "posix" else "no",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    trained(folder, done.stdout, edges=2, terminals=2, cloud_rounds=1)


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.full
@pytest.mark.parametrize("how", ["yes", "no"])
@pytest.mark.parametrize("mailbox", ["direct", "relay"])
def test_the_whole_of_it(tmp_path_factory: pytest.TempPathFactory, how: str, mailbox: str) -> None:
    if how == "yes" and os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    folder = tmp_path_factory.mktemp("hosts") / "kept"
    done = start(
        folder, "--cloud-rounds", "2", "--edge-rounds", "3", "--namespaces", how, "--mailbox", mailbox
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("accuracy") == 3


def test_what_cannot_be_is_said_before_anything_is_started(tmp_path: Path) -> None:
    for options, words in (
        (["--mailbox", "post"], "expected direct or relay"),
        (["--namespaces", "perhaps"], "expected auto, yes or no"),
    ):
        done = start(tmp_path / "kept", *options)
        assert done.returncode == 2
        assert words in done.stderr
        assert not (tmp_path / "kept").exists()
    (tmp_path / "there").mkdir()
    done = start(tmp_path / "there")
    assert done.returncode == 2
    assert "there already" in done.stderr
