"""CASE 2 through a real `flwr run`, with a terminal that leaves in mid-round: the model is that of one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from flower_edge.models.train_torch import get_arrays, set_arrays, train
from flower_edge.runtime.launching.launcher import launch
from flower_edge.runtime.local_grid import LocalGrid

APP = Path(__file__).parents[1] / "apps" / "pieces_app"


def in_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(APP))
    monkeypatch.chdir(folder)
    from fe_pieces.client_app import app as terminals
    from fe_pieces.server_app import app as centre

    config: dict[str, Any] = {"num-server-rounds": 2}
    with LocalGrid(terminals, 5, run_config=config) as grid:
        centre(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config))
    return json.loads((folder / "pieces.json").read_text())  # type: ignore[no-any-return]


def oracle() -> dict[str, Any]:
    """Whole models on both segments, averaged."""
    from fe_pieces.task import initial, segment

    model = initial()
    arrays = get_arrays(model)
    for round in range(2):
        trained = []
        for number in (0, 1):
            set_arrays(model, arrays)
            train(
                model, *segment(number), steps=2, batch_size=4, lr=0.1, momentum=0.9, seed=number, first_step=2 * round
            )
            trained.append(get_arrays(model))
        arrays = {
            name: (0.5 * trained[0][name] + 0.5 * trained[1][name]).astype(trained[0][name].dtype) for name in arrays
        }
    return arrays


def check(found: dict[str, Any]) -> None:
    for name, array in oracle().items():
        np.testing.assert_array_equal(np.asarray(found["model"][name], array.dtype), array, err_msg=name)
    assert [1, 1, 0, 1, 0] in found["who"], "terminal 1 begins the second chain, and leaves"
    assert [1, 1, 1, 2, 1] in found["who"], "the spare of its edge takes its piece"


def test_case_2_with_a_terminal_that_leaves_is_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(in_process(tmp_path, monkeypatch))


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
@pytest.mark.full
def test_it_is_the_same_through_flwr_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWER_EDGE_STATE", str(tmp_path / "state"))
    lines: list[str] = []
    result = launch(APP, runs=tmp_path / "runs", on_line=lines.append, timeout_s=300)
    assert result.status == "completed", "\n".join(lines[-30:])
    assert result.run_folder is not None
    through_ray = json.loads((result.run_folder / "files" / "pieces.json").read_text())
    monkeypatch.syspath_prepend(str(APP))
    check(through_ray)
    assert through_ray == in_process(tmp_path, monkeypatch)
