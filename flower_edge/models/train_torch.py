"""Train and evaluate any torch classifier with plain SGD on NumPy data, reproducibly.

Two functions and no state: what a step sees follows from (seed, step) alone, see `schedule`. Nothing here knows
Flower, chooses devices or keeps optimisers between calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from ..errors import ConfigError, DataError
from .classes import class_factors
from .matching import check_arrays
from .results import EvalResult, TrainResult, mean_loss
from .schedule import check_rates, make_schedule
from .seeding_torch import seed_torch


def get_arrays(model: nn.Module) -> dict[str, NDArray[Any]]:
    """Copies of everything in the model's state: parameters and buffers, by name."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in model.state_dict().items()}


def set_arrays(model: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Take over everything in the model's state, cast to the model's own dtypes; whole numbers are rounded.

    Averaging turns counters, such as BatchNorm's, into fractions; they come back as counters.

    Raises:
        ModelMismatch: other names or shapes than those of `get_arrays`.
    """
    state = model.state_dict()
    check_arrays(arrays, {name: tuple(tensor.shape) for name, tensor in state.items()}, f"a {type(model).__name__}")
    with torch.no_grad():
        for name, tensor in state.items():
            array = np.asarray(arrays[name])
            if not tensor.is_floating_point() and array.dtype.kind == "f":
                array = np.rint(array)
            tensor.copy_(torch.tensor(array))


def train(
    model: nn.Module,
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
    loss_of: Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    classes: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    others: float = 0.0,
    weight_decay: float = 0.0,
) -> TrainResult:
    """Train in place, on the device the model is on: cross entropy or a loss of your own, SGD.

        v <- momentum v + gradient + proximal (w - anchor) + weight_decay w;  w <- w - lr v

    Law: N steps in one call equal the same N steps in several, bit for bit, on one machine with one number of threads:
    give every call the same seed, data and rates, `first_step` = steps made so far, the last result's `velocity`
    (with momentum) and the first call's `anchor` (with a proximal term). Dropout follows (seed, step) too, and torch's
    global random state is left as it was found.

    Args:
        model: gives scores [batch, classes], or [batch, context, classes] for sequences.
        x: [samples, ...]; floating point is cast to the model's dtype.
        y: int64 [samples] or [samples, context].
        steps: how many steps; or
        epochs: how many passes over the data. One of the two.
        batch_size: samples per step; the last step of an epoch may see fewer.
        lr: step size.
        seed: order of the samples.
        momentum: share of the last step that is kept, in [0, 1).
        proximal: mu of FedProx (Li et al., MLSys 2020), 0 is off.
        first_step: where in the endless sequence of batches this call starts.
        velocity: momentum to continue with; None starts at rest.
        anchor: where the proximal term pulls to, parameters by name (others are passed over); None: the parameters at
            the start of this call.
        loss_of: a mean over the batch of the model, its inputs and its targets; None: the cross entropy.
        classes: those that there are samples of, such as np.unique(y); the scores of all others are multiplied by
            `others` in the cross entropy. None: all count. Not beside `loss_of`.
        others: factor from 0 (HeteroFL) over 0.5 (FedRS) to 1, see `class_factors`.
        weight_decay: pull of all parameters, biases too, towards 0; 0 is off.

    Returns:
        Mean loss, steps, samples drawn, and the velocity after the last step.

    Raises:
        ConfigError: a number out of range, not exactly one of steps and epochs, or classes that are none.
        DataError: no samples, not as many targets as samples, or a target that is not among the classes.
        ModelMismatch: velocity or anchor that are not this model's.
    """
    check_rates(lr, momentum, proximal, weight_decay)
    if classes is not None and loss_of is not None:
        raise ConfigError("classes= is for the cross entropy; a loss of your own (loss_of=) has to see to it itself")
    schedule = make_schedule(x, y, steps=steps, epochs=epochs, batch_size=batch_size, seed=seed, first_step=first_step)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    optimiser = torch.optim.SGD(parameters.values(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    if momentum and velocity is not None:
        check_arrays(velocity, shapes, "the velocity of this model")
        for name, p in parameters.items():
            optimiser.state[p]["momentum_buffer"] = _like(velocity[name], p)
    if anchor is not None:
        check_arrays(anchor, shapes, "the anchor of the proximal term", extra_ok=True)
    fixed = {}
    if proximal:
        fixed = {n: p.detach().clone() if anchor is None else _like(anchor[n], p) for n, p in parameters.items()}

    losses, sizes = [], []
    was_training = model.training
    model.train()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        for step, batch in schedule:
            seed_torch(_step_seed(seed, step))
            optimiser.zero_grad()
            pair = _tensors(model, x[batch], y[batch])
            loss = _loss(model, *pair, classes, others)[0] if loss_of is None else loss_of(model, *pair)
            loss.backward()  # type: ignore[no-untyped-call]
            for name, anchored in fixed.items():
                gradient = parameters[name].grad
                if gradient is not None:
                    gradient.add_(parameters[name].detach() - anchored, alpha=proximal)
            optimiser.step()
            losses.append(float(loss.detach()))
            sizes.append(len(batch))
    model.train(was_training)

    moving = {}
    if momentum:
        buffers = {name: optimiser.state[p].get("momentum_buffer") for name, p in parameters.items()}
        moving = {
            name: np.zeros(shapes[name], np.float32) if buffer is None else buffer.cpu().numpy().copy()
            for name, buffer in buffers.items()
        }
    return TrainResult(mean_loss(losses, sizes) if losses else 0.0, len(losses), sum(sizes), moving)


def evaluate(model: nn.Module, x: NDArray[Any], y: NDArray[np.int64], *, batch_size: int = 256) -> EvalResult:
    """Mean loss and accuracy, in evaluation mode; the model is left as it was.

    Args:
        model: gives scores [batch, classes], or [batch, context, classes] for sequences.
        x: [samples, ...].
        y: int64 [samples] or [samples, context].
        batch_size: samples at a time; changes memory and rounding only.

    Raises:
        ConfigError: batch_size below 1.
        DataError: no samples, or not as many targets as samples.
    """
    if len(x) != len(y) or not len(x):
        raise DataError(f"{len(x)} samples and {len(y)} targets; give one or more of each")
    if batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size}; use 1 or more")
    was_training = model.training
    model.eval()
    loss, right = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(x), batch_size):
            inputs, targets = _tensors(model, x[start : start + batch_size], y[start : start + batch_size])
            mean, scores = _loss(model, inputs, targets)
            loss += float(mean) * targets.numel()
            right += int((scores.argmax(dim=-1) == targets.reshape(-1)).sum())
    model.train(was_training)
    return EvalResult(loss / y.size, right / y.size, len(x))


def _loss(
    model: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    classes: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    others: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross entropy over all targets, and the scores [targets, classes]."""
    scores = model(inputs)
    scores = scores.reshape(-1, scores.shape[-1])
    if len(scores) != targets.numel():
        raise DataError(
            f"the model scores {len(scores)} targets, {targets.numel()} came (shape {tuple(targets.shape)}); "
            "sequences need a model for sequences, such as 'char-transformer', single classes one of the others"
        )
    if classes is not None:
        factors = class_factors(classes, scores.shape[-1], others, targets.cpu().numpy())
        scores = scores * torch.from_numpy(factors).to(scores)
    return functional.cross_entropy(scores, targets.reshape(-1)), scores


def _tensors(model: nn.Module, x: NDArray[Any], y: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    """One batch where the model is, in the model's floating point."""
    some = next(model.parameters())
    inputs = torch.tensor(x)  # copies: batches may be views of read-only memory
    if inputs.is_floating_point():
        inputs = inputs.to(some.dtype)
    return inputs.to(some.device), torch.tensor(y).to(some.device)


def _like(array: NDArray[Any], parameter: nn.Parameter) -> torch.Tensor:
    return torch.tensor(array, dtype=parameter.dtype, device=parameter.device)


def _step_seed(seed: int, step: int) -> int:
    """torch's seed for one step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
