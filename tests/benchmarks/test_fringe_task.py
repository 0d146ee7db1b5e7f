"""The clutter task of the fringe benchmark: its links, its base model and what is measured without training."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.fringe_base import CACHE_VARIABLE, Recipe, base_model, cache_folder, network, on_machines, train_base
from benchmarks.fringe_naive import CUT_FORMS, JPEG_WAYS, jpeg, main, naive_figures
from benchmarks.fringe_task import best_reduction, data_digest, link_seconds, plain_bytes, plain_wires
from flower_edge.data.clutter import ClutterParts, clutter
from flower_edge.fringe.wire_forms import WireForm
from flower_edge.models.registry import get_arrays

SHORT = Recipe(epochs=1, batch=32)


@cache
def few() -> ClutterParts:
    return clutter(0, pictures=(64, 20, 40))


def quiet(_: str) -> None:
    """Nobody is told."""


@cache
def trained() -> torch.nn.Sequential:
    return train_base(few(), SHORT, told=quiet)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(np.array_equal(array, get_arrays(other)[name]) for name, array in get_arrays(one).items())


# -- the task --------------------------------------------------------------------------------------------------------


def test_the_network_and_its_links_are_those_the_figures_are_held_against() -> None:
    assert sum(parameter.numel() for parameter in network().parameters()) == 174_970
    assert plain_bytes() == (65_560, 32_792)
    assert 1e3 * link_seconds(plain_bytes()) == pytest.approx(62.45 + 18.12, abs=0.01)
    assert link_seconds([0, 0]) == pytest.approx(0.015)
    assert best_reduction() == pytest.approx(0.814, abs=5e-4)


def test_the_library_distributes_the_network_where_the_task_cuts_it() -> None:
    pipeline = on_machines(trained())
    assert tuple(connection.size_bytes for connection in pipeline.connections) == plain_bytes()
    x = torch.from_numpy(few().test.x)
    with torch.no_grad():
        assert torch.equal(pipeline.run(x), trained()(x))


def test_another_picture_or_label_gives_another_digest_of_the_data() -> None:
    first = data_digest(few())
    assert data_digest(clutter(0, pictures=(64, 20, 40))) == first
    other = clutter(0, pictures=(64, 20, 40))
    other.test.y[0] = (other.test.y[0] + 1) % 10
    assert data_digest(other) != first


# -- the base model --------------------------------------------------------------------------------------------------


def test_the_same_seed_trains_the_same_model_and_another_another() -> None:
    again, other = train_base(few(), SHORT, told=quiet), train_base(few(), SHORT, seed=1, told=quiet)
    assert same(trained(), again)
    assert not same(trained(), other)
    assert not trained().training


def test_training_learns() -> None:
    said: list[str] = []
    train_base(few(), Recipe(epochs=5, batch=8, lr=0.03, shift=0), told=said.append)
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in said]
    assert len(losses) == 5
    assert losses[-1] < 0.8 * losses[0]


def test_a_kept_model_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    first = base_model(0, tmp_path, SHORT, few())
    again = base_model(0, tmp_path, SHORT, few())
    assert (first.cached, again.cached) == (False, True)
    assert again[1:4] == first[1:4]
    assert same(first.model, again.model)
    x = torch.from_numpy(few().test.x)
    with torch.no_grad():
        assert torch.equal(first.model(x), again.model(x))


def test_another_recipe_seed_or_data_train_anew(tmp_path: Path) -> None:
    none = Recipe(epochs=0)
    digests = {
        base_model(0, tmp_path, none, few()).digest,
        base_model(0, tmp_path, Recipe(epochs=0, lr=0.2), few()).digest,
        base_model(1, tmp_path, none, few()).digest,
        base_model(0, tmp_path, none, clutter(1, pictures=(64, 20, 40))).digest,
    }
    assert len(digests) == len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["cut off", "of something else"])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = base_model(0, tmp_path, Recipe(epochs=0), few())
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] if damage == "cut off" else b"something else")
    again = base_model(0, tmp_path, Recipe(epochs=0), few())
    assert not again.cached
    assert same(first.model, again.model)
    assert "training anew" in capsys.readouterr().err
    assert path.read_bytes() == whole


def test_models_are_kept_where_one_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "set"))
    assert cache_folder() == tmp_path / "set"
    assert cache_folder(tmp_path) == tmp_path
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_folder() == Path.home() / ".cache" / "flower-edge"


# -- what is measured without training -------------------------------------------------------------------------------


def test_bytes_of_naive_rows_are_those_of_whole_frames() -> None:
    rows = {row.name: row for row in naive_figures(trained(), few().test, jpeg_qualities=(90,), told=quiet)}
    assert list(rows)[: len(CUT_FORMS)] == list(CUT_FORMS)
    sent = {name: row.sent_bytes for name, row in rows.items()}
    assert sent["float32"] == (65_560, 32_792)
    assert sent["fp16"] == (32_792, 16_408)
    assert sent["int8"] == (16_472, 8_344)
    assert sent["int4"] == (8_280, 4_248)
    assert sent["int2"] == (4_184, 2_200)
    assert sent["input int4"] == (24 + 4 + 512,)
    # Sizes are told before; these are the bytes that `encode` makes.
    (tensor,) = on_machines(trained()).crossing(torch.from_numpy(few().test.x[:1]))[0]
    for name, form in CUT_FORMS.items():
        assert len(plain_wires()[0].formed(form).encode([tensor.numpy()])) == sent[name][0]


def test_reductions_are_shares_of_what_float32_takes() -> None:
    forms = {"float32": WireForm(), "int8": WireForm(bits=8)}
    plain, int8 = naive_figures(trained(), few().test, cut_forms=forms, input_forms={}, jpeg_qualities=(), told=quiet)
    assert (plain.bandwidth_reduction, plain.latency_reduction, plain.points) == (0.0, 0.0, 0.0)
    assert int8.bandwidth_reduction == pytest.approx(0.748, abs=5e-4)
    assert int8.latency_reduction == pytest.approx(0.609, abs=5e-4)


def test_accuracy_is_that_of_tensors_that_went_through_bytes() -> None:
    """The rows' short way and the frames' long way tell the same pictures right, at both cuts."""
    forms = {"top 10 %, 2 bits": WireForm(bits=2, fraction=0.1)}
    (row,) = naive_figures(trained(), few().test, cut_forms=forms, input_forms={}, jpeg_qualities=(), told=quiet)
    right = 0
    wires = [wire.formed(forms["top 10 %, 2 bits"]) for wire in plain_wires()]
    first, second, third = (part.module for part in on_machines(trained()).parts)
    with torch.no_grad():
        for x, y in zip(few().test.x, few().test.y, strict=True):
            here = torch.from_numpy(x[None])
            for part, wire in zip((first, second), wires, strict=True):
                (sent,) = part(here)
                (heard,) = wire.decode(wire.encode([sent.numpy()]))
                here = torch.from_numpy(heard)
            right += int(third(here)[0].argmax()) == y
    assert row.test_percent == pytest.approx(100 * right / len(few().test))


def test_a_jpeg_of_better_quality_is_larger_and_nearer() -> None:
    x = few().train.x[:20]
    found = [jpeg(x, quality, JPEG_WAYS[1]) for quality in (20, 50, 90)]
    errors = [float(np.abs(decoded - x).mean()) for decoded, _ in found]
    sizes = [float(each.mean()) for _, each in found]
    assert errors[0] > errors[1] > errors[2] > 0
    assert sizes[0] < sizes[1] < sizes[2]
    usual = [jpeg(x, quality, JPEG_WAYS[0]) for quality in (20, 50, 90)]
    assert all((mine < theirs).all() for (_, mine), (_, theirs) in zip(found, usual, strict=True))
    assert np.abs(usual[2][0] - x).mean() > errors[2]  # it cuts the noise off
    assert found[0][0].shape == x.shape
    assert found[0][0].dtype == np.float32


def test_light_outside_the_range_of_a_jpeg_goes_to_its_end() -> None:
    # Light 0.5 everywhere, then -1 and 3: dark as 0, bright as 1.
    flat = np.array([0.5, -1.0, 3.0], np.float32).reshape(3, 1, 1, 1) * np.ones((1, 1, 32, 32), np.float32)
    decoded, _ = jpeg((flat - 0.2) / np.float32(0.3), 95, JPEG_WAYS[0])
    np.testing.assert_allclose(decoded[:, 0].mean(axis=(1, 2)) * 0.3 + 0.2, [0.5, 0.0, 1.0], atol=0.01)


def test_the_command_tells_bytes_times_and_accuracies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def little(seed: int) -> ClutterParts:
        asked.append(seed)
        return few()

    for module in ("fringe_base", "fringe_naive"):
        monkeypatch.setattr(f"benchmarks.{module}.parts", little)
    assert main(["--quick", "--json", "--epochs", "0", "--folder", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["W_bytes"] == [65_560, 32_792]
    assert 1e3 * told["T_s"] == pytest.approx(80.57, abs=0.01)
    assert not told["base_accepted"]  # it was not trained
    assert {row["place"] for row in told["rows"]} == {"cuts", "input"}
    assert set(asked) == {0}
