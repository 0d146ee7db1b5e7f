"""The split scenario, as its users run it: in process, and through a real `flwr run`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenario_run import declared, run_in_process

from flower_edge.coverage.drawing import colour
from flower_edge.errors import ConfigError, SplitError
from flower_edge.runtime.launching.launcher import launch
from flower_edge.store import RunFolder

APP = Path(__file__).parents[2] / "scenarios" / "split"
#: Small enough for every commit; the same keys for both grids.
SHORT = {"num-server-rounds": 2, "seed": 11, "train.steps": 2, "train.merge-every": 2, "train.batch-size": 8}

pytest.importorskip("torch", reason="the scenario's model needs torch")
pytest.importorskip("sklearn", reason="the scenario's default data come with scikit-learn")
pytest.importorskip("matplotlib", reason="the scenario draws pictures")


def in_process(folder: Path, monkeypatch: pytest.MonkeyPatch, **replaced: Any) -> RunFolder:
    keys = {key.replace("__", ".").replace("_", "-"): value for key, value in replaced.items()}
    return run_in_process(APP, 4, folder, monkeypatch, {**SHORT, **keys})


def rows(run: RunFolder) -> list[dict[str, str]]:
    """One per device and round."""
    with (run.artifacts / "steps.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def accuracies(run: RunFolder) -> list[float]:
    return [float(row.values["accuracy"]) for row in run.rows("central")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return in_process(tmp_path_factory.mktemp("split"), monkeypatch)


def test_the_config_in_pyproject_is_the_one_the_model_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APP))
    from split_app.config import Split

    from flower_edge.config import known_keys, read_config

    assert set(known_keys(Split)) == set(declared(APP))
    assert read_config(Split, declared(APP)) == Split()


def test_two_rounds_cut_by_device_and_round_and_leave_their_pictures(finished: RunFolder) -> None:
    assert finished.status == "finished"
    told = rows(finished)
    assert [(int(row["round"]), int(row["device"])) for row in told] == [(n, d) for n in (1, 2) for d in range(4)]
    assert not any(row["lost"] for row in told)
    # 0.1 GFLOP/s beside 5: the slow device has fewer units than the fast one in each round.
    assert all(int(told[4 * n + 2]["cut"]) < int(told[4 * n + 3]["cut"]) for n in (0, 1))
    names = {path.name for path in finished.artifacts.iterdir()}
    assert names >= {
        "cut-by-device-and-round.png",
        "step-time-by-round.png",
        "slowest-and-quickest-step-by-round.png",
        "accuracy-by-modelled-time.png",
        "accuracy-by-traffic.png",
        "data.png",
        "beside",
    }


def table(run: RunFolder, name: str) -> list[dict[str, str]]:
    """The table beside a picture, one line for each round."""
    with (run.artifacts / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_tables_beside_the_pictures_have_the_numbers_of_the_rows(finished: RunFolder) -> None:
    cuts, steps = table(finished, "cut-by-device-and-round"), table(finished, "step-time-by-round")
    spread = table(finished, "slowest-and-quickest-step-by-round")
    for row in rows(finished):
        at = int(row["round"]) - 1
        assert int(cuts[at][f"device {row['device']}, units"]) == int(row["cut"])
        step_ms = 1e3 * float(row["planned_step_s"])
        assert float(steps[at][f"device {row['device']}, ms"]) == pytest.approx(step_ms, rel=1e-5)
        low, high = (float(spread[at][f"dynamic, {which}, ms"]) for which in ("quickest", "slowest"))
        assert low * (1 - 1e-5) <= step_ms <= high * (1 + 1e-5)
    by_time, by_traffic = table(finished, "accuracy-by-modelled-time"), table(finished, "accuracy-by-traffic")
    told = accuracies(finished)
    assert [float(line["dynamic, accuracy"]) for line in by_time] == pytest.approx(told[1:], rel=1e-5)
    assert [line["whole, accuracy"] for line in by_time] == [line["whole, accuracy"] for line in by_traffic]
    # What a divided model is for, and what it costs.
    assert float(by_time[-1]["dynamic, s"]) < float(by_time[-1]["whole, s"])
    assert float(by_traffic[-1]["dynamic, MB"]) > float(by_traffic[-1]["whole, MB"])


def test_every_device_and_every_planner_is_drawn(finished: RunFolder) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    for name, lines in (("step-time-by-round", 4), ("slowest-and-quickest-step-by-round", 3)):
        pixels = imread(finished.artifacts / f"{name}.png")[..., :3]
        for number in range(lines):
            drawn = np.abs(pixels - np.array(to_rgb(colour(number)))).max(axis=-1) < 0.01
            # In more rows of the picture than its line in the legend.
            assert drawn.any(axis=1).sum() > 5, f"{name}: line {number}"


def test_planned_cuts_bring_devices_together_and_cost_traffic(finished: RunFolder) -> None:
    told = {name: float(value) for name, value in finished.summary.items()}
    assert told["fixed's spread over it"] > 5
    assert told["whole's spread over it"] > 20
    assert told["times whole's clock"] < 0.2
    beside = {path.name.split("-")[-1]: RunFolder.open(path) for path in (finished.artifacts / "beside").iterdir()}
    assert set(beside) == {"fixed", "whole"}


def test_whole_models_send_nothing_at_the_cut_and_float32_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: dict[str, Any] = {"compare__planners": "", "pictures": False, "num_server_rounds": 1}
    whole = in_process(tmp_path / "whole", monkeypatch, planner="whole", **alone)
    assert {(row["cut"], row["up_bits"], row["down_bits"]) for row in rows(whole)} == {("32", "0", "0")}
    divided = in_process(tmp_path / "divided", monkeypatch, cut__codecs="none", **alone)
    assert all(int(row["up_bits"]) > 0 for row in rows(divided) if int(row["cut"]) < 32)
    assert accuracies(divided) == accuracies(whole)


def test_labels_that_stay_on_the_device_learn_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone: dict[str, Any] = {"compare__planners": "", "pictures": False, "num_server_rounds": 1}
    alone |= {"cut__codecs": "none", "planner": "fixed"}
    there = in_process(tmp_path / "there", monkeypatch, **alone)
    here = in_process(tmp_path / "here", monkeypatch, cut__labels="device", cut__tail=1, **alone)
    assert {row["tail"] for row in rows(here)} == {"1"}
    assert accuracies(here) == accuracies(there)


def test_a_run_that_was_taken_up_again_ends_as_if_it_had_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: dict[str, Any] = {"compare__planners": "", "pictures": False}
    whole = in_process(tmp_path / "whole", monkeypatch, num_server_rounds=3, **alone)
    first = in_process(tmp_path / "first", monkeypatch, **alone)
    monkeypatch.setenv("FLOWER_EDGE_RESUME", str(first.path))
    resumed = in_process(tmp_path / "resumed", monkeypatch, num_server_rounds=3, **alone)
    assert accuracies(resumed) == accuracies(whole)
    cuts = [row["cut"] for row in rows(whole)]
    assert [row["cut"] for row in rows(resumed)] == cuts


def test_keys_that_cannot_be_are_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for keys, error, says in (
        ({"devices__gflops": "2 1"}, ConfigError, r"devices\.gflops has 2 numbers and there are 4 devices"),
        ({"links__mbps": "1 ten"}, ConfigError, r"links\.mbps = '1 ten'"),
        ({"budget__train_ms": 250.0}, ConfigError, r"give both, or neither"),
        ({"compare__planners": "guess"}, ConfigError, r"no planner 'guess'"),
        ({"planner": "fixed", "cut__fixed_after": "block9"}, ConfigError, r"cut\.fixed-after = 'block9'"),
        ({"cut__codecs": "int9"}, SplitError, r"'int9'"),
    ):
        with pytest.raises(error, match=says):
            in_process(tmp_path, monkeypatch, **keys)


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.full
def test_flwr_run_gives_the_cuts_and_accuracies_of_local_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    keys = {**SHORT, "compare.planners": ""}
    result = launch(APP, run_config=keys, runs=tmp_path / "ray", on_line=lines.append, timeout_s=400)
    assert (result.status, result.exit_code) == ("completed", 0), "\n".join(lines[-30:])
    assert result.run_folder is not None
    through_ray = RunFolder.open(result.run_folder)
    here = run_in_process(APP, 4, tmp_path / "local", monkeypatch, keys)
    assert [row["cut"] for row in rows(through_ray)] == [row["cut"] for row in rows(here)]
    np.testing.assert_allclose(accuracies(through_ray), accuracies(here), rtol=1e-3, atol=1e-2)
