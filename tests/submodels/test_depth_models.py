"""A model with exits computes what the model computes, and its first layers are a model as well."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from depth_toys import FIXED, PLAIN, Written, toy
from submodel_cases import Branching, images
from torch import nn

from flower_edge.errors import ConfigError, ModelMismatch, SplitError
from flower_edge.models import evaluate, get_arrays, make_model, set_arrays
from flower_edge.splitting.cutting_torch import CutModel
from flower_edge.submodels.channels_torch import width_groups
from flower_edge.submodels.choices import prefix
from flower_edge.submodels.depth_places_torch import exit_positions, good_positions
from flower_edge.submodels.depth_torch import DepthModel, depth_model
from flower_edge.submodels.groups import index_of
from flower_edge.submodels.narrow_torch import narrow
from flower_edge.submodels.narrowed import narrowed
from flower_edge.submodels.variants_torch import width_variants


def _same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", PLAIN)
def test_the_deepest_exit_is_the_model_bit_for_bit_its_gradients_and_buffers_too(name: str) -> None:
    model, deep, x = toy(name, predict="last")
    for training in (False, True):
        torch.manual_seed(1)
        expected = model.train(training)(x)
        torch.manual_seed(1)
        assert torch.equal(deep.train(training)(x), expected)
    model(x).square().sum().backward()
    deep(x).square().sum().backward()
    own = dict(deep.named_parameters())
    for key, parameter in model.named_parameters():
        assert (parameter.grad is None) == (own[key].grad is None), key
        assert parameter.grad is None or torch.equal(own[key].grad, parameter.grad), key
    assert all(torch.equal(deep.state_dict()[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", PLAIN)
def test_names_and_order_of_the_models_arrays_stay_and_those_of_the_heads_follow(name: str) -> None:
    model, deep, _ = toy(name)
    names, plain = list(deep.state_dict()), list(model.state_dict())
    assert names[: len(plain)] == plain
    assert all(n.startswith("exits.") for n in names[len(plain) :])
    assert [n for n, _ in deep.named_parameters()][: len(list(model.parameters()))] == [
        n for n, _ in model.named_parameters()
    ]


@pytest.mark.parametrize("name", PLAIN)
def test_each_depth_computes_what_the_whole_computes_at_its_exits_and_holds_nothing_else(name: str) -> None:
    _, deep, x = toy(name)
    scores = deep.eval().scores(x)
    depths = deep.depths()
    assert depths.last == deep.depth == len(scores)
    assert set(depths.names(0)) == set(deep.state_dict())
    for depth in range(1, deep.depth + 1):
        part = deep.at_depth(depth)
        assert not part.training
        assert tuple(part.state_dict()) == depths.names(depth)
        assert _same(part.scores(x), scores[:depth])
        torch.testing.assert_close(part(x), sum(scores[:depth]) / depth)
        part.predict = "last"
        assert torch.equal(part(x), scores[depth - 1])
        assert part.depths().held == depths.held[:depth]
        assert _same(part.at_depth(1).scores(x), scores[:1])


@pytest.mark.parametrize("name", PLAIN)
def test_all_exits_train_all_parameters_that_the_model_trains(name: str) -> None:
    model, deep, x = toy(name)
    model(x).square().sum().backward()
    for depth in range(1, deep.depth + 1):
        part = deep.at_depth(depth).train()
        sum((of.square().sum() for of in part.scores(x)), torch.zeros(())).backward()
        idle = {key for key, parameter in model.named_parameters() if parameter.grad is None}
        assert {key for key, parameter in part.named_parameters() if parameter.grad is None} <= idle


def test_the_model_it_is_made_of_is_left_as_it_was_and_shares_nothing() -> None:
    model, example, _ = PLAIN["resnet"][0]().train(), images(), None
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    attributes = [sorted(module.__dict__) for module in model.modules()]
    random = torch.get_rng_state()
    deep = depth_model(model, example, 2)
    assert torch.equal(torch.get_rng_state(), random)
    deep.train()(example).sum().backward()
    with torch.no_grad():
        for parameter in deep.parameters():
            parameter.zero_()
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [sorted(module.__dict__) for module in model.modules()] == attributes


def test_a_shallow_model_keeps_no_array_of_the_whole_one_alive() -> None:
    model, deep, x = toy("resnet")
    gone = [weakref.ref(parameter) for parameter in (*model.parameters(), *deep.parameters())]
    part = deep.at_depth(1)
    del model, deep
    gc.collect()
    assert all(ref() is None for ref in gone)
    assert part(x).shape == (3, 5)


def test_tied_arrays_stay_tied_and_frozen_ones_frozen() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.other.weight = self.one.weight
            self.head = nn.Linear(4, 2)
            self.first.weight.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.other(torch.relu(self.one(torch.relu(self.first(x))))))
            return out

    deep = depth_model(Tied(), torch.randn(2, 4), ["first", "other"])
    for copied in (deep, deep.at_depth(2), copy.deepcopy(deep)):
        assert copied.get_submodule("other").weight is copied.get_submodule("one").weight
        assert not copied.get_submodule("first").weight.requires_grad


def test_arrays_go_round_and_copies_are_of_their_own() -> None:
    _, deep, x = toy("resnet")
    _, other, _ = toy("resnet")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    set_arrays(other, get_arrays(deep))
    assert _same(other.eval().scores(x), deep.eval().scores(x))
    with pytest.raises(ModelMismatch, match=r"block2\.conv1\.weight is missing"):
        set_arrays(deep, get_arrays(deep.at_depth(1)))
    twin = copy.deepcopy(deep)
    with torch.no_grad():
        twin.get_submodule("conv").weight.zero_()
    assert not _same(twin.scores(x), deep.scores(x))
    assert evaluate(deep.at_depth(1), x.numpy(), np.zeros(3, np.int64)).examples == 3


def test_the_first_arrays_of_heads_follow_from_the_seed() -> None:
    _, one, _ = toy("lenet5")
    _, same, _ = toy("lenet5")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    other = depth_model(PLAIN["lenet5"][0](), images(28), 3, seed=4)
    differ = [key for key, tensor in one.state_dict().items() if not torch.equal(tensor, other.state_dict()[key])]
    assert differ
    assert all(key.startswith("exits.") for key in differ)
    double = depth_model(PLAIN["lenet5"][0]().double(), images(28).double(), 2)
    assert {tensor.dtype for tensor in double.state_dict().values()} == {torch.float64}


@pytest.mark.parametrize(
    ("name", "how"), [*((name, "mean") for name in PLAIN if name != "lenet5"), ("mlp", "last"), ("written", "last")]
)
def test_width_and_depth_commute_and_heads_follow_the_channels_of_their_place(name: str, how: str) -> None:
    model, deep, x = toy(name, predict=how)
    fixed = FIXED.get(name, [])
    groups = width_groups(deep.eval(), x, fixed=fixed)
    plain = width_groups(model, x, fixed=fixed)
    assert groups.sizes == plain.sizes
    index = index_of(groups, prefix(groups, 0.5))
    small = narrow(deep, index).eval()
    for depth in range(1, deep.depth + 1):
        part = deep.at_depth(depth)
        own = {key: axes for key, axes in index.items() if key in part.state_dict()}
        one, other = small.at_depth(depth), narrow(part, own).eval()
        assert _same(one.scores(x), other.scores(x))
        third = narrowed(part, get_arrays(one)).eval()
        assert _same(one.scores(x), third.scores(x))
        assert {of.shape for of in one.scores(x)} == {of.shape for of in deep.scores(x)}
    wide, thin = width_variants(deep, groups, [1.0, 0.5], x)
    assert thin.parameters < wide.parameters
    assert deep.predict == how


def test_a_number_of_exits_spreads_them_by_flops() -> None:
    cut = CutModel.of(PLAIN["resnet"][0](), images())
    flops = [unit.forward_flops for unit in cut.profile().units]
    for number in range(1, 5):
        positions = exit_positions(cut, number)
        assert len(positions) == number - 1
        parts = [sum(flops[a:b]) for a, b in zip((0, *positions), (*positions, len(flops)), strict=True)]
        assert all(part > 0 for part in parts)
    assert [good_positions(cut)[p] for p in exit_positions(cut, 3)] == ["block1", "block2"]
    with pytest.raises(SplitError, match=r"can have 1 to 5 with layers between them.*block1"):
        exit_positions(cut, 6)


def test_an_exit_is_named_by_its_unit_its_module_or_its_position() -> None:
    model, example = PLAIN["resnet"][0](), images()
    by = [depth_model(model, example, [place]) for place in ("block1", "block1.relu#2", 11)]
    assert [deep.exit_names for deep in by] == [("block1", "output")] * 3
    order = depth_model(model, example, ["block2", "conv"])
    assert order.exit_names == ("conv", "block2", "output")  # the shallowest first, however they are written


@pytest.mark.parametrize(
    ("exits", "says"),
    [
        (["block1.conv2"], "2 tensors are live there"),
        (["block9"], "no unit 'block9'; near it: block"),
        (["linear"], "own output"),
        ([0], "nothing is trained before it"),
        ([-1], "a position from 1 to 31"),
        ([True], "a position from 1 to 31"),
        (["block1", 11], "are one place"),
        ("block1", "a list of names"),
        (True, "a list of names"),
        (0, "can have 1 to 5"),
        (2.5, "a number of exits"),
    ],
)
def test_a_place_that_cannot_be_an_exit_is_said_with_those_that_can(exits: Any, says: str) -> None:
    with pytest.raises(SplitError, match=says):
        depth_model(PLAIN["resnet"][0](), images(), exits)


def test_where_no_classifier_leads_from_is_said() -> None:
    with pytest.raises(SplitError, match=r"no classifier leads from \[4, 8\] to \[3\]; exits can be at patch, mean"):
        depth_model(PLAIN["patches"][0](), images(), ["add"])


def test_what_cannot_be_traced_is_named_and_can_be_given_as_blocks() -> None:
    x = torch.ones(2, 4)
    with pytest.raises(SplitError, match="cannot trace Branching"):
        depth_model(Branching(), x, 2)

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.branching = nn.Linear(4, 4), Branching()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            if x.shape[0] == 0:
                return x
            out: torch.Tensor = self.branching(x)
            return out

    model = Chain()
    deep = depth_model(model, x, ["first"], blocks=["first", "branching"], predict="last")
    assert torch.equal(deep(x), model(x))


def test_a_model_that_uses_our_names_is_told_to_rename() -> None:
    class Taken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.last(self.scores(x))
            return out

    with pytest.raises(SplitError, match=r"has a 'scores' of its own.*rename it"):
        depth_model(Taken(), torch.zeros(2, 4), 1)


def test_depths_and_ways_to_predict_that_are_none_are_refused() -> None:
    _, deep, _ = toy("lenet5")
    for depth in (4, -1, 1.0):
        with pytest.raises(SplitError, match="this model has 3 exits"):
            deep.at_depth(depth)  # type: ignore[arg-type]
    with pytest.raises(SplitError, match="this model has 1 exits"):
        deep.at_depth(1).at_depth(2)
    with pytest.raises(ConfigError, match="has 3 exits"):
        deep.depths().names(4)
    with pytest.raises(SplitError, match="expected 'mean'"):
        deep.predict = "best"  # type: ignore[assignment]


def test_an_array_that_nothing_uses_is_the_deepest_ones_and_constants_go_along() -> None:
    deep = depth_model(Written(), torch.randn(3, 6), ["body.0", "mul"])
    assert not any("spare" in key or key == "unused" for key in deep.at_depth(2).state_dict())
    assert {"spare.weight", "spare.bias", "unused"} <= set(deep.state_dict())
    assert isinstance(deep.at_depth(2), DepthModel)
    assert deep.at_depth(2).scale == 2.0
    assert not hasattr(deep.at_depth(1), "scale")
    assert "exits at body_0, mul" in repr(deep.at_depth(2))


def test_one_exit_is_the_model_alone() -> None:
    model = make_model("lenet5", input_shape=(1, 28, 28), num_classes=5, seed=0)
    deep = depth_model(model, images(28), 1)
    assert list(deep.state_dict()) == list(model.state_dict())
    assert torch.equal(deep(images(28)), model(images(28)))
