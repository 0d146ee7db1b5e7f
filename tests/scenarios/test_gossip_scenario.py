"""The gossip scenario, as its users run it: in process, and through a real `flwr run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenario_run import declared, run_in_process

from flower_edge.errors import ConfigError
from flower_edge.runtime.launching.launcher import launch
from flower_edge.store import RunFolder

APP = Path(__file__).parents[2] / "scenarios" / "gossip"
#: Small enough for every commit; the same keys for both grids.
SHORT = {"num-server-rounds": 2, "evaluate-every": 1, "seed": 11, "compare.learned": ""}
#: For what depends neither on the model nor on how many there are.
SMALL = {**SHORT, "task": "traffic", "pictures": False}

pytest.importorskip("torch", reason="the scenario's models need torch")
pytest.importorskip("sklearn", reason="the scenario's default data come with scikit-learn")
pytest.importorskip("matplotlib", reason="the scenario draws pictures")


def in_process(folder: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], **replaced: Any) -> RunFolder:
    """A run in this process: with all 15 nodes, or with 6 where it is small."""
    nodes = 15 if config is SHORT else 6
    keys = {key.replace("_", "-"): value for key, value in replaced.items()}
    return run_in_process(APP, nodes, folder, monkeypatch, {**config, **keys})


def scores(run: RunFolder) -> dict[str, list[float]]:
    """What was measured round by round."""
    read = [row.values for row in run.rows("evaluate")]
    trained = [row.values for row in run.rows("train")]
    found = {name: [float(row[name]) for row in read] for name in ("accuracy", "accuracy_worst", "loss")}
    told = ("loss", "objective_s", "round_time_s", "links")
    found |= {f"train {name}": [float(row[name]) for row in trained] for name in told}
    return found | {"virtual_s": [float(row.virtual_s) for row in run.rows("evaluate") if row.virtual_s is not None]}


def test_the_config_in_pyproject_is_the_one_the_model_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APP))
    from gossip_app.config import Gossip

    from flower_edge.config import known_keys, read_config

    assert set(known_keys(Gossip)) == set(declared(APP))
    assert read_config(Gossip, declared(APP)) == Gossip()


def test_two_rounds_of_lenet_leave_the_figures_of_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = in_process(tmp_path, monkeypatch, SHORT)
    found = scores(run)
    assert run.status == "finished"
    assert found["train loss"][1] < found["train loss"][0]
    # A round lasts as long as its slowest link, on the virtual clock.
    np.testing.assert_allclose(found["virtual_s"], np.cumsum(found["train round_time_s"]))
    assert run.summary["virtual_s"] == found["virtual_s"][-1] > 2.0
    assert found["train links"][0] == 15 * 14
    assert {f"fig-{name}.png" for name in ("06-07-network", "08-latency", "09-regret", "10-one-device")} <= {
        path.name for path in run.artifacts.iterdir()
    }
    assert (run.artifacts / "fig-11-mean-accuracy.png").is_file()
    assert (run.artifacts / "data.png").is_file()


def test_six_nodes_of_the_anomaly_task_learn_and_repeat_with_their_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = in_process(tmp_path / "one", monkeypatch, SMALL, num_server_rounds=4)
    again = in_process(tmp_path / "again", monkeypatch, SMALL, num_server_rounds=4)
    other = in_process(tmp_path / "other", monkeypatch, SMALL, num_server_rounds=4, seed=12)
    assert scores(one)["accuracy"][-1] > 0.5
    assert scores(one) == scores(again)
    assert scores(other) != scores(one)


def test_the_character_transformer_gossips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = in_process(tmp_path, monkeypatch, SMALL, task="characters")
    assert scores(run)["train loss"][1] < scores(run)["train loss"][0]


def test_which_way_packets_take_changes_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relayed = in_process(tmp_path / "relay", monkeypatch, SMALL)
    other = in_process(tmp_path / "other", monkeypatch, SMALL, mailbox="shared-memory")
    assert scores(other) == scores(relayed)


@pytest.mark.parametrize("signalling", ["requirements", "scalars"])
def test_who_computes_the_rows_changes_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signalling: str
) -> None:
    server = in_process(tmp_path / "server", monkeypatch, SMALL, controller="dcent", num_server_rounds=3)
    nodes = in_process(
        tmp_path / "nodes", monkeypatch, SMALL, controller="dcent", num_server_rounds=3, signalling=signalling
    )
    for name, values in scores(server).items():
        np.testing.assert_allclose(scores(nodes)[name], values, rtol=1e-6, err_msg=name)


def test_the_server_may_be_a_further_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = in_process(tmp_path, monkeypatch, SMALL, server_is_worker=True, controller="equal")
    assert scores(run)["train links"] == [7 * 6] * 2


def test_models_may_be_averaged_among_the_nodes_at_the_end_and_pictures_show_the_rounds_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = in_process(tmp_path, monkeypatch, SMALL, final="averaging", pictures=True)
    assert run.summary["rounds"] == 2
    assert (run.artifacts / "fig-09-regret.png").is_file()


def test_rounds_without_a_barrier_are_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = in_process(tmp_path / "barrier", monkeypatch, SMALL, num_server_rounds=6)
    stale = in_process(tmp_path / "stale", monkeypatch, SMALL, num_server_rounds=6, staleness=2)
    assert float(stale.summary["virtual_s"]) < float(barrier.summary["virtual_s"])


def test_a_higher_threshold_leaves_fewer_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = in_process(tmp_path / "few", monkeypatch, SMALL, num_server_rounds=8, prune=0.12)
    many = in_process(tmp_path / "many", monkeypatch, SMALL, num_server_rounds=8, prune=0.0)
    assert float(few.summary["links"]) < float(many.summary["links"]) == 30


def test_what_is_learned_without_communication_is_drawn_beside_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = {"compare.learned": "nocomm", "pictures": True}
    run = in_process(tmp_path / "beside", monkeypatch, SMALL, **beside)
    plain = in_process(tmp_path / "plain", monkeypatch, SMALL, pictures=True)
    assert scores(run) == scores(plain)
    name = "fig-10-one-device.png"
    assert (run.artifacts / name).read_bytes() != (plain.artifacts / name).read_bytes()


def test_a_run_that_was_taken_up_again_ends_as_if_it_had_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = in_process(tmp_path / "whole", monkeypatch, SMALL, num_server_rounds=3)
    first = in_process(tmp_path / "first", monkeypatch, SMALL)
    monkeypatch.setenv("FLOWER_EDGE_RESUME", str(first.path))
    resumed = in_process(tmp_path / "resumed", monkeypatch, SMALL, num_server_rounds=3)
    assert scores(resumed) == scores(whole)


def test_every_mistyped_key_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"prunes": 0.1, "mailbox": "pigeon", "quick": "yes", "data.paths": ""}
    with pytest.raises(ConfigError) as told:
        in_process(tmp_path, monkeypatch, wrong)
    text = str(told.value)
    assert "prunes: unknown key; did you mean 'prune'?" in text
    assert "data.paths: unknown key; did you mean 'data.path'?" in text
    assert "mailbox = 'pigeon'" in text
    assert "quick = 'yes'" in text


def test_a_controller_that_is_none_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="did you mean 'one-peer'"):
        in_process(tmp_path, monkeypatch, SMALL, controller="one-pear")
    with pytest.raises(ConfigError, match="did you mean 'nocomm'"):
        in_process(tmp_path, monkeypatch, {**SMALL, "compare.controllers": "equal nocom"})


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
