"""`flower-edge scenarios` and `flower-edge new`: what there is, and a copy that is an app of its own."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest
from scenario_run import run_in_process
from typer.testing import CliRunner

import flower_edge
from flower_edge.cli import scenario_library
from flower_edge.cli.main import app
from flower_edge.cli.scenario_library import Scenario
from flower_edge.errors import ConfigError
from flower_edge.runtime.launching.app import read_app
from flower_edge.runtime.launching.launcher import launch

ROOT = Path(__file__).parents[2]
ALL = [path.parent for path in sorted(ROOT.glob("scenarios/*/README.md"))]


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- what there is ---


def test_all_scenarios_are_listed_with_what_they_show_and_how_long_they_take() -> None:
    told = call("scenarios")
    listed = json.loads(call("scenarios", "--json"))["scenarios"]
    assert [one["name"] for one in listed] == [folder.name for folder in ALL]
    for one in listed:
        assert one["name"] in told
        assert one["title"] in told
        assert one["run_time"] in told
        assert "on two cores" in one["run_time"]
    assert {one["name"] for one in listed if one["kind"] == "script"} == {"three_hosts"}


def test_one_is_described_by_its_readme_and_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    told = call("scenarios", "gossip")
    assert told.startswith((ROOT / "scenarios/gossip/README.md").read_text().rstrip())
    assert "Run it: flower-edge run scenarios/gossip\n" in told
    facts = json.loads(call("scenarios", "gossip", "--json"))
    assert facts["config"] == dict(read_app(ROOT / "scenarios/gossip").config)
    assert json.loads(call("scenarios", "three_hosts", "--json"))["command"] == "python scenarios/three_hosts"


@pytest.mark.parametrize("folder", ALL, ids=lambda folder: folder.name)
def test_every_readme_has_the_command_a_run_time_the_last_lines_and_a_picture(folder: Path) -> None:
    one = Scenario(folder)
    assert one.title != one.readme.partition("\n")[0]
    assert re.search(rf"^(flower-edge run|python) scenarios/{one.name}\b", one.readme, re.MULTILINE)
    after = one.readme.partition("\nRun time: ")[2]
    assert "```text\n" in after
    pictures = re.findall(r"!\[([^\]]{30,})\]\(([\w.]+)\)", one.readme)
    assert [name for _, name in pictures] == ["picture.png"]
    picture = (folder / "picture.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 80_000


def test_an_installation_without_scenarios_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(flower_edge, "__file__", str(tmp_path / "site" / "flower_edge" / "__init__.py"))
    with pytest.raises(ConfigError, match="they were left out of this installation; install flower-edge anew"):
        scenario_library.scenarios()


# --- an app of one's own ---


@pytest.mark.parametrize("folder", ALL, ids=lambda folder: folder.name)
def test_a_copy_is_an_app_of_another_name_inside_and_out(folder: Path, made: Path) -> None:
    call("new", "my-thing", "--from", folder.name)
    copy, stem = made / "my-thing", min((p.parent.name for p in folder.rglob("__init__.py")), key=len)
    for path in copy.rglob("*.py"):
        ast.parse(path.read_text())
        assert stem not in path.read_text().replace("flwr.three_hosts", "")
    for pyproject in copy.rglob("pyproject.toml"):
        read = read_app(pyproject.parent)
        assert read.name.startswith("my-thing")
        assert len(read.name) <= 32
        assert stem not in pyproject.read_text()
        component = re.search(r'serverapp = "(\w+)\.', pyproject.read_text())
        assert component is not None
        assert component[1].startswith("my_thing")
        assert (pyproject.parent / component[1] / "server_app.py").is_file()
    assert f"scenarios/{folder.name}" not in (copy / "README.md").read_text()
    assert not list(made.glob(".flower-edge-new-*"))
    assert not list(copy.rglob("__pycache__"))


@pytest.mark.slow
def test_a_copy_runs_as_it_is(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One that needs no torch: to import it would take most of the time.
    document = json.loads(call("new", "my_tiers", "--from", "everything", "--json"))
    assert document["from"] == "everything"
    assert document["command"] == "flower-edge run my_tiers"
    assert "my_tiers/server_app.py" in document["files"]
    try:
        config = {"num-server-rounds": 1, "pictures": False}
        run = run_in_process(made / "my_tiers", 18, made / "runs", monkeypatch, config)
    finally:
        for name in [name for name in sys.modules if name.startswith("my_tiers")]:
            del sys.modules[name]
    assert {row.round for row in run.rows("central")} == {0, 1}


def test_without_a_scenario_named_it_is_the_quickstart(made: Path) -> None:
    assert json.loads(call("new", "mine", "--json"))["from"] == "quickstart"


def test_what_is_there_is_never_overwritten(made: Path) -> None:
    (made / "mine").mkdir()
    (made / "mine" / "work.txt").write_text("of weeks")
    with pytest.raises(ConfigError, match="is there already, and nothing is overwritten"):
        call("new", "mine")
    assert [path.name for path in (made / "mine").iterdir()] == ["work.txt"]


def test_a_copy_that_fails_leaves_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        call("new", "mine")
    assert list(made.iterdir()) == []


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
@pytest.mark.full
def test_a_copy_of_moving_terminals_runs_through_flwr_run(made: Path) -> None:
    call("new", "my_terminals", "--from", "moving_terminals")
    result = launch(made / "my_terminals", run_config={"num-server-rounds": 1}, runs=made / "runs", timeout_s=500)
    assert result.status == "completed", result.details
