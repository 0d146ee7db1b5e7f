"""The split benchmark measures what it says, on equal terms; the figures are no test's business."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the benchmark trains with torch")
pytest.importorskip("sklearn", reason="its data come with scikit-learn")

from benchmarks import split
from benchmarks.split import FIGURES, PARTS
from benchmarks.split_exactness import cut_jobs, difference, exactness_figures, run_cuts
from benchmarks.split_planning import plan_rounds, planners, reservation_figures, views
from benchmarks.split_regret import draw_world, run_regret
from benchmarks.split_task import FIXED_AFTER, SPEED_FLOPS_PER_S, cut_after, first_model, profile, speeds
from benchmarks.split_training import Learned, TrainingJob, training_figures


@pytest.mark.parametrize("arguments", [["--quik"], ["--only", "everything"], ["planning"]])
def test_a_mistake_in_the_command_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        split.main(arguments)
    assert left.value.code == 2
    assert "usage: python -m benchmarks.split" in capsys.readouterr().err


def test_the_targets_are_those_promised() -> None:
    assert {figure.key: figure.target for figure in FIGURES if figure.target} == {
        "exactness_max_diff": "at most 0",
        "device_spread_ratio": "at least 20",
        "cut_regret": "at most 1.05",
        "time_ratio_vs_fedavg": "at most 0.05",
        "quantised_gap_points": "at most 2",
        "reservation_violation_rate": "at most 0.01",
        "stream_over_message_speedup": "at least 1000",
    }
    assert {figure.part for figure in FIGURES} <= set(PARTS)


def test_every_cut_is_compared_with_labels_on_either_side() -> None:
    jobs, last = cut_jobs(), profile().last
    assert {job.cut for job in jobs if job.labels == "cloud"} == set(range(last + 1))
    assert {job.cut for job in jobs if job.labels == "device" and not job.tail} == set(range(last))
    assert {job.tail for job in jobs} == {0, 1, 3}


def test_a_difference_in_one_number_or_in_names_is_seen() -> None:
    arrays = first_model(0)
    changed = {name: array.copy() for name, array in arrays.items()}
    changed["linear.bias"][3] += 0.5
    assert difference(arrays, changed) == pytest.approx(0.5)
    assert difference(arrays, {}) == float("inf")
    jobs = cut_jobs()[:2]
    assert exactness_figures(dict(zip(jobs, [0.0, 0.0], strict=True)) | {cut_jobs()[-1]: 0.25}, [0.0])[
        "exactness_max_diff"
    ] == pytest.approx(0.25)


def test_a_divided_step_is_a_step_of_the_whole_model() -> None:
    jobs = {(job.cut, job.tail, job.labels): job for job in cut_jobs()}
    # The samples themselves, two live tensors inside a block, one after it, labels and tail on the device.
    some = [(0, 0, "cloud"), (6, 0, "cloud"), (cut_after(profile(), FIXED_AFTER), 0, "device"), (14, 3, "device")]
    assert run_cuts([jobs[key] for key in some]) == [0.0] * len(some)


def test_speeds_fluctuate_by_round_and_device_and_repeat() -> None:
    found = speeds(3, rounds=200) / SPEED_FLOPS_PER_S
    assert np.array_equal(speeds(3, 200), speeds(3, 200))
    assert 0.4 <= found.min() < 0.45
    assert 0.95 < found.max() <= 1.0


def test_all_planners_see_the_same_devices() -> None:
    names = planners(profile())
    plans = {name: plan_rounds(planner, profile(), seed=0, rounds=3) for name, planner in names.items()}
    whole_s = {name: [plan.whole_s for plan in of] for name, of in plans.items()}
    assert all(values == pytest.approx(whole_s["whole"]) for values in whole_s.values())
    assert set(plans["fixed"][0].assignments) == set(views(SPEED_FLOPS_PER_S))
    assert {one.cut for plan in plans["whole"] for one in plan.assignments.values()} == {profile().last}


def test_reservations_are_late_without_an_allowance_and_never_with_the_bound_known() -> None:
    told = reservation_figures(profile(), [0])["reservations"]
    assert told["bound known"] == 0.0
    assert told["no allowance"] == 1.0


def test_worlds_repeat_differ_and_have_a_best_choice() -> None:
    assert draw_world(5, profile()) == draw_world(5, profile()) != draw_world(6, profile())
    two = next(seed for seed in range(20) if len(draw_world(seed, profile()).devices) == 2)
    (ratio,) = run_regret([two])
    assert ratio > 1 - 1e-6


def test_a_gap_is_told_seed_by_seed_against_float32() -> None:
    runs = {
        TrainingJob("float32", 0): Learned((0.1, 0.9, 0.9, 0.9), 800),
        TrainingJob("float32", 1): Learned((0.1, 0.7, 0.7, 0.7), 800),
        TrainingJob("4/8", 0): Learned((0.1, 0.89, 0.89, 0.89), 200),
        TrainingJob("4/8", 1): Learned((0.1, 0.68, 0.68, 0.68), 200),
    }
    told = training_figures(runs)
    assert told["quantised_gap_points"] == pytest.approx(1.5)
    assert told["quantised_traffic_ratio"] == pytest.approx(4.0)
