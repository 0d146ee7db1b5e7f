"""Single weights set to zero and whole layers left out: what changes, and that the bytes on the wire do not."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from split_cases import CASES

from flower_edge.errors import CodecError, FringeError, ProtocolError
from flower_edge.fringe.digest_torch import FrozenProof, digest
from flower_edge.fringe.fringe_torch import fringe
from flower_edge.fringe.pipeline_torch import Pipeline, distribute
from flower_edge.fringe.removal_torch import removable, removal_effects, without
from flower_edge.fringe.sparse_torch import keep_zeros, pack_sparse, prune_weights, storage, unpack_sparse


@cache
def cut_once() -> Pipeline:
    cut_model = CASES["resnet"].cut_model()
    return distribute(cut_model, cut_model.example, ["a", "b", "c"], ["block1", "block2"])


def resnet() -> Pipeline:
    return cut_once().copied()


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.just(0.0) | st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=60))
def test_sparse_storage_gives_back_every_number(values: list[float]) -> None:
    arrays = {"w": np.array(values, np.float32), "b": np.zeros((2, 3), np.float32)}
    again = unpack_sparse(pack_sparse(arrays), {name: array.shape for name, array in arrays.items()})
    assert all(np.array_equal(again[name], array) for name, array in arrays.items())


def test_zeroed_weights_take_less_room_and_not_a_byte_less_on_the_wire() -> None:
    pipeline = resnet()
    found = fringe(pipeline, 2)
    names = found.arrays(pipeline)
    proof, before = FrozenProof.of(pipeline, found.frozen(pipeline)), digest(pipeline)
    pruned, masks = prune_weights(pipeline, names, 0.9)
    was, now = storage(pipeline, names), storage(pruned, names)
    assert now.sparse_bytes < 0.2 * was.sparse_bytes
    assert now.dense_bytes == was.dense_bytes
    assert now.wire_bytes == was.wire_bytes == sum(connection.size_bytes for connection in pipeline.connections)
    weights = sum(mask.size for mask in masks.values())
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(0.9 * weights)
    assert pruned.version == 1
    assert proof.check(pruned)
    assert digest(pipeline) == before, "the pipeline given changed"


def test_the_smallest_over_all_layers_go_first() -> None:
    pipeline = resnet()
    names = ["block1.conv2.weight", "block2.conv1.weight"]
    held = pipeline.named_tensors()
    with torch.no_grad():
        held[names[0]].fill_(1000)
    count = held[names[1]].numel()
    share = count / (count + held[names[0]].numel())
    _, masks = prune_weights(pipeline, names, share)
    assert masks[names[0]].all()
    assert not masks[names[1]].any()


def test_zeros_stay_zero_while_the_rest_trains() -> None:
    pipeline = resnet()
    pruned, masks = prune_weights(pipeline, fringe(pipeline).arrays(pipeline), 0.5)
    optimiser = torch.optim.SGD([p for part in pruned.parts for p in part.module.parameters()], lr=0.1)
    pruned.forward(pruned.example).square().sum().backward()
    optimiser.step()
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    assert storage(pruned, masks).zeros < zeros / 2, "training did not fill the zeros: nothing is shown here"
    keep_zeros(pruned, masks)
    held = pruned.named_tensors()
    assert all(not held[name].detach().numpy()[~mask].any() for name, mask in masks.items())
    with pytest.raises(FringeError, match="expected the masks of this pipeline"):
        keep_zeros(pruned, {"conv.weight": np.ones(3, bool)})


def test_what_cannot_be_pruned_or_stored_says_so() -> None:
    pipeline = resnet()
    for names, fraction, said in (
        (["conv.weight"], 1.0, "from 0 to below 1"),
        (["conv"], 0.5, "no array 'conv'"),
        (["norm.weight", "norm.running_mean"], 0.5, "no weights among"),
    ):
        with pytest.raises(FringeError, match=said):
            prune_weights(pipeline, names, fraction)
    with pytest.raises(CodecError, match="expected float32"):
        pack_sparse({"n": np.zeros(3, np.int64)})


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=60))
def test_whatever_bytes_of_sparse_weights_come_are_answered_with_weights_or_a_protocol_error(data: bytes) -> None:
    try:
        found = unpack_sparse({"w": data}, {"w": (4, 5)})
    except ProtocolError:
        return
    assert found["w"].shape == (4, 5)


def test_sparse_weights_of_other_names_are_refused() -> None:
    with pytest.raises(ProtocolError, match="expected the same names"):
        unpack_sparse({"w": b""}, {"v": (1,)})


def test_a_block_with_a_short_cut_can_go_and_one_that_changes_shape_cannot() -> None:
    pipeline = resnet()
    names = {name for _, name in removable(pipeline, fringe(pipeline, 2))}
    assert {"block1", "block1.conv1", "block2.conv2"} <= names
    assert not names & {"block2", "block2.conv1", "conv"}
    assert "block1" not in {name for _, name in removable(pipeline, fringe(pipeline, 1))}, "conv1 is frozen there"


def test_what_is_left_out_is_gone_and_the_pipeline_computes_the_rest() -> None:
    pipeline = resnet()
    model, before = CASES["resnet"].model().eval(), digest(pipeline)
    smaller = without(pipeline, "a", "block1")
    model.block1 = torch.nn.Identity()
    assert torch.equal(smaller.run(pipeline.example), model(pipeline.example))
    assert set(pipeline.named_tensors()) - set(smaller.named_tensors()) == {
        name for name in pipeline.named_tensors() if name.startswith("block1.")
    }
    assert [c.size_bytes for c in smaller.connections] == [c.size_bytes for c in pipeline.connections]
    assert digest(pipeline) == before


def test_layers_are_ranked_by_what_the_pipeline_is_without_them() -> None:
    pipeline = resnet()
    whole = pipeline.run(pipeline.example)
    with torch.no_grad():
        pipeline.named_tensors()["block1.norm2.weight"].zero_()  # block 1 now gives what it takes
        pipeline.named_tensors()["block1.norm2.bias"].zero_()
        whole = pipeline.run(pipeline.example)
    found = removal_effects(pipeline, fringe(pipeline, 2), lambda p: -float((p.run(p.example) - whole).abs().max()))
    best = {effect.layer for effect in found if effect.score == 0}
    assert "block1" in best
    assert found[-1].score < 0
    block = next(effect for effect in found if effect.layer == "block1")
    arrays = CASES["resnet"].model().block1.state_dict().values()
    assert block.numbers == sum(array.numel() for array in arrays)


def test_a_layer_that_cannot_go_says_why() -> None:
    pipeline = resnet()
    for layer, said in (("conv", "only a layer whose output has the shape"), ("block9", "one tensor in and one out")):
        with pytest.raises(FringeError, match=said):
            without(pipeline, "a", layer)
