"""The fringe benchmark measures what it says: bytes are whole frames, nothing frozen moves unseen, JPEGs are fair."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
import torch

from benchmarks import fringe as command
from benchmarks.fringe import FIGURES, PARTS
from benchmarks.fringe_base import Base, network, on_machines
from benchmarks.fringe_distil import SHAPES, distilled
from benchmarks.fringe_jpeg import jpeg_rows
from benchmarks.fringe_proof import Watch, pipeline_bytes
from benchmarks.fringe_prune import HEALING, parameters, pruned, seeded
from benchmarks.fringe_task import plain_bytes
from flower_edge.data.clutter import ClutterParts, clutter
from flower_edge.fringe import DistilRecipe, Goals, Pipeline, Recipe, WireForm, fringe

FEW = {"regress_epochs": 1, "distil_epochs": 1, "regress_samples": 16, "batch": 16}


@cache
def few() -> ClutterParts:
    return clutter(0, pictures=(32, 20, 24))


@cache
def whole() -> Pipeline:
    """Not trained: what it says of a picture is nothing, but is said again."""
    return on_machines(network().eval())


# -- the watch -------------------------------------------------------------------------------------------------------


def test_one_bit_of_a_frozen_array_is_seen() -> None:
    pipeline = whole().copied()
    watch = Watch(pipeline, fringe(pipeline).frozen(pipeline))
    watch.frozen(pipeline)
    assert watch.frozen_equal
    with torch.no_grad():
        pipeline.named_tensors()["conv.weight"].view(torch.int32).flatten()[3] ^= 1
    watch.frozen(pipeline)
    assert (watch.frozen_equal, watch.checked) == (False, 2)


def test_a_fringe_array_may_move_but_not_by_what_was_rolled_back() -> None:
    pipeline = whole().copied()
    watch = Watch(pipeline, fringe(pipeline).frozen(pipeline))
    with torch.no_grad():
        pipeline.named_tensors()["layer1.block2.conv2.weight"].add_(1.0)
    kept = watch.iteration(pipeline, accepted=True)
    assert (watch.frozen_equal, watch.rollback_equal, watch.rolled_back) == (True, True, 0)
    watch.iteration(pipeline, accepted=False)
    watch.gone_back(pipeline, kept)
    assert (watch.rollback_equal, watch.rolled_back) == (True, 2)
    other = pipeline.formed({0: WireForm(bits=8)})
    watch.iteration(other, accepted=False)
    assert not watch.rollback_equal


def test_going_back_to_something_else_is_seen() -> None:
    watch = Watch(whole(), ())
    watch.gone_back(whole(), pipeline_bytes(whole().formed({1: WireForm(bits=8)})))
    assert not watch.rollback_equal


# -- the runs --------------------------------------------------------------------------------------------------------


def test_a_run_of_pruning_tells_what_its_pipeline_is_and_checks_every_iteration() -> None:
    lines: list[str] = []
    goals = Goals(floor=0.0, bandwidth="87%")
    found, made = pruned(whole(), few(), goals, healing=Recipe(epochs=0), samples=16, told=lines.append)
    assert found["status"] == "goals met"
    assert found["sent_bytes"] == [wire.size_bytes() for wire in made.wires] == [8280, 4248]
    assert (found["channels"], found["bits"]) == ([16, 32], [4, 4])
    assert found["bandwidth_reduction"] == pytest.approx(1 - (8280 + 4248) / sum(plain_bytes()))
    assert (found["frozen_equal"], found["rollback_equal"]) == (True, True)
    assert len(lines) == len(found["steps"]) == found["iterations"]
    # Every iteration, and every version gone back to, the first and the last among them.
    assert found["checked"] == found["iterations"] + found["iterations"] - found["rolled_back"] + 2
    json.dumps(found, allow_nan=False)


def test_a_run_ends_after_as_many_iterations_as_it_may_have() -> None:
    goals = Goals(floor=0.0, bandwidth="87%")
    found, made = pruned(whole(), few(), goals, healing=Recipe(epochs=0), samples=16, most=1)
    assert (found["status"], found["iterations"]) == ("running", 1)
    assert [wire.forms[0].bits for wire in made.wires] == [8, 32]


def test_steps_that_the_floor_forbids_are_rolled_back_and_checked() -> None:
    # Labels are what the network says: it is always right, and anything that it says otherwise is below the floor.
    own = ClutterParts(
        *(
            replace(part, y=whole().run(torch.from_numpy(part.x)).argmax(1).numpy())
            for part in clutter(0, pictures=(16, 8, 8))
        )
    )
    goals = Goals(drop=0.0, bandwidth="78%")
    found, _ = pruned(whole(), own, goals, healing=Recipe(epochs=0), samples=16)
    assert found["status"] == "goals met"
    assert found["rolled_back"] > 0
    assert found["rollbacks_checked"] == found["rolled_back"] + found["iterations"] - found["rolled_back"] + 2
    assert (found["frozen_equal"], found["rollback_equal"]) == (True, True)


def test_both_recipes_take_the_seed() -> None:
    made = seeded(HEALING, 7)
    assert made.together is not None
    assert (made.seed, made.together.seed, made.epochs) == (7, 7, HEALING.epochs)


def test_pairs_have_the_bytes_that_were_promised_and_nothing_of_the_base_model_moves() -> None:
    found, made = distilled(whole(), few(), SHAPES, DistilRecipe(**FEW))
    assert found["sent_bytes"] == [wire.size_bytes() for wire in made.wires] == [420, 240]
    assert found["bandwidth_reduction"] > 0.993
    assert (found["frozen_equal"], found["checked"]) == (True, 4)  # two regressions, one distillation, the end
    assert found["parameters"][0] == parameters(whole()) == 174_970 < found["parameters"][1]
    json.dumps(found, allow_nan=False)


# -- JPEGs and figures -----------------------------------------------------------------------------------------------


def test_the_best_jpeg_is_the_smallest_that_is_no_smaller_than_the_pair() -> None:
    model, test = network().eval(), few().test
    rows = {size: jpeg_rows(model, test, size, (20, 50, 80)) for size in (250.0, 400.0, 9e9)}
    assert [rows[size]["best"]["quality"] for size in rows] == [20, 50, 80]
    assert rows[400.0]["best"]["bytes"] >= 400.0 > rows[250.0]["best"]["bytes"] >= 250.0
    assert rows[400.0]["usual"]["quality"] == 50
    assert rows[400.0]["usual"]["bytes"] > rows[400.0]["best"]["bytes"]


def _row(saved: float, points: float, equal: bool = True) -> dict[str, object]:
    return {
        "bandwidth_reduction": saved, "latency_reduction": 0.8, "points": points, "sent_bytes": [420, 240],
        "test_percent": [94.0, 94.0 - points], "frozen_equal": equal, "rollback_equal": equal,
    }  # fmt: skip


def test_of_several_runs_the_least_saving_and_the_mean_points_are_told() -> None:
    rows = [_row(0.99, 0.1), _row(0.98, 0.5, equal=False)]
    assert command.prune_figures(rows) == {
        "prune_bandwidth_reduction": 0.98, "prune_latency_reduction": 0.8, "rollback_equal": False,
    }  # fmt: skip
    base = Base(network().eval(), 0.0, 94.0, "", True)
    found = command.distil_figures(base, few().test, rows)
    assert found["distil_bandwidth_reduction"] == 0.98
    assert (found["distil_points"], found["distil_points_se"]) == pytest.approx((0.3, 0.2))
    for key, name in (("beats_jpeg_points", "usual"), ("beats_best_jpeg_points", "best")):
        assert found[key] == pytest.approx(93.7 - found["jpeg"][name]["test_percent"])
    assert "distil_points_se" not in command.distil_figures(base, few().test, rows[:1])


def test_the_keys_and_their_targets_are_those_promised() -> None:
    assert {figure.key: figure.target for figure in FIGURES} == {
        "prune_bandwidth_reduction": "at least 0.98",
        "prune_latency_reduction": "at least 0.795",
        "distil_bandwidth_reduction": "at least 0.993",
        "distil_points": "at most 0.4",
        "beats_jpeg_points": "at least 5",
        "beats_best_jpeg_points": "",
        "frozen_equal": "at least 1",
        "rollback_equal": "at least 1",
        "swap_lost": "at most 0",
        "swap_mixed": "at most 0",
        "swap_p99_ratio": "at most 1.2",
        "latency_model_error": "at most 0.1",
        "pipeline_speedup": "at least 4",
    }
    assert {figure.part for figure in FIGURES} == set(PARTS)


@pytest.mark.parametrize("arguments", [["--quik"], ["--only", "everything"], ["prune"], ["--seeds", "many"]])
def test_a_mistake_in_the_command_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(arguments)
    assert left.value.code == 2
    assert "usage: python -m benchmarks.fringe" in capsys.readouterr().err
