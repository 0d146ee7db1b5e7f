"""A real SuperLink with two warm nodes trains over the TLS stream what LocalGrid trains with frames in messages."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from benchmarks.split_deployment import deployment
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.local_grid import LocalGrid

APP = Path(__file__).parents[1] / "apps" / "split_app"


@pytest.mark.slow
@pytest.mark.flwr
def test_a_deployment_over_the_stream_equals_the_run_in_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.json"
    with deployment([]) as flower:
        for number in range(2):
            flower.add_node(f"node-{number}", f"partition-id={number} num-partitions=2", warm=True)
        flower.run(APP, f"report='{report}'")
        found = json.loads(flower.wait_for_file(report, 400.0))
        assert "error" not in found, f"{found['error']}\n{flower.logs()}"
    assert set(found["lost"]) == {""}
    assert all(transfer_s > 0.0 for transfer_s in found["transfer_s"])

    monkeypatch.syspath_prepend(str(APP))
    task = importlib.import_module("fe_split_app.task")
    with LocalGrid(task.client(), nodes=2) as grid:
        result = task.strategy(None).start(GridProxy(grid, expected_nodes=2), task.start(), num_rounds=task.ROUNDS)
    assert found["arrays"] == {name: array.numpy().tobytes().hex() for name, array in result.arrays.items()}
