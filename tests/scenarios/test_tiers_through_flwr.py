"""The laws of the hierarchy through a real `flwr run`: what holds in process holds in Flower's simulation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from flower_edge.runtime.launching.launcher import launch
from flower_edge.runtime.local_grid import LocalGrid

APP = Path(__file__).parents[1] / "apps" / "tiers_app"


def check(found: dict[str, Any]) -> None:
    assert found["flat"]["model"] != found["flat sampling"]["model"], "sampling must matter, or the laws say little"
    np.testing.assert_allclose(found["several cells"]["model"], found["flat"]["model"], atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(found["several cells"]["loss"], found["flat"]["loss"], rtol=1e-5)
    assert found["one cell"] == found["flat sampling"]
    assert found["cell tier"] == found["local tier"]


def in_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(APP))
    monkeypatch.chdir(folder)
    from fe_tiers.client_app import app as clients
    from fe_tiers.server_app import app as centre

    config: dict[str, Any] = {"num-server-rounds": 3}
    with LocalGrid(clients, 6, run_config=config) as grid:
        centre(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config))
    return json.loads((folder / "tiers.json").read_text())  # type: ignore[no-any-return]


def test_the_laws_hold_in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(in_process(tmp_path, monkeypatch))


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_the_laws_hold_through_flwr_run_with_the_same_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWER_EDGE_STATE", str(tmp_path / "state"))
    lines: list[str] = []
    result = launch(APP, runs=tmp_path / "runs", on_line=lines.append, timeout_s=300)
    assert result.status == "completed", "\n".join(lines[-30:])
    assert result.run_folder is not None
    through_ray = json.loads((result.run_folder / "files" / "tiers.json").read_text())
    check(through_ray)
    assert through_ray == in_process(tmp_path, monkeypatch)
