"""A real SuperLink with three SuperNodes trains over TLS channels what LocalGrid trains with frames in messages."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from benchmarks.split_deployment import deployment
from flower_edge.runtime.local_grid import LocalGrid

APP = Path(__file__).parents[1] / "apps" / "pieces_stream_app"


# Starting three SuperNodes is most of its time; a run through Flower that is short is test_pieces_through_flwr.py.
@pytest.mark.full
@pytest.mark.slow
@pytest.mark.flwr
def test_pieces_deployed_over_channels_equal_the_run_in_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.json"
    with deployment([f"partition-id={number} num-partitions=3" for number in range(3)]) as flower:
        flower.run(APP, f"report='{report}'")
        found = json.loads(flower.wait_for_file(report, 400.0))
        assert "error" not in found, f"{found['error']}\n{flower.logs()}"
    assert set(found["lost"]) == {""}
    assert sorted(found["turn_s"]) == ["0", "1", "2"]

    monkeypatch.syspath_prepend(str(APP))
    task = importlib.import_module("fe_pieces_stream.task")
    with LocalGrid(task.client(), nodes=3) as grid:
        result = task.strategy(None, 3).start(grid, task.start(), num_rounds=task.ROUNDS)
    assert found["arrays"] == {name: array.numpy().tobytes().hex() for name, array in result.arrays.items()}
