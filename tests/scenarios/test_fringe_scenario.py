"""The fringe scenario, as its users run it: served on three processes and compressed meanwhile; a link changes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenario_run import declared, run_in_process

from flower_edge.errors import ConfigError, FringeError
from flower_edge.runtime.fringe.channels import Served
from flower_edge.runtime.fringe.open_traffic import Answer
from flower_edge.runtime.launching.launcher import launch
from flower_edge.store import RunFolder

APP = Path(__file__).parents[2] / "scenarios" / "fringe"
#: Small; goals that any machine reaches, however busy it is.
SHORT = {"quick": True, "train.steps": 4, "goal.latency-ms": 250.0, "goal.drop": 5.0, "serve.links-mbps": "0.6 4"}

pytest.importorskip("torch", reason="the scenario's model needs torch")
pytest.importorskip("sklearn", reason="the scenario's default data come with scikit-learn")
pytest.importorskip("matplotlib", reason="the scenario draws pictures")


def test_the_config_in_pyproject_is_the_one_the_model_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APP))
    from fringe_app.config import FringeRun

    from flower_edge.config import known_keys, read_config

    assert set(known_keys(FringeRun)) == set(declared(APP))
    assert read_config(FringeRun, declared(APP)) == FringeRun()


@pytest.mark.parametrize(
    ("keys", "error", "says"),
    [
        ({"serve.links-mbps": "1"}, ConfigError, r"serve\.links-mbps has 1 entries and there are 3 machines"),
        ({"serve.links-mbps": "1 fast"}, ConfigError, r"serve\.links-mbps = '1 fast'"),
        ({"serve.delays-ms": "1 -5"}, ConfigError, r"delays of 0 or more"),
        ({"worse.connection": 2}, ConfigError, r"connections are 0 to 1"),
        ({"goal.methods": "magic"}, FringeError, r"magic"),
    ],
)
def test_keys_that_cannot_be_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        run_in_process(APP, 2, tmp_path, monkeypatch, keys)
    assert not list(tmp_path.iterdir())


def test_the_server_keeps_data_that_no_terminal_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APP))
    from fringe_app import task
    from fringe_app.config import FringeRun

    config = FringeRun()
    parts = [task.terminals_data(config), task.learn_data(config), task.validation_data(config)]
    seen = [{one.tobytes() for one in part.x} for part in parts]
    assert sum(map(len, parts)) == len(task.datasets(config)[0])
    # A digit or two are in the data twice.
    assert len(seen[0] & (seen[1] | seen[2])) + len(seen[1] & seen[2]) < 5


def test_an_answer_that_its_version_does_not_give_is_counted_as_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APP))
    from fringe_app.serving import Phase
    from fringe_app.serving import Served as Seen

    def answer(number: int, version: int, output: float, seconds_s: float = 0.1) -> Answer:
        return Answer(number, 0, float(number), seconds_s, Served(np.float32([output]), version, seconds_s), "")

    seen = Seen([answer(1, 1, 0.5), answer(2, 1, 0.5), answer(3, 2, 0.7), answer(4, 2, 0.7, 0.3), answer(5, 2, 0.5)])
    assert seen.mixed == 1
    assert seen.lost == 0
    assert seen.p50_s(Phase("late", 3.0, 5.0)) == pytest.approx(0.2)
    assert np.isnan(seen.p50_s(Phase("after", 6.0, 9.0)))
    seen.answers.append(Answer(6, 0, 6.0, 0.1, None, "lost"))
    seen.unanswered = 1
    assert seen.lost == 2


def check(run: RunFolder) -> None:
    """What any run has to show."""
    assert run.status == "finished"
    told = {name: float(value) for name, value in run.summary.items()}
    assert (told["requests lost"], told["answers of mixed versions"]) == (0, 0)
    assert told["requests answered"] > 10
    assert told["swaps"] >= 1
    assert told["bytes of an inference before"] == 32792 + 16408
    assert told["fewest bytes of an inference"] < 0.6 * told["bytes of an inference before"]
    with (run.artifacts / "latency-of-requests.csv").open(encoding="utf-8") as file:
        phases = [row["phase"] for row in csv.DictReader(file)]
    assert phases == ["uncompressed", "compressing", "compressed", "worse", "compressed on", "better", "backed off"]
    with (run.artifacts / "requests.csv").open(encoding="utf-8") as file:
        assert len({row["served version"] for row in csv.DictReader(file)}) >= 2
    names = {path.name for path in run.artifacts.iterdir()}
    assert names >= {"latency-of-requests.png", "bytes-over-time.png", "data.png", "bytes-over-time.csv"}


@pytest.mark.slow
def test_a_run_in_this_process_loses_nothing_and_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(run_in_process(APP, 2, tmp_path, monkeypatch, SHORT))


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
@pytest.mark.full
def test_flwr_run_serves_and_compresses_as_well(tmp_path: Path) -> None:
    lines: list[str] = []
    result = launch(APP, run_config=SHORT, runs=tmp_path, on_line=lines.append, timeout_s=550)
    assert (result.status, result.exit_code) == ("completed", 0), "\n".join(lines[-30:])
    assert result.run_folder is not None
    check(RunFolder.open(result.run_folder))
