"""`flower-edge plan-split`: profile, table, plan, picture; and what it says of input that is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from flower_edge.cli.plan_split import register
from flower_edge.cli.plan_split_inputs import cloud_from, device_from, devices_from, shape_from
from flower_edge.cli.plan_split_table import telling_cuts
from flower_edge.errors import ConfigError, EdgeError, SplitError
from flower_edge.splitting.capacity import Capacity
from flower_edge.splitting.profile import CutProfile, ModelProfile, UnitProfile

UNITS = (
    UnitProfile("conv", 1e6, 1e6, parameters=100, state_bytes=400),
    UnitProfile("relu", 0.0, 0.0),
    UnitProfile("linear", 1e6, 2e6, parameters=100, state_bytes=400),
)
SHAPES = ((1000,), (4000,), (4000,), (10,))
PROFILE = ModelProfile(UNITS, tuple(CutProfile(at, (one,), (at > 0,), f"u{at}") for at, one in enumerate(SHAPES)))
SLOW, QUICK = ("--device", "slow=0.01:100:100:1"), ("--device", "quick=1:100:100:1")


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "small.json"
    path.write_text(PROFILE.to_json())
    return path


def call(*arguments: object) -> str:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    result = CliRunner().invoke(app, ["plan-split", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def planned(*arguments: object) -> dict[str, Any]:
    found = json.loads(call(*arguments, "--json"))
    assert isinstance(found, dict)
    return found


def test_it_shows_every_cut_that_differs_and_the_plan(profile: Path) -> None:
    text = call("--profile", profile, *SLOW, *QUICK)
    lines = text.splitlines()
    assert lines[0].startswith("small: 3 units")
    assert [line.split()[0] for line in lines[3:5]] == ["2", "3"]
    assert "whole model" in text
    assert any(line.startswith("slow") and "int8" in line for line in lines)
    assert lines[-1].startswith("worth splitting: a round takes")


def test_json_has_the_numbers_of_the_table(profile: Path) -> None:
    found = planned("--profile", profile, *SLOW, *QUICK, "--batch", 10, "--cloud", 10, "--codecs", "none")
    at_two = found["cuts"][0]
    assert (at_two["cut"], at_two["after"], at_two["values"]) == (2, "u2", 4000)
    assert at_two["devices"]["slow"]["compute_s"] == pytest.approx(10 * 2e6 / 1e7)
    assert at_two["devices"]["slow"]["cloud_s"] == pytest.approx(10 * 3e6 / 1e10 * 2)
    assert found["plan"]["slow"]["cut"] == 2
    assert found["plan"]["quick"]["cut"] == 3
    assert found["plan"]["quick"]["up_bps"] is None
    assert found["worth"] is True
    assert found["whole_round_s"] > found["round_s"]


def test_where_it_does_not_pay_it_says_so(profile: Path) -> None:
    found = planned("--profile", profile, "--device", "quick=100:1")
    assert found["worth"] is False
    assert found["plan"]["quick"]["cut"] == 3
    assert "not worth splitting" in call("--profile", profile, "--device", "quick=100:1")


def test_budgets_bind(profile: Path) -> None:
    budgets = ("--train-ms", 1, "--transfer-ms", 1000)
    found = planned("--profile", profile, *QUICK, "--batch", 10, *budgets, "--cloud", 1e6)
    assert (found["train_s"], found["transfer_s"]) == (0.001, 1.0)
    assert found["plan"]["quick"]["compute_s"] >= 0.001


def test_devices_of_a_file_and_typed_ones_are_planned_together(profile: Path, tmp_path: Path) -> None:
    rows = [{"name": "camera", "gflops": 0.1, "up_mbps": 20, "down_mbps": 50, "delay_ms": 5, "memory_mb": 64}]
    as_json, as_toml = tmp_path / "devices.json", tmp_path / "devices.toml"
    as_json.write_text(json.dumps({"devices": rows}))
    as_toml.write_text("[[devices]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in rows[0].items()))
    assert devices_from(as_json) == devices_from(as_toml) == {"camera": Capacity(1e8, 2e7, 5e7, 0.005, 64_000_000)}
    assert list(planned("--profile", profile, "--devices", as_toml, *QUICK)["plan"]) == ["camera", "quick"]


def test_labels_on_the_device_make_more_trips(profile: Path) -> None:
    plain = planned("--profile", profile, *SLOW)["cuts"][0]["devices"]["slow"]
    shaped = planned("--profile", profile, *SLOW, "--labels", "device")["cuts"][0]["devices"]["slow"]
    assert shaped["transfer_s"] > plain["transfer_s"] + 0.0019


def test_a_picture_is_drawn_of_each_device(profile: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "cuts.svg"
    out = call("--profile", profile, *SLOW, *QUICK, "--device", "third=0.1", "--plot", path)
    assert out.splitlines()[-1] == f"drawn: {path}"
    assert path.read_text().startswith("<?xml")
    first = path.read_bytes()
    call("--profile", profile, *SLOW, *QUICK, "--device", "third=0.1", "--plot", path)
    assert len(path.read_bytes()) == len(first)


def test_devices_are_told_by_name(profile: Path) -> None:
    tight = planned("--profile", profile, *QUICK, "--device", "tiny=1:100:100:0:1")
    assert "does not fit on device tiny" in tight["why"]
    with pytest.raises(SplitError, match=r"device tiny has 0\.1 MB for training"):
        call("--profile", profile, *QUICK, "--device", "tiny=1:100:100:0:0.1")


def test_neighbours_that_cost_the_same_are_shown_once() -> None:
    assert telling_cuts(PROFILE, 0) == [0, 2, 3]
    assert telling_cuts(PROFILE, 1) == [2, 3]
    assert telling_cuts(PROFILE, 1, tail=1) == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no device to plan for; give --device"),
        (("--device", "camera"), r"--device 'camera': expected name=GFLOPS"),
        (("--device", "camera=fast"), "--device 'camera=fast': expected name=GFLOPS"),
        (("--device", "camera=:20"), "no gflops"),
        (("--device", "camera=0:20"), r"flops_per_s = 0\.0; expected a rate above 0"),
        (("--device", "a=1", "--device", "a=2"), "--device a: is there twice"),
        ((*QUICK, "--train-ms", "5"), "budgets come in two"),
        ((*QUICK, "--labels", "both"), "--labels 'both': expected 'cloud' or 'device'"),
        ((*QUICK, "--cloud", "big"), "--cloud 'big': expected GFLOPS"),
        ((*QUICK, "--codecs", "int5"), "int5"),
        ((*QUICK, "--timed", "3"), "--timed measures a model"),
        ((*QUICK, "--leakage", "digits"), "--leakage runs a model"),
        ((*QUICK, "--model", "resnet"), "give --model NAME or --profile FILE, one of them"),
        ((*QUICK, "--devices", "none.toml"), "--devices none.toml: "),
    ],
)
def test_input_that_is_none_is_refused_by_name(profile: Path, arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(EdgeError, match=says):
        call("--profile", profile, *arguments)


def test_files_that_are_no_devices_or_profiles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, says in (
        ("{}", "a list 'devices'"),
        ('{"devices": [{"gflops": 1, "speed": 2}]}', "no device has 'speed'"),
        ('{"devices": [{"gflops": "1"}]}', "expected numbers"),
        ('{"devices": [{"gflops": 1, "name": "a"}, {"gflops": 1, "name": "a"}]}', "'a' in .* is there twice"),
        ("[", "expected a .toml or .json file"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=says):
            devices_from(path)
    with pytest.raises(SplitError, match="not a model's profile"):
        call("--profile", path, *QUICK)
    with pytest.raises(ConfigError, match="write one with --save-profile"):
        call("--profile", tmp_path / "missing.json", *QUICK)
    with pytest.raises(ConfigError, match="--input-shape '1x'"):
        shape_from("1x")
    with pytest.raises(ConfigError, match="--cloud '1:2:3:4'"):
        cloud_from("1:2:3:4")
    assert device_from("a=1:2:3:4:5")[1] == Capacity(1e9, 2e6, 3e6, 0.004, 5_000_000)


def test_a_model_is_built_measured_and_its_profile_is_the_same_again(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    saved = tmp_path / "mlp.json"
    model = ("--model", "mlp", "--input-shape", "1x8x8", *SLOW)
    built = planned(*model, "--save-profile", saved, "--leakage", "digits", "--timed", "1")
    again = planned("--profile", saved, *SLOW)
    assert again["plan"] == built["plan"]
    assert again["digest"] == built["digest"] != ""
    assert all(0.0 <= one["leakage"] <= 1.0 for one in built["cuts"])
    assert "leakage" in call(*model, "--leakage", "digits").splitlines()[2]
    with pytest.raises(ConfigError, match="has samples of 1x8x8, the model takes 3x8x8"):
        call("--model", "mlp", "--input-shape", "3x8x8", *SLOW, "--leakage", "digits")
