"""Which layers touch a connection, that all others stay as they are, and that it shows when one does not."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from split_cases import CASES
from torch import nn

from flower_edge.errors import FringeError, FrozenMoved
from flower_edge.fringe.digest_torch import FrozenProof, digest
from flower_edge.fringe.freezing_torch import freeze, thaw
from flower_edge.fringe.fringe_torch import fringe
from flower_edge.fringe.pipeline_torch import Pipeline, distribute
from flower_edge.store import tree_from_bytes, tree_to_bytes


def pipeline_of(name: str, cuts: list[int | str]) -> Pipeline:
    cut_model = CASES[name].cut_model()
    return distribute(cut_model, cut_model.example, ["a", "b", "c"][: len(cuts) + 1], cuts)


@cache
def cut_once() -> Pipeline:
    return pipeline_of("resnet", ["block1", "block2"])


def resnet() -> Pipeline:
    return cut_once().copied()


def in_training(pipeline: Pipeline) -> Pipeline:
    for part in pipeline.parts:
        part.module.train()
    return pipeline


def trained(pipeline: Pipeline, parameters: list[nn.Parameter], steps: int = 2) -> None:
    optimiser = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        pipeline.forward(pipeline.example).square().sum().backward()
        optimiser.step()


def test_depth_one_are_the_layers_with_nothing_but_sums_and_relus_before_the_cut() -> None:
    found = fringe(resnet())
    assert [(side.machine, side.connection, side.end) for side in found.sides] == [
        ("a", 0, "producer"),
        ("b", 0, "consumer"),
        ("b", 1, "producer"),
        ("c", 1, "consumer"),
    ]
    assert set(found.side(0, "producer").layers) == {"block1.conv2", "block1.norm2"}
    entering = {"block2.conv1", "block2.norm1", "block2.shortcut.0", "block2.shortcut.1"}
    assert set(found.side(0, "consumer").layers) == entering
    leaving = {"block2.conv2", "block2.norm2", "block2.shortcut.0", "block2.shortcut.1"}
    assert set(found.side(1, "producer").layers) == leaving
    assert set(found.layers("b")) == entering | leaving


def test_behind_an_identity_short_cut_lie_the_layers_of_the_block_it_passes_by() -> None:
    depths = dict(
        zip(*(getattr(fringe(resnet(), 3).side(0, "producer"), n) for n in ("layers", "depths")), strict=True)
    )
    assert depths == {
        **{f"block1.{name}": 1 for name in ("conv2", "norm2")},
        **{f"block1.{name}": 2 for name in ("conv1", "norm1")},
        **dict.fromkeys(("conv", "norm"), 3),
    }


def test_depth_is_set_per_machine_and_none_leaves_a_machine_alone() -> None:
    found = fringe(resnet(), {"a": 0, "c": 2})
    assert found.layers("a") == ()
    assert {"block3.conv1", "block3.conv2"} <= set(found.layers("c"))
    assert "block2.conv2" not in found.side(0, "consumer").layers, "those not named have 1"


def test_a_layer_whose_output_crosses_beside_others_touches_the_connection() -> None:
    pipeline = pipeline_of("fan", [5])
    assert len(pipeline.wires[0].specs) == 2, "this cut no longer has a skip across it"
    assert fringe(pipeline).side(0, "producer").layers == ("arms.0", "norm", "first")


def test_a_transformers_fringe_is_found_through_its_residual_stream() -> None:
    found = fringe(pipeline_of("char-transformer", ["embed"]), 2)
    assert set(found.side(0, "producer").layers) == {"embed.symbol", "embed.position"}
    assert found.side(0, "consumer").layers == ("block1.norm1", "block1.query_key_value", "block1.mixed")


def test_fringe_and_frozen_arrays_are_all_arrays_and_none_twice() -> None:
    pipeline = resnet()
    for depth in (0, 1, 2, 99):
        found = fringe(pipeline, depth)
        assert sorted([*found.arrays(pipeline), *found.frozen(pipeline)]) == sorted(pipeline.named_tensors())
    assert set(fringe(pipeline, 0).frozen(pipeline)) == set(pipeline.named_tensors())


def test_a_second_name_of_a_fringe_layers_weight_is_no_frozen_array() -> None:
    pipeline = pipeline_of("tied", ["before"])
    found = fringe(pipeline)
    assert found.side(0, "consumer").layers == ("inner",)
    assert "again.weight" not in found.frozen(pipeline)
    assert "again.bias" in found.frozen(pipeline)


@pytest.mark.parametrize("depth", [-1, 1.5, True])
def test_a_depth_that_is_none_is_refused(depth: int) -> None:
    with pytest.raises(FringeError, match="expected layers, 0 or more"):
        fringe(resnet(), depth)
    with pytest.raises(FringeError, match="machine 'phone'"):
        fringe(resnet(), {"phone": 1})
    with pytest.raises(FringeError, match="not in this fringe"):
        fringe(resnet()).side(2, "producer")


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_frozen_arrays_stay_bit_for_bit_while_the_fringe_trains_in_training_mode(depth: int) -> None:
    pipeline = in_training(resnet())
    found = fringe(pipeline, depth)
    proof = freeze(pipeline, found)
    before = {name: tensor.clone() for name, tensor in pipeline.named_tensors().items()}
    if depth:
        trained(pipeline, found.parameters(pipeline))
    else:
        pipeline.forward(pipeline.example)
    assert proof.check(pipeline) == proof.digest == digest(pipeline, found.frozen(pipeline))
    moved = {name for name, tensor in pipeline.named_tensors().items() if not torch.equal(tensor, before[name])}
    assert moved == set(found.arrays(pipeline)), "all of the fringe moves, its statistics too, and nothing else"


def test_frozen_norms_stay_in_evaluation_in_a_copy_too_and_go_with_the_part_once_thawed() -> None:
    pipeline = resnet()
    proof = freeze(pipeline, fringe(pipeline))
    other = in_training(pipeline.copied())
    other.forward(pipeline.example)
    assert proof.check(other)
    again = copy.deepcopy(other.part("a").module)
    again(pipeline.example)
    assert torch.equal(again.norm.running_mean, pipeline.part("a").module.norm.running_mean)
    thaw(other)
    other.forward(pipeline.example)
    assert "norm.running_mean" in proof.moved(other)
    assert all(p.requires_grad for part in other.parts for p in part.module.parameters())


def test_freezing_again_frees_what_was_frozen_before() -> None:
    pipeline = resnet()
    freeze(pipeline, fringe(pipeline, 0))
    found = fringe(pipeline, 99)
    freeze(in_training(pipeline), found)
    before = pipeline.part("a").module.norm.running_mean.clone()
    pipeline.forward(pipeline.example)
    assert not torch.equal(pipeline.part("a").module.norm.running_mean, before)
    assert all(parameter.requires_grad for parameter in found.parameters(pipeline))


@pytest.mark.parametrize("name", ["conv.weight", "norm.running_var", "norm.num_batches_tracked"])
def test_a_frozen_array_that_moved_is_an_error_that_names_it(name: str) -> None:
    pipeline = resnet()
    proof = freeze(pipeline, fringe(pipeline))
    with torch.no_grad():
        pipeline.named_tensors()[name].reshape(-1)[0] += 1
    with pytest.raises(FrozenMoved, match=rf"frozen array '{name}' is another, of \d+; call freeze"):
        proof.check(pipeline)


def test_training_without_freezing_is_found_out() -> None:
    pipeline = in_training(resnet())
    found = fringe(pipeline)
    proof = FrozenProof.of(pipeline, found.frozen(pipeline))
    trained(pipeline, list(found.parameters(pipeline)), 1)
    with pytest.raises(FrozenMoved, match=r"'norm\.running_mean' is another, and \d+ more"):
        proof.check(pipeline)


def test_an_array_that_is_gone_has_moved() -> None:
    pipeline = resnet()
    proof = FrozenProof.of(pipeline, ["conv.weight", "linear.bias"])
    with pytest.raises(FrozenMoved, match=r"'linear\.bias' is gone"):
        proof.check(Pipeline(pipeline.parts[:2], pipeline.wires[:1], pipeline.example))


def test_a_digest_covers_name_dtype_shape_and_every_byte() -> None:
    pipeline = resnet()
    whole = digest(pipeline)
    assert digest(pipeline, list(reversed(pipeline.named_tensors()))) == whole
    assert digest(pipeline.copied()) == whole
    assert digest(pipeline, ["conv.weight"]) != digest(pipeline, ["norm.weight"]) != whole
    changed = pipeline.copied()
    with torch.no_grad():
        changed.named_tensors()["norm.bias"].mul_(-1.0)  # zeros become -0, which is another byte
    assert digest(changed) != whole
    with pytest.raises(FringeError, match="no array 'conv'"):
        digest(pipeline, ["conv"])


def test_a_proof_is_kept_as_plain_values() -> None:
    pipeline = resnet()
    proof = freeze(pipeline, fringe(pipeline))
    tree = tree_from_bytes(tree_to_bytes(proof.state()))
    assert isinstance(tree, dict)
    assert FrozenProof(tree).check(pipeline) == proof.digest
