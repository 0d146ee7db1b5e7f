"""The quickstart, as its users run it: in process, and through a real `flwr run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenario_run import declared, run_in_process

from flower_edge.errors import ConfigError, DataError
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.launching.launcher import launch
from flower_edge.store import RunFolder

APP = Path(__file__).parents[2] / "scenarios" / "quickstart"
#: Small enough for every commit; the same keys for both grids.
SHORT = {"num-server-rounds": 2, "local-steps": 5, "train.learning-rate": 0.2, "seed": 11}

pytest.importorskip("torch", reason="the quickstart's default model needs torch")
pytest.importorskip("sklearn", reason="the quickstart's default data come with scikit-learn")


def in_process(folder: Path, monkeypatch: pytest.MonkeyPatch, faults: Any = (), **replaced: Any) -> RunFolder:
    return run_in_process(APP, 12, folder, monkeypatch, {**SHORT, **replaced}, faults)


def scores(run: RunFolder) -> dict[str, list[float]]:
    """Per-round numbers of the centre and of the terminals."""
    central = [row.values for row in run.rows("central")]
    trained = [row.values for row in run.rows("train") if not row.cell]
    return {
        "accuracy": [float(row["accuracy"]) for row in central],
        "loss": [float(row["loss"]) for row in central],
        "train loss": [float(row["loss"]) for row in trained],
        "virtual_s": [float(row.virtual_s) for row in run.rows("central") if row.virtual_s is not None],
    }


def test_the_config_in_pyproject_is_the_one_the_model_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APP))
    from quickstart_tiers.config import Quickstart

    from flower_edge.config import known_keys, read_config

    assert set(known_keys(Quickstart)) == set(declared(APP))
    assert read_config(Quickstart, declared(APP)) == Quickstart()


def test_two_rounds_in_process_learn_and_leave_a_readable_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = in_process(tmp_path, monkeypatch)
    found = scores(run)
    assert run.status == "finished"
    assert len(found["accuracy"]) == 3
    assert found["loss"][2] < found["loss"][0]
    assert found["accuracy"][2] > 0.2  # ten classes, so chance is 0.1
    nodes = run.rows("nodes")[0].values
    assert (nodes["nodes_sampled"], nodes["nodes_failed"], nodes["cells"]) == (12, 0, 3)
    assert {row.cell for row in run.rows("train")} == {"", "edge-0", "edge-1", "edge-2"}
    assert sum(array.size for array in run.load_model().values()) > 1000
    assert (run.artifacts / "data.png").is_file()


def test_the_torch_free_model_runs_the_same_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = in_process(tmp_path, monkeypatch, **{"model.name": "numpy-mlp"})
    assert scores(run)["accuracy"][2] > 0.2


def test_a_terminal_that_fails_is_counted_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A node's first message asks for its properties, twice where two proxies ask.
    run = in_process(tmp_path, monkeypatch, [Fault(node=5, kind="raise", at=at) for at in (3, 4, 5, 6)])
    assert run.status == "finished"
    assert sum(row.values["messages_failed"] for row in run.rows("nodes")) > 0


def test_every_mistyped_key_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"edge-round": 2, "train.lerning-rate": 0.1, "edges": 0, "seed": "seven"}
    with pytest.raises(ConfigError) as told:
        in_process(tmp_path, monkeypatch, **wrong)
    text = str(told.value)
    assert "edge-round: unknown key; did you mean 'edge-rounds'?" in text
    assert "train.lerning-rate: unknown key; did you mean 'train.learning-rate'?" in text
    assert "edges = 0" in text
    assert "seed = 'seven'" in text


def test_mnist_without_its_files_says_what_to_fetch_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte"):
        in_process(tmp_path, monkeypatch, **{"data.name": "mnist", "data.path": str(tmp_path / "nothing")})
    run = RunFolder.open("latest", root=tmp_path)
    assert run.status == "failed"
    assert "t10k-images" in str(run.info["error"])


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_flwr_run_gives_the_metrics_of_local_grid_round_by_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    result = launch(APP, run_config=SHORT, runs=tmp_path / "ray", on_line=lines.append, timeout_s=300)
    assert (result.status, result.exit_code) == ("completed", 0), "\n".join(lines[-30:])
    assert result.run_folder is not None
    through_ray = scores(RunFolder.open(result.run_folder))
    here = scores(in_process(tmp_path / "local", monkeypatch))
    for name in here:
        np.testing.assert_allclose(through_ray[name], here[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
@pytest.mark.full
def test_flwr_run_ends_with_exit_code_one_when_the_data_are_not_there(tmp_path: Path) -> None:
    """In `make test` an app that raises (`test_launcher`) and this error in process say the same."""
    wrong = {"data.name": "mnist", "data.path": str(tmp_path / "nothing")}
    result = launch(APP, run_config=wrong, runs=tmp_path, timeout_s=300)
    assert (result.status, result.exit_code) == ("failed", 1)
    assert "t10k-images-idx3-ubyte" in result.details
