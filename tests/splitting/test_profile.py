"""The profile of units adds up to what the whole model costs, and can be written and read."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from odd_models import Dropping, Kinked, TwoSkips
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flower_edge.errors import SplitError
from flower_edge.models.zoo_torch import make_model
from flower_edge.splitting.cutting_torch import CutModel
from flower_edge.splitting.profile import CutProfile, ModelProfile, UnitProfile
from flower_edge.splitting.profile_torch import measure

INPUTS = {
    "lenet5": (1, 28, 28),
    "logistic": (1, 8, 8),
    "mlp": (1, 8, 8),
    "cnn": (1, 8, 8),
    "resnet": (1, 8, 8),
    "char-transformer": (6,),
}


def zoo(name: str) -> CutModel:
    shape = INPUTS[name]
    x = torch.randint(0, 10, (4, *shape)) if name == "char-transformer" else torch.randn(4, *shape)
    return CutModel.of(make_model(name, input_shape=shape, num_classes=10, seed=0), x)


@pytest.mark.parametrize("name", INPUTS)
def test_flops_of_the_units_are_those_of_a_training_step_of_the_whole(name: str) -> None:
    cut = zoo(name)
    profile, last = cut.profile(), len(cut.units)
    with FlopCounterMode(display=False) as forward:
        output = cut.model(cut.example)
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    assert 4 * sum(unit.forward_flops for unit in profile.units) == forward.get_total_flops()
    assert 4 * sum(unit.backward_flops for unit in profile.units) == backward.get_total_flops()
    assert 4 * profile.train_flops(0, last) == forward.get_total_flops() + backward.get_total_flops()


@pytest.mark.parametrize("name", INPUTS)
def test_state_of_the_units_is_the_models(name: str) -> None:
    cut = zoo(name)
    profile = cut.profile()
    parameters = list(cut.model.parameters())
    buffers = list(cut.model.buffers())
    assert sum(unit.parameters for unit in profile.units) == sum(p.numel() for p in parameters)
    assert sum(unit.buffers for unit in profile.units) == sum(b.numel() for b in buffers)
    assert profile.state_bytes(0, profile.last) == sum(a.numel() * a.element_size() for a in [*parameters, *buffers])


def test_a_linear_unit_costs_what_one_counts_by_hand() -> None:
    cut = CutModel.of(nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5)), torch.randn(3, 10))
    units = cut.profile().units
    # [1, m] times [m, n]: 2 m n. Backward: once for the weights, once for the input, which the first leaves out.
    assert [unit.forward_flops for unit in units] == pytest.approx([400, 0, 200])
    assert [unit.backward_flops for unit in units] == pytest.approx([400, 0, 400])
    assert [unit.parameters for unit in units] == [220, 0, 105]
    assert [unit.state_bytes for unit in units] == [880, 0, 420]


def test_what_crosses_a_cut_is_every_live_tensor_and_back_every_gradient() -> None:
    cut = CutModel.of(Kinked(), torch.randn(4, 5))
    places = cut.profile().cuts
    assert places[0] == CutProfile(0, ((5,),), (False,), "input")
    assert places[-1] == CutProfile(len(cut.units), ((2,),), (True,), cut.units[-1])
    mixed = next(place for place in places if len(place.shapes) == 3)
    assert mixed.values == 15
    assert mixed.gradient_values == 5
    assert mixed.differentiable == (True, False, False)


def test_integers_at_the_input_get_no_gradient() -> None:
    places = zoo("char-transformer").cuts
    assert places[0].differentiable == (False,)
    assert places[1].differentiable == (True,)


def test_times_are_measured_when_asked_for_and_only_then() -> None:
    cut = zoo("cnn")
    assert all(math.isnan(unit.forward_s) and math.isnan(unit.backward_s) for unit in cut.profile().units)
    told: list[tuple[int, int]] = []
    timed = measure(cut, torch.randn(8, 1, 8, 8), timed_steps=2, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert timed.batch == 8
    assert all(0 < unit.forward_s < 10 for unit in timed.units)
    assert all(0 < unit.backward_s < 10 for unit in timed.units if unit.backward_flops)
    assert [unit.forward_flops for unit in timed.units] == [unit.forward_flops for unit in cut.profile().units]


@pytest.mark.parametrize("make", [TwoSkips, Dropping])
def test_measuring_moves_nothing(make: type[nn.Module]) -> None:
    cut = CutModel.of(make().eval(), torch.randn(4, 5))
    begun = {name: tensor.clone() for name, tensor in cut.model.state_dict().items()}
    random = torch.get_rng_state()
    measure(cut, cut.example, timed_steps=1)
    assert all(torch.equal(begun[name], tensor) for name, tensor in cut.model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert not any(module.training for module in cut.model.modules())
    assert all(parameter.grad is None for parameter in cut.model.parameters())


def test_arguments_out_of_range_are_refused_when_measuring() -> None:
    cut = CutModel.of(TwoSkips(), torch.randn(4, 5))
    with pytest.raises(SplitError, match="timed_steps = -1"):
        measure(cut, cut.example, timed_steps=-1)
    with pytest.raises(SplitError, match="1 sample or more"):
        measure(cut, torch.zeros(0, 5))


@given(st.data())
def test_a_profile_is_read_as_it_was_written(data: st.DataObject) -> None:
    number = st.floats(0, 1e15)
    names = data.draw(st.lists(st.text(max_size=5), max_size=4))
    units = tuple(
        UnitProfile(name, data.draw(number), data.draw(number), data.draw(number), data.draw(number), 3, 1, 16)
        for name in names
    )
    shape = st.lists(st.integers(1, 99), max_size=3).map(tuple)
    cuts = []
    for position in range(len(units) + 1):
        shapes = tuple(data.draw(st.lists(shape, min_size=1, max_size=3)))
        cuts.append(CutProfile(position, shapes, tuple(data.draw(st.booleans()) for _ in shapes), "x"))
    profile = ModelProfile(units, tuple(cuts), 7, "ab")
    assert ModelProfile.from_json(profile.to_json()) == profile


def test_a_measured_profile_is_read_as_it_was_written() -> None:
    profile = zoo("resnet").profile()
    # Times that were not measured are NaN, which equals nothing; as text they are alike.
    assert ModelProfile.from_json(profile.to_json()).to_json() == profile.to_json()
    assert ModelProfile.from_json(profile.to_json()).cuts == profile.cuts


def test_a_text_that_is_no_profile_is_refused() -> None:
    with pytest.raises(SplitError, match="not a model's profile"):
        ModelProfile.from_json('{"units": 3}')
    text = ModelProfile(
        (UnitProfile("a", 2.0, 1.0),), (CutProfile(0, (), ()), CutProfile(1, ((3,),), (True,)))
    ).to_json()
    for part, other in (("2.0", '"a"'), ("2.0", "-2.0"), ("[[3]]", '[["a"]]'), ("[[3]]", "[[-3]]"), ("[true]", "[]")):
        with pytest.raises(SplitError, match="not a model's profile"):
            ModelProfile.from_json(text.replace(part, other))
    with pytest.raises(SplitError, match="expected one at each position from 0 to 1"):
        ModelProfile((UnitProfile("a", 1, 1),), ())
