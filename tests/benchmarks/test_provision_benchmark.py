"""The provision benchmark measures what it says: sizes are dealt as told, times add up, figures are what they mean."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from benchmarks import provision
from benchmarks.hierarchy_data import data_folder
from benchmarks.provision import FIGURES, PARTS
from benchmarks.provision_task import (
    RATES,
    STATISTICS,
    TERMINALS,
    TEST,
    Pictures,
    Recipe,
    accuracy_of,
    deal,
    first_model,
    models,
    terminal_app,
)
from benchmarks.provision_time import (
    FLOPS_PER_S,
    LINK,
    SPEEDS,
    TimeJob,
    TimeRun,
    assigned_sizes,
    run_time,
    time_figures,
)
from benchmarks.provision_width import LAST, WidthJob, WidthRun, run_width, size_of, width_figures, width_jobs
from flower_edge.errors import DataError
from flower_edge.runtime import LocalGrid
from flower_edge.submodels.classes import CLASSES_RECORD
from flower_edge.wire import arrays_of


def has_data() -> bool:
    try:
        data_folder()
    except DataError:
        return False
    return True


needs_data = pytest.mark.skipif(not has_data(), reason="MNIST's test files are not here")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before, threads = logging.root.manager.disable, torch.get_num_threads()
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(before)
    torch.set_num_threads(threads)


def _pictures(samples: int = 4, classes: int = 10) -> Pictures:
    """One bright bar per class, in noise: easy; the terminals have `classes` classes each."""

    def some(seed: int, known: list[int], count: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.resize(np.array(known, np.int64), count)
        x = np.random.default_rng(seed).normal(size=(count, 1, 28, 28)).astype(np.float32) * 0.1
        for one, label in zip(x, y, strict=True):
            one[0, 2 * label + 2 : 2 * label + 5] += 1.0
        return x, y

    terminals = tuple(some(n, [(n + k) % 10 for k in range(classes)], samples) for n in range(TERMINALS))
    return Pictures(terminals, some(99, list(range(10)), 50))


# -- what is printed


@pytest.mark.parametrize("arguments", [["--quik"], ["--only", "everything"], ["--only"], ["width"]])
def test_a_mistake_in_the_command_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        provision.main(arguments)
    assert left.value.code == 2
    assert "usage: python -m benchmarks.provision" in capsys.readouterr().err


def test_the_figures_and_their_targets_are_those_promised() -> None:
    assert {figure.key: figure.target for figure in FIGURES} == {
        "iid_gap_points": "at most 1",
        "noniid_gap_points": "at most 2.5",
        "mean_param_fraction": "at most 0.3",
        "assigned_time_ratio": "at most 0.5",
        "assigned_over_best_single_ratio": "",
        "hyper_gain_points": "at least 0",
        "sharing_gain_points": "at least 7",
    }
    assert {figure.part for figure in FIGURES} == set(PARTS)


def test_without_the_pictures_it_exits_with_1_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> Path:
        raise DataError("no MNIST here")

    monkeypatch.setattr(provision, "data_folder", missing)
    assert provision.main(["--only", "width"]) == 1
    assert "no MNIST here" in capsys.readouterr().err


# -- the task


@needs_data
@pytest.mark.parametrize(("split", "classes"), [("iid", 10), ("two-class", 2)])
def test_terminals_and_test_have_no_picture_in_common_and_the_classes_of_the_split(split: str, classes: int) -> None:
    pictures = deal(split, seed=3)
    parts = [pictures.test[0], *(x for x, _ in pictures.terminals)]
    assert [len(parts[0]), sum(map(len, parts[1:]))] == [TEST, 8000]
    # A handful of MNIST's pictures might be equal to the bit; dealt twice they would be hundreds.
    assert len({one.tobytes() for part in parts for one in part}) >= 9_990
    assert {len(set(y.tolist())) for _, y in pictures.terminals} == {classes}


def test_the_model_list_is_heterofls_five_rates_of_a_cnn_of_16_32_and_64_channels() -> None:
    assert [variant.rate for variant in models()] == list(RATES.values())
    # Convolution with bias, BatchNorm; three times; the linear layer.
    whole = (9 * 16 + 16 + 32) + (9 * 16 * 32 + 32 + 64) + (9 * 32 * 64 + 64 + 128) + (9 * 640 + 10)
    assert models()["a"].parameters == whole
    assert models()["e"].parameters == (9 + 1 + 2) + (9 * 2 + 2 + 4) + (9 * 2 * 4 + 4 + 8) + (9 * 40 + 10)


def _trained(recipe: Recipe, classes: int) -> tuple[dict[str, np.ndarray], Message]:
    with LocalGrid(terminal_app(_pictures(classes=classes), recipe, seed=0, rounds=1), 1) as grid:
        (reply,) = _asked(grid)
    return arrays_of(reply.content.array_records["arrays"]), reply


def _asked(grid: Grid) -> list[Message]:
    content = RecordDict({"arrays": first_model(0), "config": ConfigRecord({"server-round": 1})})
    return list(grid.send_and_receive([Message(content, node, "train") for node in grid.get_node_ids()]))


def test_a_masked_loss_moves_the_scores_of_the_terminals_own_classes_only() -> None:
    before = arrays_of(first_model(0))["linear.weight"]
    masked, whole = (_trained(Recipe(others=others), classes=2)[0]["linear.weight"] for others in (0.0, 1.0))
    assert [bool(row) for row in (masked != before).any(axis=1)] == [True, True] + 8 * [False]
    assert (whole != before).any(axis=1).all()


def test_terminals_tell_their_classes_only_where_rows_are_merged_by_them() -> None:
    _, told = _trained(Recipe(by_class=True), classes=2)
    assert told.content.config_records[CLASSES_RECORD] == {"classes": [0, 1]}
    assert CLASSES_RECORD not in _trained(Recipe(), classes=2)[1].content


def test_a_reply_tells_the_flops_of_its_own_size_and_epochs() -> None:
    _, reply = _trained(Recipe(epochs=2), classes=10)
    told = next(iter(reply.content.metric_records.values()))
    assert told["flops"] == pytest.approx(2 * 4 * models()["a"].train_flops)


def test_statistics_are_of_the_first_pictures_only_and_testing_draws_nothing() -> None:
    assert STATISTICS == 100
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    pictures = _pictures()
    assert accuracy_of(first_model(0), pictures) == accuracy_of(first_model(0), pictures)
    assert torch.equal(state, torch.random.get_rng_state())


# -- width


def test_each_size_has_as_many_terminals_in_every_round_and_dealt_ones_change() -> None:
    dealt, fixed = (WidthJob("iid", "abcde", 0, how) for how in ("dealt", "fixed"))  # type: ignore[arg-type]
    by_round = [[size_of(dealt, place, round) for place in range(TERMINALS)] for round in (1, 2, 3)]
    assert all(Counter(sizes) == dict.fromkeys("abcde", 4) for sizes in by_round)
    assert by_round[0] != by_round[1] != by_round[2]
    assert [size_of(fixed, place, 1) for place in range(6)] == [size_of(fixed, place, 9) for place in range(6)]
    assert size_of(fixed, 5, 1) == "a"


def test_a_run_learns_repeats_with_its_seed_and_tells_what_was_trained() -> None:
    job = WidthJob("iid", "abcde", seed=0, rounds=1)
    first, again = (run_width(job, _pictures(classes=1)) for _ in range(2))
    assert first == again
    # Tested before the first round, too, where there are no more than the last that count.
    assert len(first.accuracies) == 2 < LAST
    assert first.accuracy == pytest.approx(np.mean(first.accuracies))
    assert len(set(first.accuracies)) > 1
    assert first.fraction == pytest.approx((29290 + 8890 + 3010 + 1150 + 490) / 5 / 29290)


def test_the_gap_is_the_mean_over_seeds_of_the_whole_model_less_the_mix() -> None:
    runs = {}
    for job in width_jobs(range(2), quick=False):
        accuracy = {"a": 97.0, "abcde": 96.0, "ae": 95.0, "e": 50.0}[job.sizes] + job.seed
        accuracy -= 3.0 * (job.split == "two-class" and job.sizes == "abcde") * (1 + job.seed)
        runs[job] = WidthRun(accuracy, (accuracy,), 0.27 if job.sizes == "abcde" else 1.0)
    found = width_figures(runs)
    assert found["iid_gap_points"] == pytest.approx(1.0)
    assert found["noniid_gap_points"] == pytest.approx(1.0 + 4.5)
    assert found["noniid_gap_points_se"] == pytest.approx(1.5)
    assert found["mean_param_fraction"] == 0.27
    assert {(row["sizes"], row["how"]) for row in found["width"]} == {(job.sizes, job.how) for job in runs}


def test_the_short_form_has_the_whole_model_and_the_mix_of_five_on_both_splits() -> None:
    jobs = width_jobs([0], quick=True)
    assert {(job.split, job.sizes) for job in jobs} == {(s, m) for s in ("iid", "two-class") for m in ("a", "abcde")}
    assert {job.rounds for job in jobs} == {40}


# -- time


def test_the_assigned_sizes_take_no_class_longer_than_the_first_one_for_the_whole_model() -> None:
    def round_s(size: str, speed: float) -> float:
        one = models()[size]
        travel_s = 8 * one.state_bytes * (1 / LINK.up_bps + 1 / LINK.down_bps)
        return 400 * one.train_flops / (FLOPS_PER_S * speed) + travel_s

    given = assigned_sizes()
    most_s = round_s("a", 1.0)
    for size, speed in zip(given, SPEEDS, strict=True):
        assert round_s(size, speed) <= most_s
        assert size == "a" or round_s(chr(ord(size) - 1), speed) > most_s


def test_a_round_lasts_as_long_as_its_slowest_terminal_and_ends_at_the_target() -> None:
    pictures = _pictures()
    run = run_time(TimeJob("ccccc", seed=0, most_rounds=1, target=101.0), pictures)
    one = models()["c"]
    slowest_s = 4 * one.train_flops / (FLOPS_PER_S * min(SPEEDS))
    ways_s = 8 * one.state_bytes * (1 / LINK.up_bps + 1 / LINK.down_bps) + 2 * LINK.latency_s
    assert (run.reached, run.rounds, len(run.accuracies)) == (False, 1, 2)
    # Messages are more than their arrays: records have names and headers.
    assert slowest_s + ways_s < run.time_s < 1.2 * (slowest_s + ways_s) + 0.02
    # It is asked after each round whether it goes on.
    assert run_time(TimeJob("ccccc", seed=0, most_rounds=3, target=0.0), pictures).rounds == 1


def test_the_best_single_size_is_the_soonest_that_reaches_the_target_on_every_seed() -> None:
    def runs(of: dict[str, tuple[float, bool]]) -> dict[TimeJob, TimeRun]:
        return {
            TimeJob(sizes, seed): TimeRun(time_s + seed, reached or not seed, 10, (90.0, 95.0))
            for sizes, (time_s, reached) in of.items()
            for seed in (0, 1)
        }

    singles = {"aaaaa": (99.5, True), "bbbbb": (24.5, True), "ccccc": (19.5, True), "ddddd": (4.5, False)}
    found = time_figures(runs({**singles, assigned_sizes(): (9.5, True)}))
    assert found["time"]["best_single"] == "ccccc"
    assert found["assigned_time_ratio"] == pytest.approx(0.1)
    assert found["assigned_over_best_single_ratio"] == pytest.approx(0.5)
    missed = time_figures(runs({**singles, assigned_sizes(): (9.5, False)}))
    assert "assigned_time_ratio" not in missed
    assert missed["time"]["sizes"][assigned_sizes()]["not_reached"] == 1


# -- the command


@pytest.mark.slow
def test_hyper_runs_through_the_command_and_gains(capsys: pytest.CaptureFixture[str]) -> None:
    assert provision.main(["--quick", "--json", "--only", "hyper", "--seeds", "1"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["hyper_gain_points"] > 0
    assert found["targets"]["assigned_time_ratio"] == 0.5
    assert found["parts"] == ["hyper"]
