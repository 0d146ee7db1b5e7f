"""A model on machines: each has its own part and nothing else, and together they compute what the whole does."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from split_cases import CASES, Tied
from torch import nn

from flower_edge.errors import FringeError, ModelMismatch, SplitError
from flower_edge.fringe.parts_torch import laid_out
from flower_edge.fringe.pipeline_torch import Pipeline, distribute
from flower_edge.fringe.wire_forms import WireForm
from flower_edge.models import make_model
from flower_edge.splitting.cutting_torch import CutModel
from flower_edge.splitting.recording_torch import layout_of
from flower_edge.store import tree_from_bytes, tree_to_bytes


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(3, 6, batch_first=True)
        self.second = nn.GRU(6, 4, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, _ = self.first(x)
        x, _ = self.second(x)
        out: torch.Tensor = self.last(x[:, -1])
        return out


class Skipping(nn.Module):
    """A first layer's output crosses two cuts; a step in place comes right after one; a transposed tensor crosses."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.middle = nn.Linear(4, 4)
        self.last = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.first(x)
        b = torch.relu_(self.middle(a.transpose(1, 2))).transpose(1, 2)
        out: torch.Tensor = self.last(torch.relu(b) + a).sum(1)
        return out


@cache
def cut_once() -> tuple[CutModel, Pipeline]:
    cut_model = CASES["resnet"].cut_model()
    return cut_model, distribute(cut_model, cut_model.example, ["camera", "gateway", "cloud"], ["block1", "block2"])


def resnet() -> tuple[CutModel, Pipeline]:
    cut_model, pipeline = cut_once()
    return cut_model, pipeline.copied()


def in_evaluation(cut_model: CutModel, x: torch.Tensor) -> torch.Tensor:
    model = cut_model.model.eval()
    with torch.no_grad():
        out: torch.Tensor = model(x)
    return out


@pytest.mark.parametrize("name", CASES)
def test_parts_are_disjoint_and_make_up_the_whole_and_compute_the_same_bits(name: str) -> None:
    case = CASES[name]
    cut_model = case.cut_model()
    last = len(cut_model.units)
    machines = ["a", "b", "c", "d"][: min(4, last)]
    cuts = sorted({max(1, last * n // len(machines)) for n in range(1, len(machines))})
    pipeline = distribute(cut_model, cut_model.example, machines[: len(cuts) + 1], cuts)
    held = [name for part in pipeline.parts for name in part.module.state_dict()]
    assert sorted(held) == sorted(cut_model.model.state_dict())
    assert pipeline.unused == ()
    x = torch.tensor(case.data(7)[0])
    assert torch.equal(pipeline.run(x), in_evaluation(cut_model, x))
    model = {id(tensor) for tensor in cut_model.model.state_dict(keep_vars=True).values()}
    assert not model & {id(tensor) for tensor in pipeline.named_tensors().values()}


@cache
def lenet() -> CutModel:
    return CASES["lenet5"].cut_model()


@settings(max_examples=12, deadline=None)
@given(cuts=st.sets(st.integers(1, 11), max_size=6))
def test_wherever_a_model_is_cut_its_parts_compute_the_same_bits(cuts: set[int]) -> None:
    machines = [f"m{number}" for number in range(len(cuts) + 1)]
    pipeline = distribute(lenet(), lenet().example, machines, sorted(cuts))
    assert torch.equal(pipeline.run(lenet().example), in_evaluation(lenet(), lenet().example))


def test_one_machine_holds_all_and_as_many_as_units_hold_one_each() -> None:
    cut_model = CASES["lenet5"].cut_model()
    whole = distribute(cut_model, cut_model.example, ["all"], [])
    assert whole.connections == ()
    last = len(cut_model.units)
    each = distribute(cut_model, cut_model.example, [f"m{n}" for n in range(last)], list(range(1, last)))
    assert [part.units for part in each.parts] == [(unit,) for unit in cut_model.units]
    assert torch.equal(whole.run(cut_model.example), each.run(cut_model.example))


@pytest.mark.parametrize("cut", ["first", "second"])
def test_a_recurrent_model_is_cut_between_its_layers(cut: str) -> None:
    torch.manual_seed(0)
    model, x = Recurrent(), torch.randn(3, 5, 3)
    pipeline = distribute(model, x, ["a", "b"], [cut])
    assert torch.equal(pipeline.run(x), model.eval()(x))


def test_skips_across_a_cut_steps_in_place_and_transposed_tensors_change_nothing() -> None:
    torch.manual_seed(0)
    model, x = Skipping(), torch.randn(3, 4, 6)
    cut_model = CutModel.of(model, x)
    for position in range(1, len(cut_model.units)):
        pipeline = distribute(cut_model, x, ["a", "b"], [position])
        given = pipeline.crossing(x)[0]
        before = [tensor.clone() for tensor in given]
        assert torch.equal(pipeline.run(x), model.eval()(x))
        pipeline.part("b").module(*given)
        assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True)), "a part wrote to its input"
    assert max(len(distribute(cut_model, x, ["a", "b"], [p]).wires[0].specs) for p in (1, 2, 3)) == 2


def test_a_tensor_that_lay_transposed_lies_so_again_after_it_travelled() -> None:
    model, x = Skipping(), torch.randn(3, 4, 6)
    cut_model = CutModel.of(model, x)
    crossed = 0
    for position in range(1, len(cut_model.units)):
        pipeline = distribute(cut_model, x, ["a", "b"], [position])
        part = pipeline.part("b").module
        laid = [node.args[1] for node in part.graph.nodes if node.target is laid_out]
        strided = [layout_of(tensor) for tensor in pipeline.part("a").module(x) if not tensor.is_contiguous()]
        assert laid == strided
        crossed += len(laid)
    assert crossed, "nothing transposed crosses any cut: nothing is shown here"
    given = torch.arange(24.0).reshape(2, 3, 4)
    again = laid_out(given, (0, 2, 1))
    assert torch.equal(again, given)
    assert layout_of(again) == (0, 2, 1)


def test_servers_of_parts_with_bytes_between_them_give_the_same_bits() -> None:
    cut_model, pipeline = resnet()
    pipeline = pipeline.formed({0: WireForm(4), 1: WireForm(8, fraction=0.5)})
    arrays: tuple[np.ndarray, ...] = (cut_model.example.numpy(),)
    for part, wire in zip(pipeline.parts, (*pipeline.wires, None), strict=True):
        arrays = part.step(arrays)
        if wire is not None:
            sent = wire.encode(arrays, version=pipeline.version)
            assert len(sent) == wire.size_bytes(len(cut_model.example))
            arrays = wire.decode(sent)
    assert np.array_equal(arrays[0], pipeline.run(cut_model.example).numpy())


def test_connections_name_both_machines_and_the_bytes_of_an_inference() -> None:
    _, pipeline = resnet()
    assert [(c.number, c.producer, c.consumer, c.size_bytes) for c in pipeline.connections] == [
        (0, "camera", "gateway", 24 + 4 * 8 * 8 * 8),
        (1, "gateway", "cloud", 24 + 4 * 16 * 4 * 4),
    ]
    smaller = pipeline.formed({1: WireForm(4)})
    assert smaller.version == 1
    assert [c.size_bytes for c in smaller.connections] == [2072, 24 + 16 * 4 + 128]
    assert [c.size_bytes for c in pipeline.connections] == [2072, 1048], "the pipeline given changed"


def test_tied_weights_across_a_cut_are_refused_by_name() -> None:
    torch.manual_seed(0)
    with pytest.raises(SplitError, match=r"cut after 'inner': 'inner.weight' is needed on both sides.*untie"):
        distribute(Tied(), torch.randn(4, 4, 4), ["a", "b"], ["inner"])


@pytest.mark.parametrize(
    ("machines", "cuts", "error", "said"),
    [
        ([], [], FringeError, "expected names"),
        ("ab", [1], FringeError, "expected names"),
        (["a", "a"], [1], FringeError, "none twice"),
        (["a", "b"], [], FringeError, "expected 1"),
        (["a", "b", "c"], [3, 2], FringeError, "rising"),
        (["a", "b", "c"], [3, 3], FringeError, "rising"),
        (["a", "b"], [0], SplitError, "no machine is idle"),
        (["a", "b"], [True], SplitError, "expected a position"),
        (["a", "b"], ["block9"], SplitError, "no step of the model lies in it"),
        (["a", "b"], ["linear"], SplitError, "cannot be cut there"),
    ],
)
def test_cuts_that_cannot_be_had_say_what_can(
    machines: list[str], cuts: list[int | str], error: type[Exception], said: str
) -> None:
    cut_model = CASES["resnet"].cut_model()
    with pytest.raises(error, match=said):
        distribute(cut_model, cut_model.example, machines, cuts)


def test_state_goes_through_bytes_and_comes_back_with_version_and_forms() -> None:
    cut_model, pipeline = resnet()
    changed = pipeline.formed({0: WireForm(4, keep=(0, 3, 5))}).copied()
    with torch.no_grad():
        for tensor in changed.named_tensors().values():
            tensor.add_(1)
    tree = tree_from_bytes(tree_to_bytes(changed.state()))
    assert isinstance(tree, dict)
    again = pipeline.with_state(tree)
    assert (again.version, again.wires) == (1, changed.wires)
    assert torch.equal(again.run(cut_model.example), changed.run(cut_model.example))
    assert not torch.equal(again.run(cut_model.example), pipeline.run(cut_model.example))


def test_state_of_something_else_is_refused() -> None:
    _, pipeline = resnet()
    state = pipeline.state()
    other = CASES["lenet5"].cut_model()
    lenet = distribute(other, other.example, ["camera", "gateway", "cloud"], [1, 2])
    for bad, said in (
        (lenet.state(), "state of model"),
        ({}, "expected what Pipeline.state gives"),
        ({**state, "wires": lenet.state()["wires"]}, "send other tensors"),
    ):
        with pytest.raises(FringeError, match=said):
            pipeline.with_state(bad)
    cut = {**state["parts"], "cloud": {**state["parts"]["cloud"], "linear.bias": np.zeros(3, np.float32)}}
    with pytest.raises(ModelMismatch, match=r"linear\.bias"):
        pipeline.with_state({**state, "parts": cut})


def test_modules_that_do_not_fit_together_are_refused() -> None:
    _, pipeline = resnet()
    with pytest.raises(FringeError, match=r"the part of 'camera' fails on tensors \(4, 1, 8, 8\)"):
        pipeline.with_modules({"camera": pipeline.part("cloud").module})
    with pytest.raises(FringeError, match="machine 'phone'"):
        pipeline.with_modules({"phone": pipeline.part("cloud").module})
    with pytest.raises(FringeError, match="connection 2"):
        pipeline.formed({2: WireForm(8)})


def test_what_a_model_never_reads_is_on_no_machine() -> None:
    class Extra(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
            self.register_buffer("never", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self[2](self[1](self[0](x)))
            return out

    pipeline = distribute(Extra(), torch.zeros(2, 4), ["a", "b"], ["0"])
    assert pipeline.unused == ("never",)


def test_gradients_of_the_whole_reach_every_part_through_rounded_connections() -> None:
    cut_model, pipeline = resnet()
    pipeline = pipeline.formed({0: WireForm(4), 1: WireForm(4)})
    pipeline.forward(cut_model.example).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pipeline.part("camera").module.parameters())


def test_a_pipeline_runs_in_evaluation_and_leaves_modes_as_they_were() -> None:
    cut_model, pipeline = resnet()
    for part in pipeline.parts:
        part.module.train()
    before = pipeline.state()
    out = pipeline.run(cut_model.example)
    assert torch.equal(out, in_evaluation(cut_model, cut_model.example))
    assert all(part.module.training for part in pipeline.parts)
    assert tree_to_bytes(pipeline.state()) == tree_to_bytes(before)


def test_a_model_of_double_precision_is_told_what_to_type() -> None:
    model = make_model("mlp", input_shape=(4,), num_classes=2, seed=0).double()
    with pytest.raises(FringeError, match=r"cast the model with model\.float\(\)"):
        distribute(model, torch.zeros(2, 4, dtype=torch.float64), ["a", "b"], [1])


def test_strides_of_a_caller_do_not_change_a_bit() -> None:
    """An axis of one added by `[:, None]` has a stride that torch takes for channels last."""
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)).eval()
    pictures = np.random.default_rng(0).random((4, 8, 8), np.float32)
    odd, usual = torch.from_numpy(pictures[:, None]), torch.from_numpy(pictures.reshape(4, 1, 8, 8))
    assert odd.stride() != usual.stride()
    for example in (odd, usual):
        found = distribute(model, example, ["a", "b"], ["1"])
        with torch.no_grad():
            assert torch.equal(found.run(odd), model(usual))
        assert torch.equal(found.run(odd), found.run(usual))
        sent: tuple[Any, ...] = (usual.numpy(),)
        for part in found.parts:
            sent = part.step(sent)
        assert np.array_equal(sent[0], found.run(odd).numpy())
