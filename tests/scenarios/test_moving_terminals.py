"""The moving terminals, as their users run them: in process, and through a real `flwr run`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenario_run import declared, run_in_process

from flower_edge.errors import ConfigError
from flower_edge.runtime.launching.launcher import launch
from flower_edge.store import RunFolder

APP = Path(__file__).parents[2] / "scenarios" / "moving_terminals"
#: Small enough for every commit; the same keys for both grids.
SHORT = {"num-server-rounds": 2, "seed": 11}
#: For what depends neither on the model nor on how many there are.
SMALL = {**SHORT, "model.name": "numpy-mlp", "terminals-per-edge": 2, "pictures": False}

pytest.importorskip("torch", reason="the scenario's default model needs torch")
pytest.importorskip("sklearn", reason="the scenario's default data come with scikit-learn")
pytest.importorskip("matplotlib", reason="the scenario draws a map")


def in_process(folder: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], **replaced: Any) -> RunFolder:
    """A run in this process: with all 50 terminals, or with 20 where it is small."""
    terminals = 50 if config is SHORT else 20
    return run_in_process(APP, terminals, folder, monkeypatch, {**config, **replaced})


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


def happened(run: RunFolder) -> list[tuple[str, str, str, float | None]]:
    return [
        (str(row.values.get("what", "")), row.node, str(row.values["text"]), row.virtual_s) for row in run.rows("event")
    ]


def counts(run: RunFolder) -> Counter[str]:
    return Counter(what for what, *_ in happened(run))


def test_the_config_in_pyproject_is_the_one_the_model_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APP))
    from moving_terminals_app.config import MovingTerminals

    from flower_edge.config import known_keys, read_config

    assert set(known_keys(MovingTerminals)) == set(declared(APP))
    assert read_config(MovingTerminals, declared(APP)) == MovingTerminals()


def test_two_rounds_learn_while_terminals_move_and_leave_maps_and_a_timeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = in_process(tmp_path, monkeypatch, SHORT)
    found = scores(run)
    assert run.status == "finished"
    assert found["loss"][2] < found["loss"][1] < found["loss"][0]
    assert found["accuracy"][2] > 0.2  # ten classes, so chance is 0.1
    seen = counts(run)
    assert seen["handed-over"] >= 20
    assert min(seen["left"], seen["entered"], seen["exited"], seen["replaced"]) >= 1
    assert run.summary["handovers"] == seen["handed-over"]
    assert run.summary["left in mid-task"] == seen["exited"]
    assert run.summary["virtual_s"] == found["virtual_s"][2] > 60
    assert {row.cell for row in run.rows("train")} == {"", *(f"edge-{i}" for i in range(5))}
    assert {"attachment.png", "data.png", "map.png"} <= {path.name for path in run.artifacts.iterdir()}


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = in_process(tmp_path / "one", monkeypatch, SMALL)
    again = in_process(tmp_path / "again", monkeypatch, SMALL)
    other = in_process(tmp_path / "other", monkeypatch, SMALL, seed=12)
    assert scores(one) == scores(again)
    assert happened(one) == happened(again)
    assert scores(other) != scores(one)


def test_without_handover_nobody_is_handed_over_and_work_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it = in_process(tmp_path / "on", monkeypatch, SMALL)
    without = in_process(tmp_path / "off", monkeypatch, SMALL, handover=False)
    assert counts(without)["handed-over"] == 0 < counts(with_it)["handed-over"]
    assert int(without.summary["lost their work"]) > int(with_it.summary["lost their work"])


def test_who_goes_out_of_coverage_and_keeps_training_is_merged_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = {"num-server-rounds": 4, "area.away-share": 0.3, "area.away-s": 20.0}
    run = in_process(tmp_path, monkeypatch, {**SMALL, **often, "on-exit": "keep"})
    away = {node for what, node, *_ in happened(run) if what == "detached"}
    late = {text.split()[4] for what, _, text, _ in happened(run) if what == "late-merged"}
    assert late
    assert late <= away
    assert run.summary["merged late"] == counts(run)["late-merged"]


def test_who_leaves_with_new_data_goes_on_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = in_process(tmp_path / "keep", monkeypatch, SMALL, **{"on-exit": "keep"})
    new = in_process(tmp_path / "new", monkeypatch, SMALL, **{"on-exit": "new-data"})
    assert any(text.endswith("it may go on with new data") for _, _, text, _ in happened(new))
    assert scores(kept)["loss"] != scores(new)["loss"]


def test_only_who_is_willing_joins_where_terminals_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = in_process(tmp_path, monkeypatch, SMALL, join="ask")
    from moving_terminals_app import world
    from moving_terminals_app.config import MovingTerminals

    config = MovingTerminals(seed=11)
    joined = {int(node) for what, node, *_ in happened(run) if what == "joined"}
    declined = {int(node) for what, node, *_ in happened(run) if what == "declined"}
    worked = {int(node) for what, node, *_ in happened(run) if what in ("exited", "slow")}
    assert joined
    assert declined
    assert all(world.willing(config, terminal) for terminal in joined)
    assert not any(world.willing(config, terminal) for terminal in declined)
    assert worked <= joined


def test_only_who_satisfies_the_rule_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = in_process(tmp_path, monkeypatch, SMALL, **{"select.eligible": "battery > 0.5"})
    told = [row.values for row in run.rows("event") if row.values.get("what") == "selected"]
    assert any(int(values["unfit"]) > 0 for values in told)
    assert all(int(values["chosen"]) <= int(values["eligible"]) for values in told)


def test_training_stops_at_the_score_that_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = in_process(tmp_path, monkeypatch, SMALL, **{"num-server-rounds": 9, "stop.accuracy": 0.3})
    assert run.summary["rounds"] < 9
    assert float(run.summary["accuracy"]) >= 0.3
    assert counts(run)["stopped"] == 1


def test_a_run_that_was_taken_up_again_ends_as_if_it_had_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = in_process(tmp_path / "whole", monkeypatch, SMALL, **{"num-server-rounds": 3})
    first = in_process(tmp_path / "first", monkeypatch, SMALL)
    monkeypatch.setenv("FLOWER_EDGE_RESUME", str(first.path))
    resumed = in_process(tmp_path / "resumed", monkeypatch, SMALL, **{"num-server-rounds": 3})
    assert scores(resumed) == scores(whole)
    assert counts(resumed)["handed-over"] == counts(whole)["handed-over"]


def test_every_mistyped_key_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"on-exits": "stop", "area.width": 100.0, "handover": "yes", "join": "never"}
    with pytest.raises(ConfigError) as told:
        in_process(tmp_path, monkeypatch, wrong)
    text = str(told.value)
    assert "on-exits: unknown key; did you mean 'on-exit'?" in text
    assert "area.width: unknown key; did you mean 'area.width-m'?" in text
    assert "handover = 'yes'" in text
    assert "join = 'never'" in text


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
@pytest.mark.full
def test_flwr_run_gives_the_metrics_of_local_grid_round_by_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    result = launch(APP, run_config=SHORT, runs=tmp_path / "ray", on_line=lines.append, timeout_s=400)
    assert (result.status, result.exit_code) == ("completed", 0), "\n".join(lines[-30:])
    assert result.run_folder is not None
    through_ray = RunFolder.open(result.run_folder)
    here = in_process(tmp_path / "local", monkeypatch, SHORT)
    for name, values in scores(here).items():
        np.testing.assert_allclose(scores(through_ray)[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    # The same terminals come, go and are replaced, in the same order and at the same virtual times.
    assert [event[:3] for event in happened(through_ray)] == [event[:3] for event in happened(here)]
