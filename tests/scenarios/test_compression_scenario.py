"""The compression scenario, as its users run it: in process, and through a real `flwr run`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenario_run import declared, run_in_process

from flower_edge.errors import CodecError, ConfigError
from flower_edge.runtime.launching.launcher import launch
from flower_edge.store import RunFolder

APP = Path(__file__).parents[2] / "scenarios" / "compression"
#: Small enough for every commit; the same keys for both grids.
SHORT = {"num-server-rounds": 2, "seed": 11, "compare.up": "eden-1-half", "train.steps": 4}

pytest.importorskip("torch", reason="the scenario's model needs torch")
pytest.importorskip("sklearn", reason="the scenario's default data come with scikit-learn")
pytest.importorskip("matplotlib", reason="the scenario draws pictures")


def in_process(folder: Path, monkeypatch: pytest.MonkeyPatch, **replaced: Any) -> RunFolder:
    keys = {key.replace("__", ".").replace("_", "-"): value for key, value in replaced.items()}
    return run_in_process(APP, 4, folder, monkeypatch, {**SHORT, **keys})


def numbers(run: RunFolder) -> dict[str, list[float]]:
    """What was measured round by round."""
    central, traffic = run.rows("central"), run.rows("traffic")
    found = {name: [float(row.values[name]) for row in central] for name in ("accuracy", "loss")}
    return found | {name: [float(row.values[name]) for row in traffic] for name in ("up_bits", "down_bits")}


def table(run: RunFolder, name: str) -> list[dict[str, str]]:
    """The table beside a picture."""
    with (run.artifacts / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_config_in_pyproject_is_the_one_the_model_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APP))
    from compression_app.config import Compression

    from flower_edge.config import known_keys, read_config

    assert set(known_keys(Compression)) == set(declared(APP))
    assert read_config(Compression, declared(APP)) == Compression()


def test_two_rounds_send_far_less_than_models_both_ways_and_leave_their_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = in_process(tmp_path, monkeypatch)
    whole = 4 * 32 * 61_706
    found = numbers(run)
    assert run.status == "finished"
    assert max(found["up_bits"]) < whole / 50
    # The first message holds a model in half precision, the second a code.
    assert whole / 2 < found["down_bits"][0] < whole * 0.6
    assert found["down_bits"][1] < whole / 50
    assert float(run.summary["up ratio"]) > 80
    names = {path.name for path in run.artifacts.iterdir()}
    pictures = {"accuracy-by-bytes", *(f"accuracy-by-time-{rate}-mbps" for rate in (1, 10, 100)), "data"}
    assert {"beside", *(f"{name}.{end}" for name in pictures for end in ("png", "csv"))} <= names
    told = table(run, "accuracy-by-bytes")
    mine = "stc-5 up, stc-5 down"
    assert [line["round"] for line in told] == ["1", "2"]
    assert [float(line[f"{mine}, accuracy"]) for line in told] == pytest.approx(found["accuracy"][1:], rel=1e-5)
    sent_mb = np.cumsum(np.add(found["up_bits"], found["down_bits"])) / 4 / 8e6
    assert [float(line[f"{mine}, MB"]) for line in told] == pytest.approx(sent_mb, rel=1e-5)
    # The same bytes over a hundredth of the rate; what is beside them in time, training and delay, is the same.
    slow, quick = (table(run, f"accuracy-by-time-{rate}-mbps") for rate in (1, 100))
    waited_s = [float(a[f"{mine}, s"]) - float(b[f"{mine}, s"]) for a, b in zip(slow, quick, strict=True)]
    assert waited_s == pytest.approx(8 * sent_mb * (1 - 1 / 100), rel=1e-3)


def test_what_is_learned_beside_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = in_process(tmp_path / "beside", monkeypatch)
    alone = in_process(tmp_path / "alone", monkeypatch, compare__up="", pictures=False)
    assert numbers(alone) == numbers(beside)


def test_the_identity_with_plain_models_down_is_federated_averaging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = in_process(tmp_path, monkeypatch, up="identity", down="none", compare__up="", pictures=False)
    assert float(run.summary["round trip"]) == pytest.approx(1.0, abs=0.01)


def test_a_run_that_was_taken_up_again_ends_as_if_it_had_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {"compare__up": "", "pictures": False}
    whole = in_process(tmp_path / "whole", monkeypatch, num_server_rounds=3, **alone)
    first = in_process(tmp_path / "first", monkeypatch, **alone)
    monkeypatch.setenv("FLOWER_EDGE_RESUME", str(first.path))
    resumed = in_process(tmp_path / "resumed", monkeypatch, num_server_rounds=3, **alone)
    assert numbers(resumed) == numbers(whole)


def test_a_codec_that_is_none_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CodecError, match="did you mean 'eden-1'"):
        in_process(tmp_path, monkeypatch, up="edn-1")
    with pytest.raises(ConfigError, match=r"links\.mbps = '1 ten'"):
        in_process(tmp_path, monkeypatch, links__mbps="1 ten")


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.full
def test_flwr_run_gives_the_metrics_of_local_grid_round_by_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    keys = {**SHORT, "compare.up": ""}
    result = launch(APP, run_config=keys, runs=tmp_path / "ray", on_line=lines.append, timeout_s=400)
    assert (result.status, result.exit_code) == ("completed", 0), "\n".join(lines[-30:])
    assert result.run_folder is not None
    through_ray = numbers(RunFolder.open(result.run_folder))
    here = numbers(run_in_process(APP, 8, tmp_path / "local", monkeypatch, keys))
    for name, values in here.items():
        np.testing.assert_allclose(through_ray[name], values, rtol=1e-3, atol=1e-3, err_msg=name)
