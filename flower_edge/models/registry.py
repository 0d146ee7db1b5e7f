"""Models by name, with or without torch, and one way to use both kinds.

It only forwards: to `numpy_mlp` for a `NumpyMLP`, to the torch files for the rest, which it imports when called.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from . import numpy_mlp
from .numpy_mlp import NumpyMLP
from .results import EvalResult, TrainResult

if TYPE_CHECKING:
    from .zoo_torch import Module

#: What `make_model` gives.
Model: TypeAlias = "NumpyMLP | Module"
MODELS = ("lenet5", "logistic", "mlp", "cnn", "resnet", "char-transformer", "numpy-mlp")


def make_model(name: str, *, input_shape: Sequence[int], num_classes: int, seed: int, **options: Any) -> Model:
    """A model by name, with initial parameters that follow from `seed` and nothing else.

    Args:
        name: one of `MODELS`.
        input_shape: of one sample, `Dataset.input_shape`.
        num_classes: `Dataset.num_classes`.
        seed: initial parameters.
        options: "mlp" and "numpy-mlp" take hidden=(64,), "char-transformer" width=64, heads=4 and blocks=2.

    Raises:
        ConfigError: an unknown name or option, a shape the model cannot take, or torch is needed and not installed.

    >>> model = make_model("numpy-mlp", input_shape=(1, 8, 8), num_classes=10, seed=0)
    >>> sum(array.size for array in get_arrays(model).values())
    4810
    """
    if name == "numpy-mlp":
        hidden = options.pop("hidden", (64,))
        if options:
            raise ConfigError(f"model 'numpy-mlp' has no option {', '.join(map(repr, sorted(options)))}; it has hidden")
        return NumpyMLP([math.prod(input_shape), *hidden, num_classes], seed)
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(MODELS)}"
        raise ConfigError(f"unknown model {name!r}; {hint}")
    try:
        from . import zoo_torch
    except ImportError as error:
        raise ConfigError(
            f"model {name!r} needs torch, which is not installed; type: pip install 'flower-edge[torch]', "
            "or use 'numpy-mlp'"
        ) from error
    return zoo_torch.make_model(name, input_shape=input_shape, num_classes=num_classes, seed=seed, **options)


def get_arrays(model: Model) -> dict[str, NDArray[Any]]:
    """Copies of all parameters and buffers, by name."""
    if isinstance(model, NumpyMLP):
        return model.arrays()
    from . import train_torch

    return train_torch.get_arrays(model)


def set_arrays(model: Model, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Take over all parameters and buffers.

    Raises:
        ModelMismatch: other names or shapes than those of `get_arrays`.
    """
    if isinstance(model, NumpyMLP):
        model.load(arrays)
        return
    from . import train_torch

    train_torch.set_arrays(model, arrays)


def train(model: Model, x: NDArray[Any], y: NDArray[np.int64], **how: Any) -> TrainResult:
    """Train in place; `how` and errors as `train_torch.train`: steps or epochs, batch_size, lr, seed, and so on.

    >>> x, y = np.eye(2, dtype=np.float32), np.array([0, 1])
    >>> model = make_model("numpy-mlp", input_shape=(2,), num_classes=2, seed=0, hidden=())
    >>> train(model, x, y, steps=50, batch_size=2, lr=1.0).examples
    100
    >>> evaluate(model, x, y).accuracy
    1.0
    """
    if isinstance(model, NumpyMLP):
        return numpy_mlp.train(model, x, y, **how)
    from . import train_torch

    return train_torch.train(model, x, y, **how)


def evaluate(model: Model, x: NDArray[Any], y: NDArray[np.int64], *, batch_size: int = 256) -> EvalResult:
    """Mean loss and accuracy; as `train_torch.evaluate`."""
    if isinstance(model, NumpyMLP):
        return numpy_mlp.evaluate(model, x, y, batch_size=batch_size)
    from . import train_torch

    return train_torch.evaluate(model, x, y, batch_size=batch_size)
