"""A controller may be given other inputs to learn from on its way, says which, and is exact again with the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from control_cases import LINKS, controlled, trained

from flower_edge.errors import FringeError
from flower_edge.fringe.controller_torch import Controller
from flower_edge.fringe.deployed_torch import InProcess
from flower_edge.fringe.goals import Goals
from flower_edge.fringe.history import Iteration
from flower_edge.fringe.learning_torch import Learning
from flower_edge.fringe.links import Link
from flower_edge.fringe.operations_torch import fingerprint
from flower_edge.store import tree_from_bytes, tree_to_bytes

PRUNING: dict[str, Any] = {"methods": ("pruning",), "evaluate": lambda one: 1.0}


def brighter() -> torch.Tensor:
    return trained()[1][100:160] * 0.5 + 0.5


def rows(controller: Controller) -> list[dict[str, Any]]:
    return [{**one.row(), "seconds_s": None} for one in controller.iterations]


def test_from_the_next_iteration_on_it_learns_from_what_it_is_given() -> None:
    scored: list[float] = []

    def improving(_: object) -> float:  # so that every healing is kept
        scored.append(len(scored))
        return scored[-1]

    goals = Goals(drop=0.9, bandwidth="20x")
    old, new = (controlled(goals, methods=("pruning",), evaluate=improving) for _ in range(2))
    for one in (old, new):
        one.run(1)
    assert fingerprint(old.pipeline) == fingerprint(new.pipeline)
    given = brighter()
    new.learn_from(given.numpy())
    for one in (old, new):
        one.run(1)
    assert fingerprint(old.pipeline) != fingerprint(new.pipeline)
    before, after = (one.learned_from for one in new.iterations)
    assert before == old.iterations[1].learned_from != after
    assert after == Learning.of(new.whole, given).digest
    given.zero_()  # it has its own
    assert torch.equal(new.learning.samples, brighter())


def test_a_restart_with_the_same_inputs_changes_nothing_and_with_others_it_is_said() -> None:
    straight = controlled(Goals(drop=0.2, bandwidth="10x"))
    straight.run(1)
    straight.learn_from(brighter())
    kept = tree_from_bytes(tree_to_bytes(straight.state()))
    straight.run()
    options: dict[str, Any] = {"goals": Goals(drop=0.2, bandwidth="10x"), "state": kept}
    with pytest.raises(FringeError, match=r"learned from 60 samples .* these are 96 .* other_samples=True"):
        controlled(**options)
    resumed = controlled(**options, other_samples=True)
    resumed.learn_from(brighter())
    resumed.run()
    assert rows(resumed) == rows(straight)
    other = controlled(**options, other_samples=True)
    other.run()
    assert [one.learned_from for one in other.iterations] != [one.learned_from for one in straight.iterations]
    assert "samples" not in str(kept["iterations"])
    assert not any(np.array_equal(one, brighter()) for one in arrays_in(kept))  # inputs are kept by nobody


def arrays_in(tree: Any) -> list[np.ndarray]:
    if isinstance(tree, dict):
        return [found for one in tree.values() for found in arrays_in(one)]
    if isinstance(tree, list):
        return [found for one in tree for found in arrays_in(one)]
    return [tree] if isinstance(tree, np.ndarray) and tree.shape == brighter().shape else []


def test_what_the_floor_did_not_allow_is_tried_again_only_if_that_is_said() -> None:
    first = controlled().versions[0].score
    controller = controlled(
        Goals(drop=0.01, bandwidth="20x"),
        methods=("pruning",),
        evaluate=lambda one: first - 0.5 * (one.version != 0),
    )
    assert controller.run() == "floor reached"
    tried = len(controller.iterations)
    controller.learn_from(brighter())
    assert controller.run() == "floor reached"
    assert len(controller.iterations) == tried
    controller.learn_from(brighter(), anew=True)
    assert controller.run() == "floor reached"
    assert len(controller.iterations) == 2 * tried


@pytest.mark.parametrize(
    ("samples", "labels", "said"),
    [
        (torch.zeros(20, 1, 8, 9), None, r"expected \[samples, 1, 8, 8\]"),
        (torch.zeros(20, 1, 8, 8, dtype=torch.float64), None, "expected .* of torch.float32"),
        (np.zeros((20, 64), np.float32), None, r"samples \[20, 64\]"),
        (torch.zeros(9, 1, 8, 8), None, "9 samples .* 10 or more"),
        (torch.full((20, 1, 8, 8), torch.nan), None, "not finite"),
        (torch.zeros(20, 1, 8, 8), torch.zeros(19), "19 labels of 20"),
    ],
)
def test_inputs_that_the_pipeline_does_not_take_are_refused_and_it_goes_on_with_those_before(
    samples: torch.Tensor, labels: torch.Tensor | None, said: str
) -> None:
    controller = controlled(**PRUNING)
    before = controller.learning
    with pytest.raises(FringeError, match=said):
        controller.learn_from(samples, labels)
    assert controller.learning is before
    assert controller.step() is not None


def test_iterations_of_before_say_that_nobody_knows() -> None:
    controller = controlled(**PRUNING)
    controller.step()
    row = controller.iterations[0].row()
    del row["learned_from"]
    assert Iteration.from_row(row).learned_from == ""


def test_a_link_that_is_bad_just_now_is_no_reason_not_to_go_on_after_a_restart() -> None:
    goals = Goals(drop=0.05, latency_s="45 ms")
    deployed = InProcess(trained()[0], list(LINKS))
    controller = controlled(goals, deployed=deployed, methods=("quantisation",))
    controller.run(1)
    kept = controller.state()
    deployed.relink([Link(2e5, 0.500), LINKS[1]])
    resumed = controlled(goals, deployed=deployed, methods=("quantisation",), state=kept)
    assert resumed.version.digest == controller.version.digest
    assert resumed.attainable.latency_s > 0.5
    with pytest.raises(FringeError, match=r"delays and compute alone take 505"):
        controlled(goals, deployed=deployed, methods=("quantisation",))
