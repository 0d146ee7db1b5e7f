"""Healing of all fringes together: towards the uncompressed model, through all wires, and only where it is needed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from control_cases import QUICK, controlled, trained
from torch.nn import functional

from flower_edge.fringe.actions import Action, Candidate
from flower_edge.fringe.digest_torch import FrozenProof, digest
from flower_edge.fringe.evaluation_torch import evaluation
from flower_edge.fringe.fringe_torch import fringe
from flower_edge.fringe.goals import Goals
from flower_edge.fringe.healing_torch import Recipe
from flower_edge.fringe.operations_torch import Compressor
from flower_edge.fringe.pipeline_torch import Pipeline
from flower_edge.fringe.policy import LargestFirst, SlowestFirst
from flower_edge.fringe.pruning_pipeline_torch import heal_together, prune, rank
from flower_edge.fringe.wire_forms import WireForm

TOGETHER = Recipe(epochs=4, lr=3e-3, batch_size=16)


@cache
def narrow() -> Pipeline:
    """Three of eight channels at both connections, 2 bits each, nothing healed."""
    pipeline, x, _ = trained()
    layers, found = fringe(pipeline), pipeline
    for connection in (0, 1):
        order = rank(found, connection, x[:96], layers)
        keep = order.keep(3)
        found = prune(found, connection, keep, order.map(keep), fringe=layers)
    return found.formed({0: WireForm(bits=2), 1: WireForm(bits=2)})


def error(pipeline: Pipeline) -> float:
    """Divergence of the softened scores, on inputs that nothing learned from."""
    whole, x, _ = trained()
    now, told = ((one.run(x[320:]) / 3).log_softmax(dim=1) for one in (pipeline, whole))
    return float(functional.kl_div(now, told, reduction="batchmean", log_target=True))


def test_it_nears_the_uncompressed_scores_through_the_wires_and_moves_nothing_that_is_frozen() -> None:
    whole, x, y = trained()
    layers, pruned = fringe(whole), narrow()
    proof, before = FrozenProof.of(whole, layers.frozen(whole)), digest(pruned)
    healed, found = heal_together(whole, pruned, x[:240], layers, recipe=TOGETHER)
    assert found.healed
    assert error(healed) < 0.8 * error(pruned)
    right = evaluation(x[240:], y[240:])
    assert right(healed) > right(pruned)
    assert proof.check(healed)
    assert digest(pruned) == before, "what was given changed"
    assert healed.wires == pruned.wires


def test_what_does_not_raise_the_score_is_dropped() -> None:
    whole, x, _ = trained()
    healed, found = heal_together(whole, narrow(), x[:96], fringe(whole), recipe=TOGETHER, score=lambda _: 0.5)
    assert not found.healed
    assert healed is narrow()


def test_the_same_seed_gives_the_same_bits() -> None:
    whole, x, _ = trained()
    made = [heal_together(whole, narrow(), x[:96], fringe(whole), recipe=replace(TOGETHER, epochs=1)) for _ in range(2)]
    assert digest(made[0][0]) == digest(made[1][0])


def test_without_a_recipe_nothing_is_done() -> None:
    whole, x, _ = trained()
    for healing in (None, QUICK):
        made = Compressor(whole, fringe(whole), x[:96], healing=healing).heal_together(narrow(), lambda _: 1.0)
        assert made == (narrow(), False)


def test_a_controller_saves_more_with_it_and_never_passes_the_floor() -> None:
    goals = Goals(drop=0.02, bandwidth="45x")
    alone, together = (controlled(goals, healing=recipe) for recipe in (QUICK, replace(QUICK, together=TOGETHER)))
    for controller in (alone, together):
        controller.run()
        assert all(goals.holds(version.score, controller.versions[0].score) for version in controller.versions)
        assert {one.frozen_digest for one in controller.iterations} == {controller.frozen_digest}
    assert sum(together.version.sizes_bytes) < sum(alone.version.sizes_bytes)


# -- which step is next ----------------------------------------------------------------------------------------------


def candidate(method: str, connection: int, amount: int, octaves: float, before: int, link_s: float) -> Candidate:
    return Candidate(
        Action(method, connection, amount, octaves), before, before // 2, link_s, link_s / 4, 8, 8, 0.5, False
    )


def test_bits_go_first_where_they_are_told_to() -> None:
    fewer, bits = candidate("pruning", 0, 4, 1.0, 800, 0.02), candidate("quantisation", 0, 4, 2.0, 800, 0.02)
    assert SlowestFirst().choose([fewer, bits], 0.01) is fewer
    assert SlowestFirst(bits_first=True).choose([fewer, bits], 0.01) is bits


def test_the_largest_connection_waits_after_a_step_that_failed() -> None:
    small, large = candidate("pruning", 0, 4, 1.0, 300, 0.02), candidate("pruning", 1, 4, 1.0, 800, 0.01)
    assert SlowestFirst().choose([small, large], 0.01) is small
    assert LargestFirst().choose([small, large], 0.01) is large
    failed = candidate("pruning", 1, 6, 0.5, 800, 0.01)
    assert LargestFirst().choose([small, failed], 0.01) is small


def test_scores_are_taken_of_all_samples_whatever_their_number() -> None:
    whole, x, _ = trained()
    many = x[:96].repeat(3, 1, 1, 1)  # more than are run at once
    _, found = heal_together(whole, narrow(), many, fringe(whole), recipe=Recipe(epochs=0))
    assert found.fit.best == 0
    assert len(found.fit.losses) == 1
    assert torch.isfinite(torch.tensor(found.fit.losses)).all()
