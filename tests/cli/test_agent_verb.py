"""`flower-edge agent`, as a user starts it: what it says, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from agent_cases import AgentProcesses
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from flower_edge.cli.main import app
from flower_edge.errors import ConfigError, PeerError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give --certificate, --key and --authority"),
        (("--certificate", "x.pem", "--key", "x.key", "--authority", "ca.pem"), "x.pem cannot be read"),
        (("--certificate", "x", "--key", "x", "--authority", "x", "--letter-mb", "0"), "--letter-mb 0"),
        (("--certificate", "x", "--key", "x", "--authority", "x", "--listen", "nowhere"), "address 'nowhere'"),
        (
            ("--certificate", "x", "--key", "x", "--authority", "x", "--listen", "0.0.0.0:9301"),
            "give the name they know",
        ),
        (("--certificate", "x", "--key", "x", "--authority", "x", "--metrics", "0.0.0.0:1"), "add --metrics-token"),
    ],
)
def test_what_cannot_be_an_agent_is_said_in_a_sentence(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    result = CliRunner().invoke(app, ["agent", "--folder", str(tmp_path / "agent"), *arguments])
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


def test_no_agent_to_ask_is_said_in_a_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["agent", "--folder", str(tmp_path), "--status"])
    assert isinstance(result.exception, PeerError)
    assert "start `flower-edge agent` on this host" in str(result.exception)


@pytest.mark.parametrize("how", ["--once", "--json"])
def test_numbers_of_an_agent_that_is_not_there_are_told_with_an_exit_code(tmp_path: Path, how: str) -> None:
    socket = tmp_path / "agent.sock"
    result = CliRunner().invoke(app, ["metrics", "--agent", str(socket), how])
    assert result.exit_code == 1, result.exception
    assert result.stderr == f"no agent answers at {socket}; start `flower-edge agent` on this host\n"
    if how == "--json":
        assert {"name": "flower_edge_agent_up", "labels": {}, "value": 0.0} in json.loads(result.stdout)["metrics"]
    else:
        assert "\nflower_edge_agent_up 0.0\n" in result.stdout


@pytest.mark.slow
def test_an_agent_says_where_it_is_answers_its_status_and_ends_on_sigterm(tmp_path: Path) -> None:
    with AgentProcesses(tmp_path, [0], "--metrics", "127.0.0.1:0") as processes:
        told = processes.told[0]
        scraped = urlopen(told["metrics"], timeout=60).read().decode()
        values = {s.name: s.value for f in text_string_to_metric_families(scraped) for s in f.samples}
        assert values["flower_edge_agent_up"] == 1.0
        assert values["flower_edge_peers"] == 0.0
        assert told["listening"].startswith("127.0.0.1:")
        assert told["card"]["address"] == told["listening"]
        assert Path(told["socket"]).stat().st_mode & 0o777 == 0o600
        ask = [sys.executable, "-m", "flower_edge.cli.main", "agent", "--folder", str(tmp_path / "0"), "--status"]
        words = subprocess.run(ask, capture_output=True, text=True, timeout=120, check=True)
        assert f"agent at {told['listening']}" in words.stdout
        assert "refused: nobody" in words.stdout
        numbers = [sys.executable, "-m", "flower_edge.cli.main", "metrics", "--agent", told["socket"], "--once"]
        once = subprocess.run(numbers, capture_output=True, text=True, timeout=120, check=True)
        assert "\nflower_edge_agent_up 1.0\n" in once.stdout
        plain = subprocess.run([*ask, "--json"], capture_output=True, text=True, timeout=120, check=True)
        assert json.loads(plain.stdout)["card"] == told["card"]
        second = subprocess.run(processes.command(0), capture_output=True, text=True, timeout=120, env=dict(os.environ))
        assert second.returncode == 2
        assert "an agent runs with the folder" in second.stderr
        process = processes.processes[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not Path(told["socket"]).exists()
