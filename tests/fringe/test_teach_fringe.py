"""Healing of all fringes with features and moved pictures: it learns, and moves nothing that is frozen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from control_cases import QUICK, trained
from torch import nn

from flower_edge.errors import FringeError
from flower_edge.fringe.digest_torch import FrozenProof, digest
from flower_edge.fringe.evaluation_torch import evaluation
from flower_edge.fringe.fringe_torch import fringe
from flower_edge.fringe.healing_torch import Recipe
from flower_edge.fringe.pipeline_torch import Pipeline
from flower_edge.fringe.precision_torch import quicker
from flower_edge.fringe.pruning_pipeline_torch import heal, heal_together, prune, rank
from flower_edge.fringe.wire_forms import WireForm

FEATURES = Recipe(epochs=4, lr=3e-3, batch_size=16, features=10.0, shift=1)


def narrow(kept: int = 3) -> Pipeline:
    """So many of eight channels at both connections, 4 bits each, nothing healed."""
    pipeline, x, _ = trained()
    layers, found = fringe(pipeline), pipeline
    for connection in (0, 1):
        order = rank(found, connection, x[:96], layers)
        keep = order.keep(kept)
        found = prune(found, connection, keep, order.map(keep), fringe=layers)
    return found.formed({0: WireForm(bits=4), 1: WireForm(bits=4)})


@pytest.mark.parametrize("bfloat16", [False, True])
def test_it_raises_accuracy_and_moves_nothing_that_is_frozen(bfloat16: bool) -> None:
    whole, x, y = trained()
    layers, pruned = fringe(whole), narrow()
    proof, before = FrozenProof.of(whole, layers.frozen(whole)), digest(pruned)
    healed, found = heal_together(whole, pruned, x[:240], layers, recipe=replace(FEATURES, bfloat16=bfloat16))
    assert found.healed
    right = evaluation(x[240:], y[240:])
    assert right(healed) > right(pruned)
    assert proof.check(healed)
    assert digest(pruned) == before, "what was given changed"
    arrays = [*healed.named_tensors().values()]
    assert all(one.is_contiguous() for one in arrays)
    assert {one.dtype for one in arrays if one.is_floating_point()} == {torch.float32}


def test_a_pipeline_that_lost_nothing_has_a_loss_of_nothing() -> None:
    whole, x, _ = trained()
    _, found = heal_together(whole, whole, x[:64], fringe(whole), recipe=replace(FEATURES, epochs=0))
    assert found.fit.losses[0] == pytest.approx(0.0, abs=1e-6)
    _, found = heal_together(whole, narrow(), x[:64], fringe(whole), recipe=replace(FEATURES, epochs=0))
    assert found.fit.losses[0] > 0.1


def test_the_weight_of_features_is_that_of_their_share_of_the_loss() -> None:
    whole, x, _ = trained()
    losses = [
        heal_together(whole, narrow(), x[:64], fringe(whole), recipe=replace(FEATURES, epochs=0, features=weight))[
            1
        ].fit.losses[0]
        for weight in (0.0, 1.0, 3.0)
    ]
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-4)
    assert losses[1] > losses[0]


def test_moved_pictures_are_other_pictures_and_the_same_seed_moves_them_alike() -> None:
    whole, x, _ = trained()
    layers, short = fringe(whole), replace(FEATURES, epochs=1)
    still, moved, again = (
        digest(heal_together(whole, narrow(), x[:64], layers, recipe=recipe)[0])
        for recipe in (replace(short, shift=0), short, short)
    )
    assert still != moved
    assert moved == again


def test_what_does_not_raise_the_score_is_dropped() -> None:
    whole, x, _ = trained()
    pruned = narrow()
    healed, found = heal_together(
        whole, pruned, x[:64], fringe(whole), recipe=replace(FEATURES, epochs=1), score=lambda _: 0.5
    )
    assert not found.healed
    assert healed is pruned


def test_local_healing_in_bfloat16_ends_where_float32_does() -> None:
    whole, x, _ = trained()
    pruned = narrow()
    ends = []
    for bfloat16 in (False, True):
        recipe = replace(QUICK, epochs=4, bfloat16=bfloat16)
        found = heal(whole, pruned, 0, x[:160], fringe(whole), recipe=recipe)[1]
        assert found.healed
        ends.append(found.fit.losses[found.fit.best])
    assert ends[1] == pytest.approx(ends[0], rel=0.1)


def test_weights_lie_as_before_afterwards_also_after_an_error() -> None:
    layer = nn.Conv2d(3, 4, 3)
    kept = layer.weight.detach().clone()

    def fails() -> None:
        with quicker([layer], True):
            assert layer.weight.is_contiguous(memory_format=torch.channels_last)
            assert layer(torch.zeros(1, 3, 5, 5)).dtype == torch.bfloat16
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        fails()
    assert layer.weight.is_contiguous()
    assert torch.equal(layer.weight, kept)
    with quicker([layer], False):
        assert layer(torch.zeros(1, 3, 5, 5)).dtype == torch.float32


def test_only_pictures_are_moved() -> None:
    whole, x, _ = trained()
    with pytest.raises(FringeError, match="give pictures"):
        heal_together(whole, narrow(), x[:8].flatten(1), fringe(whole), recipe=FEATURES)


@pytest.mark.parametrize("wrong", [{"features": -1.0}, {"features": float("nan")}, {"shift": -1}, {"shift": 1.5}])
def test_weights_and_moves_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(FringeError, match="features of 0 or more"):
        Recipe(**wrong)  # type: ignore[arg-type]
