"""Exits learn from the targets and from each other; with one exit it is plain training."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from depth_toys import PLAIN, toy
from hypothesis import given, settings
from hypothesis import strategies as st
from submodel_cases import images

from flower_edge.errors import ConfigError, DataError
from flower_edge.models import get_arrays, train
from flower_edge.submodels.channels_torch import width_groups
from flower_edge.submodels.choices import prefix
from flower_edge.submodels.depth_torch import depth_model
from flower_edge.submodels.depth_training_torch import distill_weight, exits_loss, train_exits
from flower_edge.submodels.groups import index_of
from flower_edge.submodels.narrow_torch import narrow

X = np.random.default_rng(4).normal(size=(14, 6)).astype(np.float32)
Y = np.arange(14) % 5


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("how", [{}, {"momentum": 0.9}, {"proximal": 0.3}])
@pytest.mark.parametrize("name", ["lenet5", "mlp"])
def test_with_one_exit_it_is_plain_training_bit_for_bit(name: str, how: dict[str, float]) -> None:
    model = PLAIN[name][0]()
    x = X if name == "mlp" else np.random.default_rng(4).normal(size=(14, 1, 28, 28)).astype(np.float32)
    deep = depth_model(model, torch.tensor(x[:2]), 1)
    plain = train(model, x, Y, steps=4, batch_size=5, seed=3, **how)
    ours = train_exits(deep, x, Y, steps=4, batch_size=5, seed=3, **how)
    assert _same(get_arrays(model), get_arrays(deep))
    assert (ours.loss, ours.steps, ours.examples) == (plain.loss, plain.steps, plain.examples)
    assert _same(dict(ours.velocity), dict(plain.velocity))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(2, 4), st.floats(0.0, 3.0, allow_subnormal=False), st.booleans()
)
def test_the_loss_is_the_equation(exits: int, batch: int, classes: int, distill: float, sequence: bool) -> None:
    rng = np.random.default_rng([exits, batch, classes])
    shape = (batch, 3) if sequence else (batch,)
    scores = rng.normal(size=(exits, *shape, classes))
    targets = rng.integers(0, classes, shape)
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    right = np.take_along_axis(p, np.broadcast_to(targets[None, ..., None], (exits, *shape, 1)), -1)
    wanted = -np.log(right).reshape(exits, -1).mean(1).sum()
    for i in range(exits):
        for j in range(exits):
            if i != j:
                wanted += distill / (exits - 1) * (p[j] * np.log(p[j] / p[i])).sum(-1).mean()
    found = exits_loss([torch.tensor(of) for of in scores], torch.tensor(targets), distill)
    assert math.isclose(float(found), wanted, rel_tol=1e-9)


def test_an_exit_that_is_learnt_from_is_not_moved() -> None:
    one, other = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    y = torch.tensor([0, 1, 2, 0])
    taught = torch.autograd.grad(exits_loss([one, other], y, 0.7), one)[0]
    fixed = torch.autograd.grad(exits_loss([one, other.detach()], y, 0.7), one)[0]
    torch.testing.assert_close(taught, fixed)
    apart = torch.autograd.grad(exits_loss([one, other], y, 0.0), one)[0]
    assert not torch.allclose(taught, apart)


def test_exits_learn_and_steps_in_several_calls_are_the_same() -> None:
    _, deep, _ = toy("mlp")
    again = copy.deepcopy(deep)
    loss = train_exits(deep, X, Y, steps=1, batch_size=14, lr=0.1).loss
    done = train_exits(deep, X, Y, steps=60, batch_size=5, lr=0.1, momentum=0.5, first_step=1)
    assert done.loss < loss
    train_exits(again, X, Y, steps=1, batch_size=14, lr=0.1)
    first = train_exits(again, X, Y, steps=25, batch_size=5, lr=0.1, momentum=0.5, first_step=1)
    train_exits(again, X, Y, steps=35, batch_size=5, lr=0.1, momentum=0.5, first_step=26, velocity=first.velocity)
    assert _same(get_arrays(deep), get_arrays(again))


def test_narrow_and_shallow_models_train() -> None:
    _, deep, x = toy("resnet")
    groups = width_groups(deep, x)
    small = narrow(deep, index_of(groups, prefix(groups, 0.5))).at_depth(2)
    before = get_arrays(small)
    train_exits(small, images().numpy(), np.array([0, 1, 2]), steps=2, batch_size=3)
    after = get_arrays(small)
    assert all(not np.array_equal(before[key], after[key]) for key in before if "weight" in key)


def test_the_weight_grows_and_stays() -> None:
    weights = [distill_weight(round, 10, 2.0) for round in range(1, 15)]
    assert weights == sorted(weights)
    assert weights[10:] == [2.0] * 4
    assert distill_weight(1, 0) == 1.0
    with pytest.raises(ConfigError, match="rounds count from 1"):
        distill_weight(0, 5)


def test_what_cannot_be_trained_is_said() -> None:
    model, deep, _ = toy("mlp")
    with pytest.raises(ConfigError, match=r"Sequential has no exits; .*depth_model\(model, example, exits\)"):
        train_exits(model, X, Y, steps=1)  # type: ignore[arg-type]
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match=r"distill = .*0 \(off\) or more"):
            train_exits(deep, X, Y, steps=1, distill=weight)
    with pytest.raises(ConfigError, match="no scores"):
        exits_loss([], torch.tensor([0]))
    with pytest.raises(DataError, match=r"score \[2\] targets, 1 came"):
        exits_loss([torch.zeros(2, 3)], torch.tensor([0]))
