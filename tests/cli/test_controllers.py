"""`flower-edge controllers`: every controller over seeds, resumable, as text, JSON, CSV and pictures."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from flower_edge.cli.controller_table import lines_of, table
from flower_edge.cli.controller_trials import Plan, Trial, read_trial, run_trial, trial_path, write_trial
from flower_edge.cli.controllers import seeds_of
from flower_edge.cli.gossip_learning import Learned, learn, seconds_to
from flower_edge.cli.main import app
from flower_edge.control.baselines import Equal, NoComm
from flower_edge.control.named import CONTROLLERS, make_controller
from flower_edge.control.simulate import simulate
from flower_edge.errors import ConfigError
from flower_edge.topology.set_ups import set_up


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["controllers", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def short(out: Path, *more: str) -> dict[str, Any]:
    arguments = ("--nodes", "5", "--rounds", "3", "--out", str(out), "--json")
    found = json.loads(call(*arguments, *more))
    assert isinstance(found, dict)
    return found


def trial(name: str, seed: int, *, f_s: float = 2.0, goal_s: float = 90.0, links: float = 6.0) -> Trial:
    """A trial of four rounds whose mean accuracy is 90 % at its second reading, at `goal_s`."""
    one = np.ones(4)
    virtual_s, accuracy = np.array([goal_s / 2, goal_s]), np.array([0.4, 0.95])
    learned = Learned(np.array([2.0, 4.0]), virtual_s, accuracy, accuracy - 0.1, accuracy)
    return Trial(name, seed, f_s * one, one, 3 * one, 2 * one, links * one, 0.5 * one, learned)


# --- the command ---


def test_it_says_which_controllers_and_set_ups_there_are() -> None:
    text = call("--list")
    assert all(name in text and named.says in text for name, named in CONTROLLERS.items())
    assert set(json.loads(call("--list", "--json"))["controllers"]) == set(CONTROLLERS)
    assert "nlos-shadowed" in text


def test_control_alone_is_compared_and_drawn_without_learning(tmp_path: Path) -> None:
    found = short(tmp_path / "out", "--controllers", "equal,dcent,optimum", "--seeds", "0-1", "--task", "none")
    lines = {line["controller"]: line for line in found["lines"]}
    assert list(lines) == ["equal", "dcent", "optimum"]
    assert lines["optimum"]["f_over_opt"] == pytest.approx(1.0)
    assert lines["dcent"]["f_over_opt"] < lines["equal"]["f_over_opt"]
    assert lines["equal"]["links"] == 20
    assert lines["equal"]["seeds"] == 2
    assert all(line["accuracy_mean"] is None for line in found["lines"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"controllers.csv", "controllers.json", "sweep.json", "fig-08-latency.png", "fig-09-regret.png"} <= names
    assert not any(name.startswith(("fig-10", "fig-11")) for name in names)
    with (tmp_path / "out" / "controllers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["controller"] for row in rows] == list(lines)
    assert float(rows[0]["regret_s"]) == lines["equal"]["regret_s"]


def test_trials_that_are_finished_are_not_run_again_and_others_are_added(tmp_path: Path) -> None:
    first = short(tmp_path, "--controllers", "equal", "--seeds", "3", "--task", "none", "--no-pictures")
    path = trial_path(tmp_path, "equal", 3)
    document = json.loads(path.read_text())
    document["f_s"] = [10 * value for value in document["f_s"]]
    path.write_text(json.dumps(document))
    more = short(tmp_path, "--controllers", "equal,nocomm", "--seeds", "3", "--task", "none", "--no-pictures")
    assert more["lines"][0]["f_over_opt"] == pytest.approx(10 * first["lines"][0]["f_over_opt"])
    assert [line["controller"] for line in more["lines"]] == ["equal", "nocomm"]


def test_a_folder_of_another_sweep_is_refused_by_what_differs(tmp_path: Path) -> None:
    short(tmp_path, "--controllers", "nocomm", "--seeds", "0", "--task", "none", "--no-pictures")
    with pytest.raises(ConfigError, match=r"set_up 'nlos' \(now 'macro'\); give another folder with --out"):
        short(tmp_path, "--controllers", "nocomm", "--set-up", "macro", "--task", "none")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--controllers", "dcant"), "unknown controller 'dcant'; did you mean 'dcent'"),
        (("--set-up", "moon"), "set-up 'moon': expected one of nlos, "),
        (("--task", "chess"), "task 'chess': expected one of digits, mnist"),
        (("--seeds", "7-0"), "'7-0' is no seed and no range"),
        (("--nodes", "1"), "nodes = 1: expected 2 or more"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_written(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError) as told:
        call("--out", str(tmp_path / "out"), *arguments)
    assert words in str(told.value)
    assert not (tmp_path / "out").exists()


def test_seeds_are_ranges_and_single_ones_each_once() -> None:
    assert seeds_of("3, 0-2,1") == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="type for example 0-7"):
        seeds_of("0..7")


# --- trials and lines ---


def test_a_trial_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = trial("equal", 4, links=math.nan)
    write_trial(tmp_path, written)
    read = read_trial(tmp_path, "equal", 4)
    assert read is not None
    assert read.learned is not None
    for name in ("f_s", "optimum_s", "true_s", "floor_s", "links", "sigma2"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    for name, values in vars(written.learned).items():
        np.testing.assert_array_equal(getattr(read.learned, name), values)
    assert read_trial(tmp_path, "equal", 5) is None


def test_a_speed_up_is_reckoned_seed_by_seed() -> None:
    trials = [
        *(trial("equal", seed, goal_s=goal_s) for seed, goal_s in ((0, 100.0), (1, 300.0))),
        *(trial("fast", seed, goal_s=goal_s) for seed, goal_s in ((1, 30.0), (0, 50.0))),
    ]
    equal, fast = lines_of(trials)
    assert equal["speedup"] == 1.0
    assert fast["speedup"] == pytest.approx((100 / 50 + 300 / 30) / 2)
    assert (fast["rounds_to_goal"], fast["virtual_s_to_goal"]) == (4.0, 40.0)
    assert (fast["accuracy_mean"], fast["accuracy_worst"]) == pytest.approx((0.95, 0.85))
    assert (fast["f_over_opt"], fast["regret_s"], fast["true_over_floor"]) == (2.0, 4.0, 1.5)


def test_a_time_that_one_seed_never_reaches_is_no_mean_over_the_others() -> None:
    never = trial("slow", 0)
    learned = never.learned
    assert learned is not None
    low = Learned(learned.rounds, learned.virtual_s, learned.mean - 0.1, learned.worst, learned.watched)
    slow = Trial(**{**vars(never), "learned": low})
    (line,) = lines_of([slow, trial("slow", 1)])
    assert line["virtual_s_to_goal"] is None
    assert line["speedup"] is None
    assert table([line]).splitlines()[1].split()[0] == "slow"
    assert "speed-up" not in table([line])


def test_only_a_controller_that_can_be_run_learns() -> None:
    plan = Plan(nodes=4, rounds=1)
    assert run_trial(plan, "optimum", 0).learned is None
    learned = run_trial(plan, "nocomm", 0).learned
    assert learned is not None
    np.testing.assert_array_equal(learned.rounds, [1.0])


# --- learning ---


def test_learning_takes_the_true_time_of_the_rounds_that_control_alone_has() -> None:
    world = set_up("nlos", seed=3, nodes=5)
    learned = learn(make_controller("dcent-pruned"), world, 4, seed=3)
    trace = simulate(make_controller("dcent-pruned"), set_up("nlos", seed=3, nodes=5), 4)
    np.testing.assert_array_equal(learned.rounds, [3.0, 4.0])
    np.testing.assert_allclose(learned.virtual_s, np.cumsum(trace.true_s)[[2, 3]], rtol=1e-9)


def test_talking_makes_accuracy_better_than_six_of_ten_labels_allow() -> None:
    world = set_up("nlos", seed=0, nodes=6)
    talking, silent = (learn(controller, world, 45, seed=0) for controller in (Equal(), NoComm()))
    assert silent.mean[-1] < 0.62 < 0.7 < talking.mean[-1]
    assert (talking.worst <= talking.mean).all()
    assert seconds_to(talking, 0.7)[1] > 0
    assert math.isnan(seconds_to(silent, 0.7)[1])


def test_the_same_seed_learns_the_same_and_another_something_else() -> None:
    world = set_up("nlos", seed=0, nodes=4)
    one, again, other = (learn(Equal(), world, 3, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.mean, again.mean)
    assert not np.array_equal(one.mean, other.mean)
