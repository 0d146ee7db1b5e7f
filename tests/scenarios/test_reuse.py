"""The diffs of the README, applied to an app as Flower's own template writes it: do they work as they stand?"""

from __future__ import annotations

import re
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp

from flower_edge.runtime.launching.launcher import launch
from flower_edge.runtime.local_grid import LocalGrid

ROOT = Path(__file__).parents[2]
PRISTINE = ROOT / "tests" / "apps" / "pristine"
CONFIG: dict[str, Any] = {"num-server-rounds": 2, "learning-rate": 0.1, "local-epochs": 1}


def diffs() -> list[str]:
    return re.findall(r"```diff\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def apply(diff: str, source: str) -> str:
    """Lines to drop are looked up without their indentation; lines to add take it over; imports go to the top."""
    added = [line[2:] for line in diff.splitlines() if line.startswith("+ ")]
    dropped = [line[2:] for line in diff.splitlines() if line.startswith("- ")]
    imports = [line for line in added if line.startswith(("from ", "import "))]
    others = [line for line in added if line not in imports]
    lines = source.splitlines()
    for line in dropped:
        at = next((i for i, own in enumerate(lines) if own.strip() == line.strip()), None)
        assert at is not None, f"the README drops {line!r}, which the template does not have"
        indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        lines[at : at + 1] = [indent + other for other in others]
        others = []
    first = next(i for i, line in enumerate(lines) if line.startswith("from "))
    return "\n".join([*lines[:first], *imports, *lines[first:]]) + "\n"


def final_model(source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.syspath_prepend(str(PRISTINE))
    from fe_pristine.client_app import app as client

    module = types.ModuleType("changed_server_app")
    exec(compile(source, "server_app.py", "exec"), module.__dict__)
    server: ServerApp = module.app
    with LocalGrid(client, 6, run_config=CONFIG) as grid:
        server(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=CONFIG))
    return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("final model:"))


def test_the_readme_shows_a_hierarchy_and_a_layer() -> None:
    assert len(diffs()) == 2


def test_the_layer_of_the_readme_changes_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (PRISTINE / "fe_pristine" / "server_app.py").read_text()
    layer = next(diff for diff in diffs() if "Layered" in diff)
    assert final_model(apply(layer, source), monkeypatch, capsys) == final_model(source, monkeypatch, capsys)


def test_the_hierarchy_of_the_readme_trains(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (PRISTINE / "fe_pristine" / "server_app.py").read_text()
    hierarchy = next(diff for diff in diffs() if "Hierarchical" in diff)
    assert final_model(apply(hierarchy, source), monkeypatch, capsys) != final_model(source, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.flwr
def test_the_hierarchy_of_the_readme_runs_through_flwr_run(tmp_path: Path) -> None:
    changed = tmp_path / "app"
    shutil.copytree(PRISTINE, changed, ignore=shutil.ignore_patterns("__pycache__"))
    server = changed / "fe_pristine" / "server_app.py"
    server.write_text(apply(next(diff for diff in diffs() if "Hierarchical" in diff), server.read_text()))
    lines: list[str] = []
    result = launch(changed, num_supernodes=6, runs=tmp_path / "runs", on_line=lines.append, timeout_s=300)
    assert result.status == "completed", "\n".join(lines[-30:])
    assert any("final model:" in line for line in lines)


def teardown_module() -> None:
    for name in [name for name in sys.modules if name.startswith("fe_pristine")]:
        del sys.modules[name]
