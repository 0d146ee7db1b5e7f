"""`flower-edge codecs`: which there are, what they do to arrays of any origin, and which to take for a link."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from flower_edge.cli.codec_subjects import Subject, drawn, subject
from flower_edge.cli.codec_trials import Pace, Trial, breaks_even_bps, measure, round_s, soonest
from flower_edge.cli.codecs import advice, rate_bps
from flower_edge.cli.main import app
from flower_edge.codecs.error_feedback import stc
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.kernels import available
from flower_edge.codecs.named import CODECS
from flower_edge.errors import CodecError, ConfigError, EdgeError, StateError
from flower_edge.store import RunFolder
from flower_edge.store.array_files import load_arrays


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["codecs", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def found(*arguments: str) -> Any:
    return json.loads(call(*arguments, "--json"))


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"w": rng.normal(size=(30, 40)).astype(np.float32), "n": np.array([3], np.int64)}


# -- the command -----------------------------------------------------------------------------------------------------


def test_it_says_what_every_named_codec_does_keeps_and_costs() -> None:
    text = call("list")
    assert all(name in text and named.says in text for name, named in CODECS.items())
    listed = {one["name"]: one for one in found("list")["codecs"]}
    assert list(listed) == list(CODECS)
    assert listed["identity"]["bits_per_param"] == pytest.approx(32)
    assert (listed["fp16"]["keeps"], listed["stc-1"]["keeps"]) == ([], ["errors"])
    assert "shared" in listed["shared-5"]["keeps"]
    assert listed["int8"]["unbiased"]
    assert not listed["sign"]["unbiased"]


def test_it_measures_a_file_with_every_way_of_computing(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", **arrays)
    told = found("measure", str(tmp_path / "model.npz"), "--codecs", "identity,fp16,stc-1", "--within", "0.01")
    assert told["subject"] == {"name": "model.npz, the numbers themselves", "params": 1200, "bytes": 4808}
    exact, half, sparse = told["codecs"]
    assert (exact["payload_bytes"], exact["error"], exact["pays_up_to_bps"]) == (4808, 0.0, 0.0)
    assert half["ratio"] == pytest.approx(4808 / half["payload_bytes"])
    assert 0 < half["error"] < 1e-6
    assert sparse["remembers"]
    assert set(half["paces"]) == ({"reference", "fast"} if available() else {"reference"})
    assert all(pace["encode_bytes_per_s"] > 0 for one in told["codecs"] for pace in one["paces"].values())
    lines = call("measure", str(tmp_path / "model.npz"), "--codecs", "fp16,stc-1", "--within", "0.01").splitlines()
    assert lines[0] == "model.npz, the numbers themselves: 1,200 numbers, 4.8 kB"
    assert lines[1].split()[:3] == ["codec", "bytes", "ratio"]
    assert [line.split()[0] for line in lines[2:-1]] == ["fp16", "stc-1"]


def test_a_config_as_json_is_measured_like_a_name(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", **arrays)
    config = json.dumps(Half("bf16").config())
    (told,) = found("measure", str(tmp_path / "model.npz"), "--codecs", config, "--within", "0")["codecs"]
    assert (told["name"], told["payload_bytes"]) == ("half", 8 + 2 * 1200)


def test_what_a_run_has_moved_in_its_last_two_rounds_is_a_real_update(
    arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as run:
        run.save_model(1, arrays)
        with pytest.raises(ConfigError, match="kept the models of 1 rounds; two are needed"):
            subject(str(run.path))
        run.save_model(4, {**arrays, "w": arrays["w"] + np.float32(0.5)})
    on = subject(str(run.path))
    assert on.name == f"what round 4 of {run.name} moved since round 1"
    np.testing.assert_allclose(on.arrays["w"], 0.5, rtol=1e-5)
    assert found("measure", "latest", "--root", str(tmp_path), "--codecs", "identity")["subject"]["params"] == 1200


def test_two_versions_in_files_are_an_update_and_versions_of_two_models_are_not(
    arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    for name, value in (("old", 1.0), ("new", 3.0)):
        save_file({"w": np.full((2, 2), value, np.float32)}, tmp_path / f"{name}.safetensors")
    on = subject(str(tmp_path / "new.safetensors"), str(tmp_path / "old.safetensors"))
    assert (on.name, on.arrays["w"].tolist()) == ("new.safetensors less old.safetensors", [[2.0, 2.0], [2.0, 2.0]])
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ConfigError, match="different models: they differ in n"):
        subject(str(tmp_path / "other.npz"), str(tmp_path / "old.safetensors"))


def test_a_model_by_name_gets_an_update_that_is_drawn_and_the_same_for_a_seed() -> None:
    one, again, other = subject("numpy-mlp"), subject("numpy-mlp"), subject("numpy-mlp", seed=1)
    name = next(iter(one.arrays))
    assert one.name == "numpy-mlp, a drawn update"
    np.testing.assert_array_equal(one.arrays[name], again.arrays[name])
    assert not np.array_equal(one.arrays[name], other.arrays[name])


@pytest.mark.parametrize(
    ("arguments", "kind", "why"),
    [
        (
            ("measure", "nothing"),
            ConfigError,
            "'nothing': expected a .safetensors or .npz file, a run's folder, a model",
        ),
        (("measure", "matrix:3"), ConfigError, "matrix:ROWSxCOLUMNS, as in matrix:1000x1000"),
        (("measure", "matrix:99999x99999"), ConfigError, "at most 2"),
        (("measure", "gone.safetensors"), StateError, "gone.safetensors: cannot be read"),
        (("measure", "numpy-mlp", "--codecs", "stc-2"), CodecError, "did you mean 'stc-"),
        (("recommend", "--link", "fast"), ConfigError, "'fast': expected a rate above 0, as in 500kbit/s"),
        (("recommend", "--link", "0Mbit/s"), ConfigError, "expected a rate above 0"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    arguments: tuple[str, ...], kind: type[EdgeError], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where there are no runs
    with pytest.raises(kind, match=why):
        call(*arguments)


# -- which to take ---------------------------------------------------------------------------------------------------


def trial(name: str, payload_bytes: int, error: float, busy_s: float, *, remembers: bool = False) -> Trial:
    pace = Pace(busy_s / 2, busy_s / 2)
    return Trial(name, payload_bytes, 1000 / payload_bytes, error, remembers, False, {"reference": pace})


ON = Subject("a kilobyte", {"w": np.zeros(250, np.float32)})
TRIALS = [
    trial("quick", 500, 0.0, 0.001),
    trial("small", 100, 0.2, 0.1),
    trial("smaller", 10, 0.9, 0.1, remembers=True),
]


def test_the_slower_the_link_the_smaller_the_messages_that_are_soonest() -> None:
    assert [soonest(TRIALS, bps, 0.5, memory=False)[0].name for bps in (1e6, 8e3)] == ["quick", "small"]
    assert round_s(TRIALS[0], 8e3) == pytest.approx(0.001 + 500 * 8 / 8e3)


def test_an_error_bound_holds_for_all_but_those_that_send_the_rest_later_where_that_is_allowed() -> None:
    assert [t.name for t in soonest(TRIALS, 8e3, 0.5, memory=False)] == ["small", "quick"]
    assert [t.name for t in soonest(TRIALS, 8e3, 0.5, memory=True)] == ["smaller", "small", "quick"]
    assert [t.name for t in soonest(TRIALS, 8e3, 0.0, memory=False)] == ["quick"]


def test_at_its_break_even_link_a_codec_is_as_soon_as_the_arrays_as_they_are() -> None:
    for one in TRIALS:
        bps = breaks_even_bps(one, ON)
        assert round_s(one, bps) == pytest.approx(8 * ON.bytes / bps)
    assert breaks_even_bps(trial("larger", 2000, 0.0, 0.1), ON) == 0.0


def test_it_recommends_what_is_soonest_here_and_says_where_nothing_pays() -> None:
    slow = found("recommend", "matrix:50x200", "--link", "100kbit/s", "--error", "0.01", "--codecs", "fp16,int8,stc-1")
    assert slow["recommended"] == "int8"
    assert slow["codecs"][0]["round_s"] < slow["plain_s"] / 3
    assert "stc-1" not in [one["name"] for one in slow["codecs"]]
    most = ["matrix:50x200", "--codecs", "fp16,int8,stc-1"]
    assert found("recommend", *most, "--link", "100kbit/s", "--memory")["recommended"] == "stc-1"
    assert call("recommend", *most, "--link", "100kbit/s").splitlines()[-1].startswith("take int8: ")
    fast = call("recommend", *most, "--link", "9999Gbit/s").splitlines()
    assert fast[-1].startswith("take none, compression does not pay on this link: the arrays as they are take ")
    assert "; it pays up to " in fast[-1]
    none = call("recommend", "matrix:50x200", "--link", "1Mbit/s", "--error", "0.1", "--codecs", "stc-1").splitlines()
    assert none[-1].startswith("take none: no codec leaves out 0.1 or less (stc-1 is nearest, with 0.")
    assert none[-1].endswith("); allow a larger --error, or --memory")
    worse = call("recommend", "matrix:1x1", "--link", "1bit/s", "--codecs", "stc-1").splitlines()
    assert worse[-1].startswith("take none, compression does not pay on this link: the arrays as they are take 32.0 s")


def test_what_is_gained_within_the_noise_of_a_measurement_is_no_advice() -> None:
    at = Subject("x", {"w": np.zeros(1000, np.float32)})
    trial = Trial("small", 3900, 4000 / 3900, 0.1, paces={"reference": Pace(0.0, 0.0)})
    said = advice(trial, [trial], [trial], at, 1e6, 0.6)
    assert said == "compression hardly pays on this link: small is 1.03 times as soon as the arrays as they are"


def test_a_codec_that_lives_on_what_is_published_is_said_to_be_measured_without() -> None:
    assert "shared-5 lives on what a server publishes" in call("measure", "matrix:20x20", "--codecs", "shared-5,fp16")
    assert "lives on" not in call("measure", "matrix:20x20", "--codecs", "fp16")


def test_rates_are_read_with_their_prefixes() -> None:
    assert [rate_bps(text) for text in ("1bit/s", "2kbit/s", "3.5Mbit/s", "4 Gbit/s")] == [1.0, 2e3, 3.5e6, 4e9]


# -- measuring -------------------------------------------------------------------------------------------------------


def test_a_codec_that_cannot_carry_the_arrays_is_named_and_the_others_are_measured(
    tmp_path: Path,
) -> None:
    np.savez(tmp_path / "bad.npz", w=np.array([1.0, np.nan], np.float32))
    told = found("measure", str(tmp_path / "bad.npz"), "--codecs", "identity,int8", "--within", "0")["codecs"]
    assert "trouble" not in told[0]
    assert "'w' holds nan" in told[1]["trouble"]
    text = call("measure", str(tmp_path / "bad.npz"), "--codecs", "identity,int8", "--within", "0")
    assert text.splitlines()[-1].startswith("int8 was not measured: 'w' holds nan")


def test_an_error_is_what_is_left_of_what_was_to_be_told() -> None:
    on = drawn("it", {"w": np.zeros(1000, np.float32), "n": np.array(3)}, 0)
    assert measure("identity", Identity(), on, within_s=0.0).error == 0.0
    told = measure("stc", stc(0.1), on, within_s=0.0)
    assert told.remembers
    assert 0.3 < told.error < 1.0
    still = Subject("zeros", {"w": np.zeros(10, np.float32)})
    assert np.isnan(measure("identity", Identity(), still, within_s=0.0).error)


# -- files of others -------------------------------------------------------------------------------------------------


def test_arrays_come_out_of_a_file_as_they_were_saved(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    given = {**arrays, "half": np.array([1.5], np.float16), "flag": np.array([True]), "none": np.zeros((0, 3))}
    save_file(given, tmp_path / "model.safetensors")
    np.savez(tmp_path / "model.npz", **given)
    for name in ("model.safetensors", "model.npz"):
        read = load_arrays(tmp_path / name)
        assert read.keys() == given.keys()
        for key, array in given.items():
            np.testing.assert_array_equal(read[key], array, strict=True)


def test_bfloat16_comes_as_the_float32_that_it_is(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f\x00\xc0")
    np.testing.assert_array_equal(load_arrays(tmp_path / "m.safetensors")["w"], np.array([1, -2], np.float32))


def test_whatever_was_turned_over_in_a_file_is_read_or_a_state_error(tmp_path: Path) -> None:
    save_file({"w": np.arange(40, dtype=np.float32)}, tmp_path / "m.safetensors")
    np.savez_compressed(tmp_path / "m.npz", w=np.arange(40, dtype=np.float32))
    rng, refused = np.random.default_rng(0), 0
    for path in (tmp_path / "m.safetensors", tmp_path / "m.npz"):
        whole = path.read_bytes()
        for _ in range(300):
            data = bytearray(whole)
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
            path.write_bytes(data)
            try:
                load_arrays(path)
            except StateError:
                refused += 1
    assert refused > 100


def test_a_file_that_is_damaged_pickled_or_of_another_kind_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_bytes(b"hello")
    (tmp_path / "text.npz").write_bytes(b"hello")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    np.savez(tmp_path / "objects.npz", w=np.array([{}], dtype=object))
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "odd.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    np.savez_compressed(tmp_path / "turned.npz", w=np.arange(500.0))
    turned = bytearray((tmp_path / "turned.npz").read_bytes())
    turned[60:120] = bytes(60)
    (tmp_path / "turned.npz").write_bytes(turned)
    names = ("text.safetensors", "text.npz", "cut.npz", "objects.npz", "odd.safetensors", "gone.npz", "single.npz")
    for name in (*names, "turned.npz"):
        with pytest.raises(StateError, match=name):
            load_arrays(tmp_path / name)
