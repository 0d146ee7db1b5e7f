"""The mixed-devices scenario, as its users run it: in process, and through a real `flwr run`."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenario_run import declared, run_in_process

from flower_edge.errors import ConfigError
from flower_edge.runtime.launching.launcher import launch
from flower_edge.store import RunFolder

APP = Path(__file__).parents[2] / "scenarios" / "mixed_devices"
#: Small enough for every commit; the same keys for both grids.
SHORT: dict[str, Any] = {"quick": True, "hall.steps": 2}

pytest.importorskip("torch", reason="pieces of a model are torch's")
pytest.importorskip("sklearn", reason="the scenario's default data come with scikit-learn")
pytest.importorskip("matplotlib", reason="the scenario draws pictures")


def in_process(folder: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> RunFolder:
    return run_in_process(APP, 14, folder, monkeypatch, {**SHORT, **config})


def accuracies(run: RunFolder) -> list[float]:
    return [float(row.values["accuracy"]) for row in run.rows("central")]


def table(run: RunFolder, name: str) -> list[dict[str, str]]:
    with (run.artifacts / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def stretches(run: RunFolder, terminal: int) -> list[tuple[int, str, int, int]]:
    """Round, what, first step and steps of everything a terminal trained."""
    return [
        (int(line["round"]), line["what"], int(line["from step"]), int(line["steps"]))
        for line in table(run, "who-trained-what")
        if line["terminal"] == str(terminal)
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return in_process(tmp_path_factory.mktemp("mixed"), monkeypatch, {})


def test_the_config_in_pyproject_is_the_one_the_model_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APP))
    from mixed_devices_app.config import MixedDevices

    from flower_edge.config import known_keys, read_config

    assert set(known_keys(MixedDevices)) == set(declared(APP))
    assert read_config(MixedDevices, declared(APP)) == MixedDevices()
    assert MixedDevices().beside == ["smallest", "whole"]
    quick = MixedDevices(quick=True)
    assert (quick.rounds, quick.beside, quick.spike_rounds, quick.leaver_away) == (3, [], (2, 3), (2, 3))


def test_every_class_is_given_the_largest_model_it_can_train_in_time(finished: RunFolder) -> None:
    given = [stretches(finished, terminal)[0] for terminal in range(10)]
    rates = [f"rate {rate:g}" for rate in (1.0, 0.5, 0.25, 0.125, 0.0625)]
    assert given == [(1, rates[terminal // 2], 0, 15) for terminal in range(10)]
    told = {row.node: str(row.values["text"]) for row in finished.rows("event") if row.values["what"] == "model-list"}
    assert told["4"].startswith("terminal 4 is given 'medium': ")
    assert "measured; 'large' would take" in told["4"]


def test_loaded_terminals_go_down_and_up_again_at_step_boundaries_and_the_others_stay(finished: RunFolder) -> None:
    assert stretches(finished, 0) == [
        (1, "rate 1", 0, 15),
        (2, "rate 1", 0, 5),
        (2, "rate 0.5", 5, 5),
        (2, "rate 0.25", 10, 5),
        (3, "rate 0.25", 0, 5),
        (3, "rate 0.5", 5, 5),
        (3, "rate 1", 10, 5),
    ]
    assert [what for _, what, _, _ in stretches(finished, 4)][2:5] == ["rate 0.125", "rate 0.0625", "rate 0.0625"]
    for terminal in (2, 3, 6, 7, 8, 9):
        assert len({what for _, what, _, _ in stretches(finished, terminal)}) == 1
    why = {line["why"] for line in table(finished, "who-trained-what") if line["why"].startswith("terminal asks")}
    assert why == {"terminal asks: load 0.9", "terminal asks: load 0.0"}


def test_the_steps_of_every_round_are_made_once_by_every_terminal_of_the_street(finished: RunFolder) -> None:
    for terminal in range(10):
        made = dict.fromkeys((1, 2, 3), 0)
        for number, _, first, steps in stretches(finished, terminal):
            assert first == made[number]
            made[number] += steps
        assert set(made.values()) == {15}


def test_the_piece_of_the_terminal_that_leaves_is_the_spares_in_that_round(finished: RunFolder) -> None:
    first, middle, last, spare = (stretches(finished, terminal) for terminal in (10, 11, 12, 13))
    assert [what for _, what, _, _ in first] == ["units 0-2"] * 3
    assert [what for _, what, _, _ in middle] == ["units 3-4"] * 3
    assert [(what, steps) for _, what, _, steps in last] == [("unit 5", 2), ("unit 5", 0), ("unit 5", 2)]
    assert [(what, steps) for _, what, _, steps in spare] == [("spare", 0), ("unit 5", 2), ("spare", 0)]
    found = {str(row.values["what"]) for row in finished.rows("event") if row.round == 2}
    assert {"piece-lost", "piece-reassigned", "sub-model", "changed-model"} <= found
    shares = [
        float(line["percent of the parameters"])
        for line in table(finished, "who-trained-what")
        if line["edge"] == "hall" and line["round"] == "1"
    ]
    assert sum(shares) == pytest.approx(100.0, abs=0.2)


def test_no_round_with_an_assigned_model_is_longer_than_the_deadline_but_in_the_spike(finished: RunFolder) -> None:
    lines = table(finished, "seconds-per-round")
    assert len(lines) == 30
    for line in lines:
        own, whole = float(line["seconds, assigned"]), float(line["seconds, whole model (computed)"])
        if line["round"] == "1":
            assert own < 2.0
            # With the whole model a round of a full terminal is what it was: so the computed seconds can be believed.
            assert own == pytest.approx(whole, rel=0.01) if line["class"] == "full" else own < 0.5 * whole
    assert max(float(line["seconds, assigned"]) for line in lines) > 2.0


def test_the_run_leaves_pictures_tables_and_the_model_list(finished: RunFolder) -> None:
    assert finished.status == "finished"
    names = {path.name for path in finished.artifacts.iterdir()}
    for name in ("who-trained-what", "accuracy-beside-other-ways", "seconds-per-round"):
        assert {f"{name}.png", f"{name}.csv"} <= names
    assert {"models.csv", "data.png"} <= names
    scores = [float(line["a model for each"]) for line in table(finished, "accuracy-beside-other-ways")]
    assert scores == pytest.approx(accuracies(finished), abs=1e-4)
    assert finished.summary["changes in mid-round"] == 16
    assert finished.summary["pieces reassigned"] == 1


@pytest.mark.slow
def test_a_tiny_terminal_trains_where_torch_cannot_be_imported() -> None:
    program = """
import sys
from importlib.abc import MetaPathFinder

class NoTorch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("this terminal has no torch")

sys.meta_path.insert(0, NoTorch())
from flwr.app import ConfigRecord, Message, RecordDict
from flower_edge.runtime import LocalGrid
from flower_edge.wire import arrays_of, record_of
from mixed_devices_app import task
from mixed_devices_app.client_app import app
from mixed_devices_app.config import MixedDevices
from flower_edge.submodels.mlp import narrow_mlp

config = MixedDevices()
small = narrow_mlp(task.model(config), task.models(config).lightest.shapes)
told = ConfigRecord({"server-round": 1, "local-steps": 3})
with LocalGrid(app, 14) as grid:
    content = RecordDict({"arrays": record_of(small.arrays()), "config": told})
    (reply,) = grid.send_and_receive([Message(content, 1009, "train")])
after = arrays_of(reply.content["arrays"])
assert after["linear0.weight"].shape == (16, 64) and (after["linear0.weight"] != small.arrays()["linear0.weight"]).any()
assert "torch" not in sys.modules
print("trained", reply.content["metrics"]["steps"])
"""
    environment = {**os.environ, "PYTHONPATH": str(APP)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "trained 3", done.stderr[-2000:]


def test_a_run_that_was_taken_up_again_ends_as_if_it_had_never_stopped(
    finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = in_process(tmp_path / "first", monkeypatch, {"num-server-rounds": 2, "pictures": False})
    monkeypatch.setenv("FLOWER_EDGE_RESUME", str(first.path))
    resumed = in_process(tmp_path / "resumed", monkeypatch, {"pictures": False})
    assert accuracies(resumed) == accuracies(finished)
    assert table(resumed, "who-trained-what") == table(finished, "who-trained-what")


def test_keys_that_cannot_be_are_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for keys, says in (
        ({"spike.classes": "full huge"}, r"no class 'huge'; full, large"),
        ({"compare.runs": "guess"}, r"no run 'guess'"),
        ({"model.hidden": "8"}, r"model\.hidden = '8'"),
        ({"hall.pieces": 4}, r"hall\.pieces = 4: a model with 2 hidden layers makes 3 pieces"),
        ({"hall.leaver": 4}, r"hall\.leaver = 4: the hall has 4 terminals"),
        ({"spike.last-round": 1}, r"spike\.last-round = 1 is before spike\.first-round = 4"),
    ):
        with pytest.raises(ConfigError, match=says):
            in_process(tmp_path, monkeypatch, keys)
    with pytest.raises(ConfigError, match="12 terminals: 10 stand in the street"):
        run_in_process(APP, 12, tmp_path, monkeypatch, SHORT)
    assert not list(tmp_path.glob("*/metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
@pytest.mark.full
def test_flwr_run_gives_the_models_accuracies_and_tables_of_local_grid(
    finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    result = launch(
        APP, run_config={**SHORT, "pictures": False}, runs=tmp_path / "ray", on_line=said.append, timeout_s=400
    )
    assert (result.status, result.exit_code) == ("completed", 0), "\n".join(said[-30:])
    assert result.run_folder is not None
    through_ray = RunFolder.open(result.run_folder)
    np.testing.assert_allclose(accuracies(through_ray), accuracies(finished), atol=0.01)
    assert table(through_ray, "who-trained-what") == table(finished, "who-trained-what")
