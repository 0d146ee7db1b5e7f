"""A run folder tells what happened, whoever asks and however the run ended."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flower_edge import __version__
from flower_edge.errors import ConfigError, DataError, ResumeError, StateError
from flower_edge.store import Row, RunFolder
from flower_edge.store.process import is_gone, this_process


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FLOWER_EDGE_RUNS", raising=False)
    monkeypatch.delenv("FLOWER_EDGE_RUN_DIR", raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_run_tells_its_command_without_the_token_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["flwr-simulation", "--port", "1", "--token", "s3cret", "--api-token=s3cret", "-v"]
    )
    with RunFolder.create("demo", config={}, seed=1, root=tmp_path) as run:
        run.finish({})
    told = run.path.joinpath("run.json").read_text()
    assert json.loads(told)["command"][1:] == ["--port", "1", "--token", "***", "--api-token=***", "-v"]
    assert "s3cret" not in told


def begin(name: str = "demo", **more: object) -> RunFolder:
    return RunFolder.create(name, config={"rounds": 3}, seed=7, **more)  # type: ignore[arg-type]


# --- where it goes ---


def test_a_run_goes_below_runs_under_its_utc_second_and_name() -> None:
    with begin() as run:
        assert run.path.parent == Path.cwd() / "runs"
        assert re.fullmatch(r"\d{8}-\d{6}-demo", run.path.name)


def test_the_argument_beats_the_exact_folder_beats_the_root_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWER_EDGE_RUNS", str(tmp_path / "from-env"))
    with begin() as run:
        assert run.path.parent == tmp_path / "from-env"
    monkeypatch.setenv("FLOWER_EDGE_RUN_DIR", str(tmp_path / "exact"))
    with begin() as run:
        assert run.path == tmp_path / "exact"
    with begin(root=tmp_path / "given") as run:
        assert run.path.parent == tmp_path / "given"
    with begin(path=tmp_path / "this one") as run:
        assert run.path == tmp_path / "this one"


def test_runs_of_one_second_do_not_share_a_folder() -> None:
    runs = [begin() for _ in range(4)]
    for run in runs:
        run.close()
    assert len({run.path for run in runs}) == 4


def test_a_run_never_writes_over_another(tmp_path: Path) -> None:
    begin(path=tmp_path / "x").close()
    with pytest.raises(ConfigError, match="holds a run already"):
        begin(path=tmp_path / "x")


def test_a_name_no_folder_can_have_is_kept_in_run_json() -> None:
    with begin("Gossip/α: 3 nodes") as run:
        assert re.fullmatch(r"\d{8}-\d{6}-Gossip-3-nodes", run.path.name)
        assert run.name == "Gossip/α: 3 nodes"


# --- what is in it ---


def test_run_json_says_what_ran_where_with_which_versions() -> None:
    with begin() as run:
        info = json.loads((run.path / "run.json").read_text())
    assert info["seed"] == 7
    assert info["versions"]["flower-edge"] == __version__
    assert info["versions"]["numpy"] == np.__version__
    assert info["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert info["process"]["pid"] == os.getpid()
    assert info["started_at"].endswith("+00:00")


def test_the_config_is_stored_as_it_was_resolved(tmp_path: Path) -> None:
    config = {"a": np.float32(0.5), "b": (1, 2), "c": {"d": math.inf}, "e": tmp_path, "f": None}
    with RunFolder.create("demo", config=config, seed=1) as run:
        assert run.config == {"a": 0.5, "b": [1, 2], "c": {"d": "Infinity"}, "e": str(tmp_path), "f": None}


def test_a_config_that_is_no_json_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"config\.model\.weights is array"):
        RunFolder.create("demo", config={"model": {"weights": np.zeros(2)}}, seed=1)


def test_rows_carry_the_moment_they_were_recorded() -> None:
    with begin() as run:
        run.record("train", 1, {"loss": 1.0}, cell="edge-0", node="4", edge_round=2, virtual_s=12.5)
        run.record("train", 1, {"loss": 1.0}, wall_s=99.0)
        run.record_rows([Row("train", 2, {"loss": 1.0}), Row("train", 2, {"loss": 1.0}, wall_s=5.0)])
        first, second, third, fourth = run.rows()
    assert (first.cell, first.node, first.edge_round, first.virtual_s) == ("edge-0", "4", 2, 12.5)
    assert first.wall_s is not None
    assert third.wall_s is not None
    assert 0.0 <= first.wall_s <= third.wall_s < 60.0
    assert (second.wall_s, fourth.wall_s) == (99.0, 5.0)


def test_the_summary_comes_back_with_nan_and_infinity() -> None:
    with begin() as run:
        run.finish({"accuracy": np.float64(0.9), "loss": math.inf, "note": "fine"})
    summary = RunFolder.open(run.path).summary
    assert summary == {"accuracy": 0.9, "loss": math.inf, "note": "fine"}


# --- how it ends ---


def test_a_run_that_raises_says_failed_and_why_and_stays_readable() -> None:
    def go(run: RunFolder) -> None:
        with run:
            run.record("central", 1, {"accuracy": 0.5})
            raise RuntimeError("no node came")

    run = begin()
    with pytest.raises(RuntimeError):
        go(run)
    again = RunFolder.open(run.path)
    assert (again.status, again.info["error"]) == ("failed", "RuntimeError: no node came")
    assert again.rows("central")[0].values == {"accuracy": 0.5}
    assert again.info["finished_at"] >= again.info["started_at"]


def test_ctrl_c_is_stopped_not_failed() -> None:
    with pytest.raises(KeyboardInterrupt), begin() as run:
        raise KeyboardInterrupt
    assert RunFolder.open(run.path).status == "stopped"


def test_a_run_that_just_ends_is_finished_without_a_summary() -> None:
    with begin() as run:
        assert RunFolder.open(run.path).status == "running"
    assert RunFolder.open(run.path).status == "finished"
    assert RunFolder.open(run.path).summary == {}


KILLED = """
import os, signal, sys
from flower_edge.store import RunFolder
run = RunFolder.create("demo", config={}, seed=1, path=sys.argv[1])
run.record("central", 1, {"accuracy": 0.5})
run.save_checkpoint(2, {"round": 2})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_reads_as_interrupted_with_all_it_had(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "x")], check=False)
    assert ended.returncode == -signal.SIGKILL
    run = RunFolder.open(tmp_path / "x")
    assert run.status == "interrupted"
    assert run.info["status"] == "running"
    assert [row.values for row in run.rows()] == [{"accuracy": 0.5}]
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    assert checkpoint[1] == {"round": 2}


def test_a_process_id_used_again_is_not_the_same_process() -> None:
    mark = this_process()
    assert not is_gone(mark)
    if mark["started_ticks"] is not None:
        assert is_gone({**mark, "started_ticks": mark["started_ticks"] - 1})
    assert not is_gone({**mark, "host": "elsewhere", "pid": 2**22 + 1})


# --- finding it again ---


def test_a_run_is_found_by_path_folder_beginning_name_and_latest(tmp_path: Path) -> None:
    for name, folder in (("a", "20260101-000000-a"), ("a", "20260102-000000-a"), ("b", "20260103-000000-b")):
        begin(name, path=tmp_path / "runs" / folder).close()
    assert RunFolder.open(tmp_path / "runs" / "20260101-000000-a").path.name == "20260101-000000-a"
    assert RunFolder.open("runs/20260101-000000-a").path.is_absolute()
    assert RunFolder.open("20260102-000000-a").path.name == "20260102-000000-a"
    assert RunFolder.open("20260102").path.name == "20260102-000000-a"
    assert RunFolder.open("a").path.name == "20260102-000000-a"
    assert RunFolder.open("latest").path.name == "20260103-000000-b"
    assert RunFolder.open("latest", root=tmp_path / "runs").name == "b"
    assert [run.name for run in RunFolder.all()] == ["a", "a", "b"]
    with pytest.raises(ConfigError, match="beginning of 3 runs; give more of it: 20260101-000000-a, "):
        RunFolder.open("2026")


def test_a_run_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run 'x' in .*there are none"):
        RunFolder.open("x")
    begin(path=tmp_path / "runs" / "20260101-000000-a").close()
    for which in ("x", ""):
        with pytest.raises(ConfigError, match="the newest there are 20260101-000000-a"):
            RunFolder.open(which)


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "x"}'])
def test_a_damaged_run_json_is_named_and_does_not_hide_the_others(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    begin(path=tmp_path / "runs" / "good").close()
    begin(path=tmp_path / "runs" / "bad").close()
    (tmp_path / "runs" / "bad" / "run.json").write_text(content)
    with pytest.raises(DataError, match=r"bad/run\.json"):
        RunFolder.open("bad")
    with caplog.at_level(logging.WARNING):
        assert [run.path.name for run in RunFolder.all()] == ["good"]
    assert "run left out" in caplog.text


def test_a_run_opened_for_reading_is_not_written() -> None:
    begin().close()
    run = RunFolder.open("latest")
    for write in (
        lambda: run.record("x", 1, {"a": 1}),
        lambda: run.save_model(1, {}),
        lambda: run.save_checkpoint(1, {}),
        lambda: run.finish({}),
    ):
        with pytest.raises(ConfigError, match="open for reading"):
            write()


# --- models and checkpoints ---


def test_the_last_three_models_and_the_best_are_kept() -> None:
    with begin() as run:
        for at, score in enumerate([0.1, 0.9, 0.5, 0.9, 0.4, math.nan, 0.3], start=1):
            run.save_model(at, {"w": np.full(3, at, np.float32)}, score=score)
    models = RunFolder.open("latest").models
    assert list(models.rounds()) == [2, 5, 6, 7]
    assert models.scores() == {2: 0.9, 5: 0.4, 7: 0.3}
    assert run.load_model("best")["w"].tolist() == [2.0, 2.0, 2.0]
    assert run.load_model()["w"].tolist() == [7.0, 7.0, 7.0]
    assert run.load_model(5)["w"].dtype == np.float32
    plain = safetensors.numpy.load_file(run.path / "models" / "round-00005.safetensors")
    assert {name: array.tolist() for name, array in plain.items()} == {"w": [5.0, 5.0, 5.0]}


def test_a_model_that_is_not_there_is_refused_with_those_that_are() -> None:
    with begin() as run:
        with pytest.raises(StateError, match="kept of round none"):
            run.load_model()
        run.save_model(3, {"w": np.zeros(1)})
        with pytest.raises(StateError, match="no model for 2; models are kept of round 3"):
            run.load_model(2)
        with pytest.raises(StateError, match="of these 0 have a score"):
            run.load_model("best")
        with pytest.raises(ConfigError, match="keep = 0"):
            run.save_model(4, {}, keep=0)


def test_a_model_saved_again_replaces_its_score() -> None:
    with begin() as run:
        run.save_model(1, {"w": np.zeros(1)}, score=0.9)
        run.save_model(2, {"w": np.zeros(1)}, score=0.5)
        run.save_model(1, {"w": np.ones(1)}, score=0.1)
        assert run.models.scores() == {1: 0.1, 2: 0.5}


def test_the_last_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    with begin() as run:
        assert run.latest_checkpoint() is None
        for at in range(1, 5):
            run.save_checkpoint(at, {"next": at})
    folder = run.path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["round-00003.safetensors", "round-00004.safetensors"]
    newest = folder / "round-00004.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        found = run.latest_checkpoint()
    assert found == (folder / "round-00003.safetensors", {"next": 3})
    assert "passed over" in caplog.text
    (folder / "round-00003.safetensors").write_bytes(b"")
    with pytest.raises(ResumeError, match="every checkpoint is damaged"):
        run.latest_checkpoint()


def test_a_resumed_run_tells_the_whole_story_once() -> None:
    with begin() as first:
        for at in (1, 2, 3):
            first.record("central", at, {"accuracy": at / 10}, wall_s=100.0 * at)
            first.save_model(at, {"w": np.full(1, at)}, score=-at)
            if at < 3:
                first.save_checkpoint(at + 1, {"w": np.full(1, at)})
    with begin() as second:
        assert second.continue_from(RunFolder.open(first.path)) == 3
        second.record("central", 3, {"accuracy": 0.3})
    again = RunFolder.open(second.path)
    assert [(row.round, row.values["accuracy"]) for row in again.rows("central")] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    moments = [row.wall_s for row in again.rows("central") if row.wall_s is not None]
    assert moments[:2] == [100.0, 200.0]
    assert 200.0 <= moments[2] < 260.0
    assert again.info["resumed_from"] == first.path.name
    assert again.rows("event")[0].values == {"text": f"resumed from {first.path.name} at round 3"}
    assert again.models.scores() == {1: -1.0, 2: -2.0}
    found = again.latest_checkpoint()
    assert found is not None
    assert (found[0].name, found[1]["w"].tolist()) == ("round-00003.safetensors", [2])


def test_a_run_without_a_checkpoint_is_not_resumed() -> None:
    begin().close()
    with begin() as second, pytest.raises(ResumeError, match="holds no checkpoint"):
        second.continue_from(RunFolder.open("demo"))


def test_what_a_killed_writer_left_half_is_swept_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / ".config.json.0a1b2c3d.part").write_text("{")
    with begin(path=tmp_path / "x"):
        pass
    assert not list((tmp_path / "x").glob("*.part"))
    assert not list((tmp_path / "x").glob(".*"))


def test_the_latest_of_many_runs_of_one_second_is_the_last_one(tmp_path: Path) -> None:
    for number in range(1, 13):
        folder = tmp_path / ("20261121-000000-z" + (f"-{number}" if number > 1 else ""))
        with RunFolder.create("z", config={}, seed=number, path=folder):
            pass
    assert RunFolder.open("latest", root=tmp_path).path.name == "20261121-000000-z-12"
    assert [run.info["seed"] for run in RunFolder.all(tmp_path)] == list(range(1, 13))
