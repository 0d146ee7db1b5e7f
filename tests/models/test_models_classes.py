"""A loss that looks at a terminal's own classes only: others' rows stay, and both kinds of models agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flower_edge.errors import ConfigError, DataError
from flower_edge.models import NumpyMLP, get_arrays, set_arrays, train
from flower_edge.models.classes import class_factors
from flower_edge.models.train_torch import train as train_torch

X = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
Y = np.array([1, 3] * 12, np.int64)


class _Same(nn.Module):
    """A `NumpyMLP` in torch, with its names."""

    def __init__(self) -> None:
        super().__init__()
        self.linear0, self.linear1 = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear1(torch.relu(self.linear0(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_rows_of_other_classes_stay_bit_for_bit_and_its_own_move(kind: str) -> None:
    model: Any = NumpyMLP((5, 6, 4)) if kind == "numpy" else _Same()
    before = get_arrays(model)
    train(model, X, Y, epochs=2, batch_size=8, lr=0.1, momentum=0.9, classes=[1, 3])
    after = get_arrays(model)
    for name in ("linear1.weight", "linear1.bias"):
        moved = (after[name] != before[name]).reshape(4, -1).any(axis=1)
        assert moved.tolist() == [False, True, False, True]


@pytest.mark.parametrize("others", [0.0, 0.5])
def test_numpy_and_torch_learn_the_same(others: float) -> None:
    one, other = NumpyMLP((5, 6, 4)), _Same()
    set_arrays(other, one.arrays())
    losses = [
        train(model, X, Y, epochs=2, batch_size=8, lr=0.1, classes=np.unique(Y), others=others).loss
        for model in (one, other)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, array in get_arrays(other).items():
        np.testing.assert_allclose(one.arrays()[name], array, atol=1e-6)


def test_all_classes_or_the_whole_factor_are_the_plain_loss_bit_for_bit() -> None:
    for make in (lambda: NumpyMLP((5, 6, 4)), lambda: nn.Sequential(nn.Linear(5, 4))):
        models = []
        for classes, others in ((None, 0.0), ([0, 1, 2, 3], 0.0), ([1, 3], 1.0)):
            torch.manual_seed(0)
            models.append(make())
            train(models[-1], X, Y, epochs=1, batch_size=8, lr=0.1, classes=classes, others=others)
        first, *rest = map(get_arrays, models)
        assert all(np.array_equal(first[name], model[name]) for model in rest for name in first)


@pytest.mark.parametrize("classes", [[], [1, 1], [-1], [4], [0.5], [[1]], "13"])
def test_what_are_no_classes_is_refused(classes: Any) -> None:
    with pytest.raises(ConfigError, match="classes = "):
        class_factors(classes, 4)


@pytest.mark.parametrize("others", [-0.1, 1.1, float("nan")])
def test_what_is_no_factor_is_refused(others: float) -> None:
    with pytest.raises(ConfigError, match="others = "):
        class_factors([1], 4, others)


def test_with_half_the_force_rows_of_other_classes_move_less_than_with_all() -> None:
    moves = []
    for others in (0.0, 0.5, 1.0):
        model = NumpyMLP((5, 6, 4))
        before = model.arrays()["linear1.weight"][0]
        train(model, X, Y, steps=1, batch_size=24, lr=0.1, classes=[1, 3], others=others)
        moves.append(float(np.abs(model.arrays()["linear1.weight"][0] - before).sum()))
    assert 0.0 == moves[0] < moves[1] < moves[2]


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_a_target_of_no_such_class_is_refused(kind: str) -> None:
    model: Any = NumpyMLP((5, 6, 4)) if kind == "numpy" else _Same()
    with pytest.raises(DataError, match="targets of class 3"):
        train(model, X, Y, epochs=1, classes=[1, 2])


def test_a_loss_of_ones_own_has_to_mask_itself() -> None:
    with pytest.raises(ConfigError, match="loss_of"):
        train_torch(_Same(), X, Y, steps=1, classes=[1, 3], loss_of=lambda model, x, y: model(x).sum())
