"""Wherever a model is cut, its parts compute what it computes, bit for bit, forward and backward."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_models import (
    Averaging,
    Branching,
    Counting,
    Dropping,
    InPlace,
    Kinked,
    Lookup,
    Normed,
    Noting,
    Scaled,
    Sized,
    Strided,
    Switching,
    Tied,
    TwoSkips,
    Viewing,
)
from torch import nn

from flower_edge.models.zoo_torch import make_model
from flower_edge.splitting.cutting_torch import CutModel


def pictures(*shape: int) -> torch.Tensor:
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 10, (4, *shape), generator=torch.Generator().manual_seed(1))


def zoo(name: str, *shape: int) -> Callable[[], nn.Module]:
    return lambda: make_model(name, input_shape=shape, num_classes=10, seed=0)


MODELS: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
    "lenet5": (zoo("lenet5", 1, 28, 28), pictures(1, 28, 28)),
    "logistic": (zoo("logistic", 1, 8, 8), pictures(1, 8, 8)),
    "mlp": (zoo("mlp", 1, 8, 8), pictures(1, 8, 8)),
    "cnn": (zoo("cnn", 1, 8, 8), pictures(1, 8, 8)),
    "resnet": (zoo("resnet", 1, 8, 8), pictures(1, 8, 8)),
    "char-transformer": (zoo("char-transformer", 6), tokens(6)),
    "two skips": (TwoSkips, pictures(5)),
    "tied": (Tied, tokens(6)),
    "in place": (InPlace, pictures(5)),
    "dropout": (Dropping, pictures(5)),
    "branching": (Branching, pictures(5)),
    "switching": (Switching, pictures(5)),
    "scaled": (Scaled, pictures(5)),
    "counting": (Counting, pictures(5)),
    "viewing": (Viewing, pictures(3, 4)),
    "kinked": (Kinked, pictures(5)),
    "normed": (Normed, pictures(5)),
    "strided": (Strided, pictures(5)),
    "noting": (Noting, pictures(5)),
    "averaging": (lambda: nn.Sequential(nn.Linear(5, 5), Averaging(), nn.Linear(5, 2)), pictures(5)),
    "sized": (Sized, pictures(5)),
    "lookup": (Lookup, pictures(5)),
}


def made(name: str) -> tuple[CutModel, torch.Tensor]:
    torch.manual_seed(3)
    make, x = MODELS[name]
    return CutModel.of(make(), x), x


def travelled(tensor: torch.Tensor) -> torch.Tensor:
    """As it is after a wire: the same numbers, laid out anew."""
    return torch.from_numpy(np.ascontiguousarray(tensor.detach().numpy()).copy())


def step(cut: CutModel, positions: list[int], x: torch.Tensor, seed: int = 7) -> tuple[torch.Tensor, dict[str, Any]]:
    """Output and gradients of one training step with the model cut at all these positions."""
    begun = copy.deepcopy(cut.model.state_dict())
    bounds = [0, *positions, len(cut.units)]
    tensors: tuple[torch.Tensor, ...] = (x,)
    arrived, left = [], []
    for start, stop in pairwise(bounds):
        stage = cut.stage(start, stop).train()
        back = cut.cuts[start].differentiable
        tensors = tuple(travelled(t).requires_grad_(b) for t, b in zip(tensors, back, strict=True))
        arrived.append(tensors)
        with stage.seeded(seed, step=2):
            tensors = stage(*tensors)
        left.append(tensors)
    output = tensors[0]
    cut.model.zero_grad()
    weights = torch.linspace(-1, 1, output.numel()).reshape(output.shape)
    grads: tuple[torch.Tensor, ...] = (weights,)
    for number in range(len(left) - 1, -1, -1):
        outputs = [t for t, b in zip(left[number], cut.cuts[bounds[number + 1]].differentiable, strict=True) if b]
        if outputs:
            torch.autograd.backward(outputs, [travelled(g) for g in grads])
        grads = tuple(t.grad for t in arrived[number] if t.requires_grad)
    found = {f"grad {name}": None if p.grad is None else p.grad.clone() for name, p in cut.model.named_parameters()}
    found |= {name: tensor.clone() for name, tensor in cut.model.state_dict().items()}
    cut.model.load_state_dict(begun)
    return output.detach(), found


def assert_same(one: tuple[torch.Tensor, dict[str, Any]], other: tuple[torch.Tensor, dict[str, Any]]) -> None:
    assert torch.equal(one[0], other[0])
    assert one[1].keys() == other[1].keys()
    for name, tensor in one[1].items():
        assert (tensor is None) == (other[1][name] is None), name
        assert tensor is None or torch.equal(tensor, other[1][name]), name


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_as_one_stage_is_the_model_itself(name: str) -> None:
    cut, x = made(name)
    for training in (True, False):
        model, stage = cut.model.train(training), cut.stage(0, len(cut.units)).train(training)
        begun = copy.deepcopy(model.state_dict())
        torch.manual_seed(5)
        wanted = model(x.clone())
        after = copy.deepcopy(model.state_dict())
        model.load_state_dict(begun)
        torch.manual_seed(5)
        assert torch.equal(stage(x)[0], wanted)
        assert all(torch.equal(after[key], value) for key, value in model.state_dict().items())
        model.load_state_dict(begun)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_cut_anywhere_equals_the_step_of_the_whole(name: str) -> None:
    cut, x = made(name)
    whole = step(cut, [], x)
    for position in range(1, len(cut.units)):
        assert_same(step(cut, [position], x), whole)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_cut_everywhere_equals_the_step_of_the_whole(name: str) -> None:
    cut, x = made(name)
    assert_same(step(cut, list(range(1, len(cut.units))), x), step(cut, [], x))


@pytest.mark.parametrize("name", MODELS)
def test_each_array_belongs_to_one_unit_and_a_stage_has_its_units_arrays(name: str) -> None:
    cut, _ = made(name)
    last = len(cut.units)
    names = [cut.names(unit, unit + 1) for unit in range(last)]
    assert sorted(n for unit in names for n in unit) == sorted(cut.model.state_dict())
    assert cut.names(0, last) == tuple(cut.model.state_dict())
    for unit in range(last):
        held = cut.stage(unit, unit + 1).state_dict(keep_vars=True)
        assert set(held) <= set(names[unit])
        assert all(tensor is cut.model.state_dict(keep_vars=True)[key] for key, tensor in held.items())


@pytest.mark.parametrize("name", MODELS)
def test_cutting_leaves_the_model_and_the_random_state_alone(name: str) -> None:
    make, x = MODELS[name]
    model = make().eval()
    begun, kept, random = copy.deepcopy(model.state_dict()), x.clone(), torch.get_rng_state()
    CutModel.of(model, x).profile()
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(kept, x)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(begun[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_small_net_of_skips_is_exact_at_any_pair_of_cuts(data: st.DataObject) -> None:
    layers = data.draw(st.lists(st.sampled_from(["linear", "relu", "norm", "dropout", "skip"]), min_size=2, max_size=6))
    torch.manual_seed(0)
    cut = CutModel.of(nn.Sequential(*(_layer(kind) for kind in [*layers, "linear"])), pictures(5))
    positions = data.draw(st.lists(st.integers(0, len(cut.units)), max_size=2).map(sorted))
    assert_same(step(cut, positions, pictures(5)), step(cut, [], pictures(5)))


def _layer(kind: str) -> nn.Module:
    return {
        "linear": lambda: nn.Sequential(nn.Linear(5, 5), nn.ReLU(inplace=True)),
        "relu": nn.ReLU,
        "norm": lambda: nn.BatchNorm1d(5),
        "dropout": lambda: nn.Dropout(0.5),
        "skip": TwoSkips,
    }[kind]()


def test_tensors_can_be_cut_in_whatever_order_their_axes_lie() -> None:
    cut, _ = made("strided")
    assert {"transpose", "mixed", "transpose#2"} <= set(cut.units)


def test_a_number_that_stays_live_holds_its_stretch_together() -> None:
    assert made("sized")[0].units == ("one", "view", "last")


def test_a_submodule_that_replaces_a_buffer_is_one_unit() -> None:
    assert made("averaging")[0].units == ("0", "1", "2")


def test_nothing_of_tracing_stays_in_what_a_model_notes() -> None:
    model = Noting()
    CutModel.of(model, pictures(5)).profile()
    assert model.seen is None
    assert model.one[1].seen is None


def test_a_residual_block_can_be_cut_inside_with_the_skip_beside_it() -> None:
    cut, _ = made("resnet")
    inside = cut.cuts[cut.units.index("block2.conv1") + 1]
    assert inside.shapes == ((8, 8, 8), (16, 4, 4))
    assert inside.differentiable == (True, True)


def test_fewer_tensors_at_a_cut_mean_fewer_cuts() -> None:
    one = CutModel.of(MODELS["resnet"][0](), MODELS["resnet"][1], max_tensors=1)
    assert {len(place.shapes) for place in one.cuts} == {1}
    assert len(one.units) < len(made("resnet")[0].units)
    assert one.digest != made("resnet")[0].digest


def test_what_shares_a_parameter_is_never_separated() -> None:
    cut, _ = made("tied")
    assert {"embed.weight", "head.weight"} in [
        set(cut.names(unit, unit + 1)) & {"embed.weight", "head.weight"} for unit in range(len(cut.units))
    ]


def test_a_submodule_whose_control_flow_depends_on_data_is_one_unit() -> None:
    assert made("branching")[0].units == ("first", "middle", "last")


def test_a_submodule_that_evaluates_by_other_steps_than_it_trains_is_one_unit() -> None:
    assert "middle" in made("switching")[0].units


def test_no_cut_lies_where_a_later_step_writes_into_memory_that_is_shared() -> None:
    cut, _ = made("viewing")
    assert all(len(place.shapes) == 1 for place in cut.cuts)


def test_arrays_nothing_uses_belong_to_the_last_unit() -> None:
    class Spare(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
            self.spare = nn.Parameter(torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self[2](self[1](self[0](x)))

    cut = CutModel.of(Spare(), pictures(5))
    assert cut.names(2, 3) == ("spare", "2.weight", "2.bias")


def test_dropout_follows_seed_step_and_unit_and_nothing_else() -> None:
    cut, x = made("dropout")
    stage = cut.stage(0, len(cut.units)).train()

    def drawn(seed: int, step: int) -> torch.Tensor:
        with stage.seeded(seed, step):
            out: torch.Tensor = stage(x)[0]
        return out

    torch.manual_seed(1)
    one, after = drawn(1, 1), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(after, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(one, drawn(1, 1))
    assert not torch.equal(one, drawn(1, 2))
    assert not torch.equal(one, drawn(2, 1))
    assert not torch.equal(stage(x)[0], stage(x)[0])


def test_a_stage_in_evaluation_drops_nothing_and_writes_to_no_input() -> None:
    cut, x = made("dropout")
    stage = cut.stage(0, len(cut.units)).eval()
    kept = x.clone()
    assert torch.equal(stage(x)[0], stage(x)[0])
    assert torch.equal(kept, x)


def test_a_copy_of_a_stage_has_arrays_of_its_own_and_draws_alike() -> None:
    cut, x = made("dropout")
    stage = cut.stage(1, len(cut.units)).train()
    other = copy.deepcopy(stage)
    assert not {id(p) for p in other.parameters()} & {id(p) for p in cut.model.parameters()}
    inputs = cut.stage(0, 1)(x)
    with stage.seeded(1, 1), torch.no_grad():
        wanted = stage(*inputs)[0]
    with other.seeded(1, 1):
        assert torch.equal(other(*inputs)[0], wanted)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    with stage.seeded(1, 1):
        assert torch.equal(stage(*inputs)[0], wanted)
    assert not other.eval()(*inputs)[0].any()


def test_a_stage_takes_any_batch() -> None:
    cut, _ = made("resnet")
    x = torch.randn(9, 1, 8, 8)
    cut.model.eval()
    assert torch.equal(cut.stage(0, len(cut.units)).eval()(x)[0], cut.model(x))


def test_a_submodule_that_changes_gradients_by_a_hook_is_one_unit() -> None:
    inner = nn.Sequential(nn.Linear(5, 5), nn.ReLU())
    inner.register_full_backward_hook(lambda module, into, out: tuple(g if g is None else g * 0.5 for g in into))
    model = nn.Sequential(nn.Linear(5, 5), inner, nn.Linear(5, 2))
    assert CutModel.of(model, torch.randn(4, 5)).units == ("0", "1", "2")


def test_blocks_cut_a_model_that_cannot_be_traced() -> None:
    torch.manual_seed(3)
    x = pictures(5)
    cut = CutModel.of(Branching.Root(), x, blocks=["first", "middle", "last"])
    assert cut.units == ("first", "middle", "last")
    for position in (1, 2):
        assert_same(step(cut, [position], x), step(cut, [], x))


def test_the_digest_is_of_the_architecture_and_not_of_what_the_arrays_hold() -> None:
    torch.manual_seed(0)
    one = CutModel.of(TwoSkips(), pictures(5))
    other = CutModel.of(TwoSkips(), torch.randn(7, 5))
    assert one.digest == other.digest
    assert len(one.digest) == 64
    assert CutModel.of(TwoSkips().double(), pictures(5).double()).digest != one.digest
