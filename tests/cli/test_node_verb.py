"""`flower-edge node`: what it refuses before it starts anything, and the stock SuperNode where it cannot be warm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flower_edge.cli import node
from flower_edge.cli.main import app
from flower_edge.errors import ConfigError
from flower_edge.runtime.flower_private_node import warm_reason
from flower_edge.runtime.warm.settings import WarmSettings


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What this process would have become."""
    calls: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: calls.append(arguments))
    return calls


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["node", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_options_reach_the_node_and_flowers_own_go_behind_two_dashes(became: list[list[str]], tmp_path: Path) -> None:
    key = tmp_path / "node.key"
    key.write_text("key")
    told = json.loads(
        call(
            *("--superlink", "edge:8000", "--insecure", "--node-config", "partition-id=3", "--poll-s", "0.05"),
            *("--auth-supernode-private-key", str(key), "--json", "--", "--max-retries", "4"),
        )
    )
    (arguments,) = became
    module, settings, port, *given = arguments[3:]
    assert module == "flower_edge.runtime.warm.host"
    assert WarmSettings.from_json(settings) == WarmSettings(poll_s=0.05)
    assert told == {"superlink": "edge:8000", "runtime_port": int(port), "stock": False}
    assert given == [
        *("--superlink", "edge:8000", "--max-retries", "4", "--insecure"),
        *("--auth-supernode-private-key", str(key), "--node-config", "partition-id=3"),
    ]


def test_words_for_people_say_what_runs(became: list[list[str]]) -> None:
    assert call("--superlink", "edge:8000", "--insecure").startswith("flower-edge node: a warm SuperNode for edge:8000")
    assert call("--superlink", "edge:8000", "--stock") == "flower-edge node: the stock SuperNode for edge:8000\n"
    assert became[1][4] == "stock"


@pytest.mark.parametrize("option", sorted(node._NOT_HERE))
def test_what_a_warm_node_decides_itself_is_refused_with_the_reason(option: str, became: list[list[str]]) -> None:
    with pytest.raises(ConfigError, match=f"{option}: not with flower-edge node, .*; for it use flower-supernode"):
        call("--superlink", "edge:8000", "--insecure", "--", option)
    assert not became


def test_a_file_that_is_not_there_is_named(became: list[list[str]]) -> None:
    with pytest.raises(ConfigError, match=r"--root-certificates nowhere\.pem: there is no such file"):
        call("--superlink", "edge:8000", "--root-certificates", "nowhere.pem")
    with pytest.raises(ConfigError, match="poll_s = 10"):
        call("--superlink", "edge:8000", "--insecure", "--poll-s", "10")
    assert not became


# --- another Flower ---


def test_this_flower_can_be_driven_warm() -> None:
    assert warm_reason() == ""


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        ("flwr.supernode.start_client_internal._push_messages", "no flwr.supernode.start_client_internal._push_mess"),
        ("flwr.supernode.runtime.run_clientapp.install_from_fab", "no flwr.supernode.runtime.run_clientapp.install_"),
        ("flwr.supercore.date.now", "no flwr.supercore.date.now"),
    ],
)
def test_what_another_flower_lacks_is_named(gone: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(gone)
    assert says in warm_reason()


def test_another_loop_or_another_call_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supernode.runtime import run_clientapp as module

    monkeypatch.setattr(module, "run_clientapp", lambda address, token: None)
    assert "run_clientapp takes ['address', 'token']" in warm_reason()


@pytest.mark.slow
def test_where_this_flower_cannot_be_driven_the_stock_supernode_runs_and_it_is_said_why(tmp_path: Path) -> None:
    script = (
        "import sys, flwr.supernode.start_client_internal as loop\n"
        "del loop._push_messages\n"
        "from flower_edge.runtime.warm.host import main\n"
        "main(['{}', '1', '--version'])\n"  # the stock program's answer to it needs no SuperLink
    )
    variables = {
        **os.environ,
        "FLWR_HOME": str(tmp_path),
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=variables, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Flower version: 1.41" in done.stdout
    assert "this flwr has no flwr.supernode.start_client_internal._push_messages" in done.stderr
    assert "the stock flower-supernode runs instead" in done.stderr
