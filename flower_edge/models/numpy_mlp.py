"""A multi-layer perceptron in NumPy alone: for devices without torch, and for tests that should not wait for it.

ReLU between layers, softmax cross entropy at the end, SGD. Array names, initial distribution and update rule are
those of the torch model "mlp", so the two can take each other's arrays; the numbers differ by rounding. With the hinge
loss at the end and one layer it is a linear support vector machine: the rows of W[0] are its hyperplanes.

Letters, [batch, units] unless said otherwise:
    a[l]      input of layer l, a[0] the samples
    z         scores of the last layer, [batch, classes]
    W[l]      weight of layer l, [units out, units in]
    delta     gradient of the mean loss by the scores of a layer

Source of the hinge loss of several classes: Crammer, Singer, "On the algorithmic implementation of multiclass
kernel-based vector machines", JMLR 2001.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .classes import class_factors
from .matching import check_arrays
from .results import EvalResult, TrainResult, mean_loss
from .schedule import check_rates, make_schedule

Array = NDArray[np.float32]
#: What is made small: cross entropy after a softmax, or by how much another class comes within 1 of the right one.
LossName = Literal["cross-entropy", "hinge"]


class NumpyMLP:
    """Layers of `sizes` units, float32; sizes = [inputs, classes] is logistic regression.

    Args:
        sizes: units per layer, inputs first, classes last.
        seed: initial weights and biases, uniform within 1 / sqrt(inputs of the layer).

    Raises:
        ConfigError: fewer than two sizes, one below 1, or a negative seed.

    >>> model = NumpyMLP([64, 32, 10], seed=0)
    >>> model.num_parameters, list(model.arrays())
    (2410, ['linear0.weight', 'linear0.bias', 'linear1.weight', 'linear1.bias'])
    """

    def __init__(self, sizes: Sequence[int], seed: int = 0) -> None:
        if len(sizes) < 2 or min(sizes) < 1:
            raise ConfigError(
                f"sizes = {list(sizes)}; give inputs, hidden layers and classes, for example [64, 32, 10]"
            )
        if seed < 0:
            raise ConfigError(f"seed = {seed}; use 0 or more")
        self.sizes = tuple(int(size) for size in sizes)
        rng = np.random.default_rng(seed)
        self._arrays: dict[str, Array] = {}
        for layer, (before, after) in enumerate(pairwise(self.sizes)):
            bound = before**-0.5
            self._arrays[f"linear{layer}.weight"] = rng.uniform(-bound, bound, (after, before)).astype(np.float32)
            self._arrays[f"linear{layer}.bias"] = rng.uniform(-bound, bound, after).astype(np.float32)

    @property
    def num_parameters(self) -> int:
        return sum(array.size for array in self._arrays.values())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all parameters: weights float32 [units out, units in], biases float32 [units out]."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over parameters; they are cast to float32.

        Raises:
            ModelMismatch: other names or shapes than those of `arrays()`.
        """
        check_arrays(arrays, self._shapes(), f"a NumpyMLP of sizes {list(self.sizes)}")
        self._arrays = {name: np.array(arrays[name], dtype=np.float32) for name in self._arrays}

    def scores(self, x: NDArray[Any]) -> Array:
        """Scores before the softmax, float32 [samples, classes]."""
        return self._forward(self._flat(x))[-1]

    def loss_and_gradients(
        self,
        x: NDArray[Any],
        y: NDArray[np.int64],
        factors: NDArray[np.float32] | None = None,
        loss: LossName = "cross-entropy",
    ) -> tuple[float, dict[str, Array]]:
        """Mean loss of one batch, and its derivative by every parameter.

        Args:
            x: float [samples, ...].
            y: int64 [samples].
            factors: float32 [classes], what scores are multiplied by before the loss: `class_factors`.
            loss: cross entropy in nats, or the hinge loss. Where that has a kink, one of its subgradients is given.

        >>> model = NumpyMLP([2, 2])
        >>> model.load({"linear0.weight": np.eye(2), "linear0.bias": np.zeros(2)})
        >>> loss, gradients = model.loss_and_gradients(np.array([[0.25, 0.0]]), np.array([0]), loss="hinge")
        >>> loss, gradients["linear0.bias"].tolist()
        (0.75, [-1.0, 1.0])
        """
        with np.errstate(over="ignore", invalid="ignore"):  # a diverging run ends in nan, as in torch
            a = self._forward(self._flat(x))
            z = a.pop()
            each, delta = _LOSSES[loss](z if factors is None else z * factors, y)
            if factors is not None:
                delta *= factors
            delta /= np.float32(len(y))
            gradients: dict[str, Array] = {}
            for layer in reversed(range(len(a))):
                gradients[f"linear{layer}.weight"] = delta.T @ a[layer]
                gradients[f"linear{layer}.bias"] = delta.sum(axis=0)
                if layer:
                    delta = (delta @ self._arrays[f"linear{layer}.weight"]) * (a[layer] > 0)
            return float(each.mean()), gradients

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self._arrays.items()}

    def _flat(self, x: NDArray[Any]) -> Array:
        flat = np.asarray(x, dtype=np.float32).reshape(len(x), -1)
        if flat.shape[1] != self.sizes[0]:
            raise DataError(
                f"samples of shape {x.shape[1:]} have {flat.shape[1]} inputs; the model has {self.sizes[0]}"
            )
        return flat

    def _forward(self, flat: Array) -> list[Array]:
        """a[0] .. a[last] and then z."""
        steps = [flat]
        last = len(self.sizes) - 2
        for layer in range(last + 1):
            z = steps[-1] @ self._arrays[f"linear{layer}.weight"].T + self._arrays[f"linear{layer}.bias"]
            steps.append(z if layer == last else np.maximum(z, np.float32(0)))
        return steps

    def _step(self, gradients: Mapping[str, Array], velocity: dict[str, Array], lr: float, momentum: float) -> None:
        """v <- momentum v + g;  w <- w - lr v. Updates `velocity` in place."""
        for name, gradient in gradients.items():
            if momentum:
                velocity[name] = np.float32(momentum) * velocity[name] + gradient
                gradient = velocity[name]
            self._arrays[name] = self._arrays[name] - np.float32(lr) * gradient


def _log_softmax(z: Array) -> Array:
    shifted = z - z.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _cross_entropy(z: Array, y: NDArray[np.int64]) -> tuple[Array, Array]:
    """Loss of each sample, and its derivative by the scores."""
    log_p, rows = _log_softmax(z), np.arange(len(y))
    delta = np.exp(log_p)
    delta[rows, y] -= 1
    return -log_p[rows, y], delta


def _hinge(z: Array, y: NDArray[np.int64]) -> tuple[Array, Array]:
    """Loss of each sample, and a subgradient of it by the scores: only who is within the margin pulls."""
    rows = np.arange(len(y))
    margin = z - z[rows, y][:, None] + np.float32(1)
    margin[rows, y] = 0
    rival = margin.argmax(axis=1)
    each = margin[rows, rival]
    pulls = (each > 0).astype(np.float32)
    delta = np.zeros_like(z)
    delta[rows, rival] += pulls
    delta[rows, y] -= pulls
    return each, delta


_LOSSES = {"cross-entropy": _cross_entropy, "hinge": _hinge}


def train(
    model: NumpyMLP,
    x: NDArray[Any],
    y: NDArray[np.int64],
    *,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int = 32,
    lr: float = 0.1,
    seed: int = 0,
    momentum: float = 0.0,
    proximal: float = 0.0,
    first_step: int = 0,
    velocity: Mapping[str, NDArray[Any]] | None = None,
    anchor: Mapping[str, NDArray[Any]] | None = None,
    classes: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    others: float = 0.0,
    weight_decay: float = 0.0,
    loss: LossName = "cross-entropy",
) -> TrainResult:
    """Train a `NumpyMLP` in place; arguments, law and errors as `train_torch.train`, for y of [samples].

    With `loss="hinge"` and one layer, `weight_decay` is what a support vector machine calls 1 / (C samples).

    Raises:
        ConfigError: another loss, too.
    """
    check_rates(lr, momentum, proximal, weight_decay)
    _check_loss(loss)
    _check_targets(model, y)
    schedule = make_schedule(x, y, steps=steps, epochs=epochs, batch_size=batch_size, seed=seed, first_step=first_step)
    shapes = model._shapes()
    v: dict[str, Array] = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()} if momentum else {}
    if momentum and velocity is not None:
        check_arrays(velocity, shapes, "the velocity of this model")
        v = {name: np.array(velocity[name], dtype=np.float32) for name in shapes}
    if anchor is not None:
        check_arrays(anchor, shapes, "the anchor of the proximal term", extra_ok=True)
    fixed = model.arrays() if anchor is None else anchor
    factors = None if classes is None else class_factors(classes, model.sizes[-1], others, y)

    losses, sizes = [], []
    for _, batch in schedule:
        mean, gradients = model.loss_and_gradients(x[batch], y[batch], factors, loss)
        if proximal:
            for name in gradients:
                gradients[name] = gradients[name] + np.float32(proximal) * (model._arrays[name] - fixed[name])
        if weight_decay:
            for name in gradients:
                gradients[name] = gradients[name] + np.float32(weight_decay) * model._arrays[name]
        model._step(gradients, v, lr, momentum)
        losses.append(mean)
        sizes.append(len(batch))
    return TrainResult(mean_loss(losses, sizes) if losses else 0.0, len(losses), sum(sizes), v)


def evaluate(
    model: NumpyMLP,
    x: NDArray[Any],
    y: NDArray[np.int64],
    *,
    batch_size: int = 1024,
    loss: LossName = "cross-entropy",
) -> EvalResult:
    """Mean loss and accuracy of a `NumpyMLP`; as `train_torch.evaluate`, for y of [samples]."""
    _check_loss(loss)
    if len(x) != len(y) or not len(x):
        raise DataError(f"{len(x)} samples and {len(y)} targets; give one or more of each")
    if batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size}; use 1 or more")
    _check_targets(model, y)
    total, right = 0.0, 0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(x), batch_size):
            some = y[start : start + batch_size]
            z = model.scores(x[start : start + batch_size])
            total += float(_LOSSES[loss](z, some)[0].sum(dtype=np.float64))
            right += int((z.argmax(axis=1) == some).sum())
    return EvalResult(total / len(y), right / len(y), len(x))


def _check_loss(loss: str) -> None:
    if loss not in _LOSSES:
        raise ConfigError(f"loss = {loss!r}: expected one of {', '.join(_LOSSES)}")


def _check_targets(model: NumpyMLP, y: NDArray[Any]) -> None:
    if y.ndim != 1:
        raise DataError(f"targets of shape {y.shape}; a NumpyMLP predicts one class per sample, use 'char-transformer'")
    if y.size and not 0 <= y.min() <= y.max() < model.sizes[-1]:
        raise DataError(f"targets {y.min()}..{y.max()}; the model has classes 0..{model.sizes[-1] - 1}")
