"""A transformer and a recurrent model through all of it: on machines, compressed by a controller, rolled back, sent."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from sequence_cases import CUTS, LINKS, MACHINES, controlled, data, pipeline, trained
from torch import nn

from flower_edge.errors import FringeError
from flower_edge.fringe.automatic_torch import automatic
from flower_edge.fringe.automatic_values import Given
from flower_edge.fringe.controller_torch import Controller
from flower_edge.fringe.fringe_torch import fringe
from flower_edge.fringe.goals import Goals
from flower_edge.fringe.links import Link
from flower_edge.fringe.pipeline_torch import Pipeline, distribute
from flower_edge.fringe.pruning_pipeline_torch import prune
from flower_edge.fringe.removal_torch import removable
from flower_edge.runtime.fringe.blueprint_torch import Blueprint, blueprint_of, built
from flower_edge.store import tree_from_bytes, tree_to_bytes

KINDS = ("transformer", "recurrent")


@cache
def ran(kind: str) -> Controller:
    """All methods, until the goals or the floor."""
    controller = controlled(kind)
    assert controller.run() in ("goals met", "floor reached")
    return controller


def sent(made: Pipeline, x: torch.Tensor) -> np.ndarray[Any, Any]:
    """As machines do it: each with its own part, and nothing but bytes between them."""
    arrays, frame = [x.numpy()], b""
    for number, part in enumerate(made.parts):
        if number:
            arrays = list(made.wires[number - 1].decode(frame))
        arrays = list(part.step(arrays))
        if number < len(made.wires):
            frame = made.wires[number].encode(arrays)
            assert len(frame) == made.wires[number].size_bytes(len(x))
    return np.asarray(arrays[0])


@pytest.mark.parametrize("kind", KINDS)
def test_each_machine_holds_its_own_layers_and_together_they_are_the_model(kind: str) -> None:
    whole, model, x = pipeline(kind), trained(kind), data()[0][:20]
    held = [name for part in whole.parts for name in part.module.state_dict()]
    assert sorted(held) == sorted(model.state_dict())
    with torch.no_grad():
        assert torch.equal(whole.run(x), model(x))
    assert all(wire.specs[0].shape == (8, 16) for wire in whole.wires)


@pytest.mark.parametrize(
    ("kind", "touching"), [("transformer", ("first", "second", "score")), ("recurrent", ("embed", "first", "second"))]
)
def test_the_fringe_is_what_touches_a_cut_and_an_encoder_layer_is_one_layer(
    kind: str, touching: tuple[str, ...]
) -> None:
    assert set(fringe(pipeline(kind)).layers()) == set(touching)


@pytest.mark.parametrize("kind", KINDS)
def test_a_controller_with_all_methods_keeps_the_floor_and_every_frozen_array(kind: str) -> None:
    controller = ran(kind)
    first, last = controller.versions[0], controller.version
    assert sum(first.sizes_bytes) >= 4 * sum(last.sizes_bytes)
    assert last.score >= first.score - 0.1 - 1e-9
    assert {one.frozen_digest for one in controller.iterations} == {controller.frozen_digest}
    assert {"quantisation", "distillation"} <= {one.method for one in controller.iterations if one.accepted}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent_between_the_machines_gives_the_bits_that_were_evaluated(kind: str) -> None:
    x = data()[0][400:430]
    for made in (pipeline(kind), ran(kind).pipeline):
        np.testing.assert_array_equal(sent(made, x), made.run(x).numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_every_version_comes_back_byte_for_byte_also_after_a_restart(kind: str) -> None:
    controller, x = ran(kind), data()[0][:30]
    kept = tree_from_bytes(tree_to_bytes(controller.state()))
    again = controlled(kind, state=kept)
    assert again.version.digest == controller.version.digest
    assert torch.equal(again.pipeline.run(x), controller.pipeline.run(x))
    for version in reversed(controller.versions):
        again.roll_back(version.number)
        assert again.version.digest == version.digest
    assert torch.equal(again.pipeline.run(x), pipeline(kind).run(x))


def test_the_stream_of_a_transformer_is_not_pruned_and_the_layer_that_reads_it_is_named() -> None:
    whole = pipeline("transformer")
    with pytest.raises(FringeError, match=r"'second'.*16 features.*encoder and a decoder"):
        prune(whole, 0, range(8), fringe=fringe(whole), axis=2)
    controller = controlled("transformer", Goals(drop=0.5, bandwidth="1.2x"), methods=("pruning",))
    assert controller.run() == "goals met"
    refused, taken = controller.iterations  # behind the second cut only a mean and a linear layer read the stream
    assert (refused.connection, refused.accepted, taken.connection, taken.accepted) == (0, False, 1, True)
    assert "'second' reads all 16 features" in refused.why
    assert refused.after_score is None


def test_a_recurrent_model_is_pruned_on_both_sides_of_its_cuts() -> None:
    controller = controlled("recurrent", Goals(drop=0.25, bandwidth="1.6x"), methods=("pruning",))
    assert controller.run() == "goals met"
    shapes = [wire.specs[0].shape for wire in controller.pipeline.wires]
    assert all(steps == 8 for steps, _ in shapes)
    assert min(features for _, features in shapes) < 16
    x = data()[0][:10]
    np.testing.assert_array_equal(sent(controller.pipeline, x), controller.pipeline.run(x).numpy())


def test_an_encoder_layer_with_the_shape_of_its_input_may_be_left_out() -> None:
    assert "first" in {layer for machine, layer in removable(pipeline("transformer"), fringe(pipeline("transformer")))}


@pytest.mark.parametrize("kind", KINDS)
def test_automatic_control_proposes_what_their_layers_allow(kind: str) -> None:
    # A link that is slow enough for a second or two of a busy test machine to make no difference.
    links = [Link(one.goodput_bps / 100, one.delay_s) for one in LINKS]
    goals, cuts = Goals(drop=0.06, bandwidth="8x"), CUTS[kind][:1]
    chosen = automatic(trained(kind), data()[0][:4], MACHINES[::2], links[:1], goals, given=Given(cuts=cuts))
    assert chosen.cuts == cuts
    assert "distillation" in chosen.methods
    refused = [line for line in chosen.why if f"No pruning after {cuts[0]}: 'second' reads all 16" in line]
    assert bool(refused) == (kind == "transformer")
    assert not refused or "pruning" not in chosen.methods


@pytest.mark.parametrize(
    ("options", "told"),
    [({}, True), ({"activation": "gelu", "norm_first": True}, True), ({"activation": torch.tanh}, False)],
)
def test_an_encoder_layer_of_torch_is_made_again_by_another_machine(options: dict[str, Any], told: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True, **options).eval()
    part = distribute(nn.Sequential(nn.Linear(4, 8), layer), torch.zeros(2, 5, 4), ["a", "b"], ["0"]).parts[1]
    if not told:
        with pytest.raises(FringeError, match="TransformerEncoderLayer, which no other machine can make"):
            blueprint_of(part)
        return
    there = built(Blueprint.from_tree(tree_from_bytes(tree_to_bytes(blueprint_of(part).tree()))), part.machine)
    x = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)
    np.testing.assert_array_equal(there.step([x])[0], part.step([x])[0])
    with torch.no_grad():
        np.testing.assert_allclose(there.step([x])[0], layer(torch.from_numpy(x)).numpy(), atol=1e-6)
