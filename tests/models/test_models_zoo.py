"""The models are those of the literature: sizes counted, shapes tried, nothing sees the future."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flower_edge.errors import ConfigError
from flower_edge.models import MODELS, NumpyMLP, make_model

torch = pytest.importorskip("torch", reason="these models need torch")
from flower_edge.models.zoo_torch import ZOO  # noqa: E402


def parameters(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "input_shape", "num_classes", "count"),
    [
        # 156 + 2,416 + 48,120 + 10,164 + 850
        ("lenet5", (1, 32, 32), 10, 61_706),
        ("lenet5", (1, 28, 28), 10, 61_706),
        ("logistic", (1, 28, 28), 10, 7_850),
        ("mlp", (1, 8, 8), 10, 64 * 64 + 64 + 64 * 10 + 10),
        # 160 + 4,640 + 32 * 2 * 2 * 10 + 10
        ("cnn", (1, 8, 8), 10, 6_090),
        ("cnn", (3, 32, 32), 10, 448 + 4_640 + 20_490),
        # stem 72 + 16; blocks 1,184 and 3,680 and 14,528; linear 330
        ("resnet", (1, 8, 8), 10, 88 + 1_184 + 3_680 + 14_528 + 330),
        # tables 2,048 + 2,048; blocks 49,984 each; norm 128; linear 2,080
        ("char-transformer", (32,), 32, 4_096 + 2 * 49_984 + 128 + 2_080),
    ],
)
def test_models_have_the_parameters_one_counts_by_hand(
    name: str, input_shape: tuple[int, ...], num_classes: int, count: int
) -> None:
    assert parameters(make_model(name, input_shape=input_shape, num_classes=num_classes, seed=0)) == count


def test_the_two_hidden_layer_net_of_federated_averaging_has_199210_parameters() -> None:
    options: dict[str, Any] = {"input_shape": (1, 28, 28), "num_classes": 10, "seed": 0, "hidden": (200, 200)}
    assert parameters(make_model("mlp", **options)) == 199_210
    ours = make_model("numpy-mlp", **options)
    assert isinstance(ours, NumpyMLP)
    assert ours.num_parameters == 199_210


@pytest.mark.parametrize("name", ["lenet5", "logistic", "mlp", "cnn", "resnet"])
@pytest.mark.parametrize("side", [8, 28, 32])
def test_picture_models_score_every_size_they_accept(name: str, side: int) -> None:
    if name == "lenet5" and side == 8:
        with pytest.raises(ConfigError, match=r"28 or more"):
            make_model(name, input_shape=(1, 8, 8), num_classes=10, seed=0)
        return
    model = make_model(name, input_shape=(1, side, side), num_classes=7, seed=0)
    assert model(torch.zeros(3, 1, side, side)).shape == (3, 7)  # type: ignore[operator]


def test_every_torch_model_is_a_chain_that_can_be_cut_anywhere() -> None:
    shapes = {"lenet5": (1, 28, 28), "char-transformer": (12,)}
    for name in ZOO:
        shape = shapes.get(name, (1, 8, 8))
        model: Any = make_model(name, input_shape=shape, num_classes=10, seed=0)
        model.eval()
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(0, 10, (2, 12)) if len(shape) == 1 else torch.rand(2, *shape, generator=generator)
        with torch.no_grad():
            for cut in range(len(model) + 1):
                assert torch.equal(model[cut:](model[:cut](x)), model(x))


def test_no_position_of_the_transformer_sees_a_later_one() -> None:
    model: Any = make_model("char-transformer", input_shape=(12,), num_classes=32, seed=0)
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.integers(0, 32, (4, 12)))
    for place in range(12):
        changed = x.clone()
        changed[:, place] = (changed[:, place] + 1) % 32
        with torch.no_grad():
            difference = (model(changed) - model(x)).abs().amax(dim=(0, 2))
        assert (difference[:place] == 0).all()
        assert (difference[place:] > 0).all()


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("lenet", {}, "did you mean 'lenet5'"),
        ("vgg", {}, "use one of lenet5, logistic"),
        ("lenet5", {"input_shape": (1, 30, 30)}, r"use 28x28 or 32x32"),
        ("cnn", {"input_shape": (8, 8)}, "square pictures"),
        ("resnet", {"input_shape": (1, 4, 4)}, "side of 8 or more"),
        ("char-transformer", {}, r"reads \[context\] symbols"),
        ("char-transformer", {"input_shape": (8,), "width": 30}, "multiple of heads"),
        ("mlp", {"hiden": (3,)}, "it has hidden"),
        ("cnn", {"hidden": (3,)}, "it has none"),
        ("numpy-mlp", {"width": 3}, "it has hidden"),
        ("numpy-mlp", {"hidden": (0,)}, r"sizes = \[64, 0, 10\]"),
        ("mlp", {"hidden": (0,)}, r"sizes = \[64, 0, 10\]"),
        ("mlp", {"seed": -1}, "seed = -1"),
        ("numpy-mlp", {"seed": -1}, "seed = -1"),
        ("logistic", {"num_classes": 0}, "num_classes = 0"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_use(name: str, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_model(name, **{"input_shape": (1, 8, 8), "num_classes": 10, "seed": 0, **how})


def test_the_registry_names_every_torch_model_and_the_numpy_one() -> None:
    assert set(MODELS) == {*ZOO, "numpy-mlp"}
