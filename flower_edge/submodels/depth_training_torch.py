"""Training a model with exits: each classifier learns from the targets, and from the other classifiers.

Source: Kim et al., "DepthFL", ICLR 2023, eq. 2, as in the authors' code: what a classifier learns from is not moved.
The weight that grows: Laine, Aila, "Temporal ensembling for semi-supervised learning", ICLR 2017.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from ..errors import ConfigError, DataError
from ..models.results import TrainResult
from ..models.train_torch import train
from .depth_torch import DepthModel

__all__ = ["distill_weight", "exits_loss", "train_exits"]


def exits_loss(scores: Sequence[torch.Tensor], targets: torch.Tensor, distill: float = 1.0) -> torch.Tensor:
    """What all exits lose together, the mean over the targets of a batch.

        sum_i CE(p_i, y)  +  distill / (d - 1)  sum_i sum_{j != i} KL(p_j || p_i)

    p_i are the probabilities of exit i, of d. Gradients reach p_i, not the p_j that it learns from. With one exit it is
    the cross entropy.

    Args:
        scores: of each exit, [batch, classes] or [batch, context, classes].
        targets: int64 [batch] or [batch, context].
        distill: how much the exits learn from each other; 0: only from the targets.

    Raises:
        ConfigError: a weight below 0, or no exits.
        DataError: not as many targets as are scored.

    >>> alike = torch.tensor([[0.0, 0.0]])
    >>> exits_loss([alike, alike], torch.tensor([1])).div(math.log(2.0)).round(decimals=3)
    tensor(2.)
    """
    if not (math.isfinite(distill) and distill >= 0.0):
        raise ConfigError(f"distill = {distill}; use 0 (off) or more, for example 1.0")
    if not scores:
        raise ConfigError("no scores; give those of each exit: model.scores(x)")
    flat = [of.reshape(-1, of.shape[-1]) for of in scores]
    if any(len(of) != targets.numel() for of in flat):
        raise DataError(
            f"the exits score {[len(of) for of in flat]} targets, {targets.numel()} came (shape {tuple(targets.shape)})"
        )
    wanted = targets.reshape(-1)
    loss = functional.cross_entropy(flat[0], wanted)
    for of in flat[1:]:
        loss = loss + functional.cross_entropy(of, wanted)
    if distill == 0.0 or len(flat) == 1:
        return loss
    logs = [functional.log_softmax(of, dim=-1) for of in flat]
    for i, learns in enumerate(logs):
        for j, knows in enumerate(logs):
            if i != j:
                kl = functional.kl_div(learns, knows.detach(), reduction="batchmean", log_target=True)
                loss = loss + distill / (len(logs) - 1) * kl
    return loss


def distill_weight(round: int, ramp: int, most: float = 1.0) -> float:
    """A weight that grows to `most` in the first rounds, while classifiers have little to teach: most e^{-5 (1 - t)^2}.

    Args:
        round: from 1 on; t is the share of `ramp` that was before it.
        ramp: rounds until it is there; 0: from the first round on.
        most: the weight then.

    Raises:
        ConfigError: a round below 1, or a ramp below 0.

    >>> [round(distill_weight(number, 2), 3) for number in (1, 2, 3, 9)]
    [0.007, 0.287, 1.0, 1.0]
    """
    if round < 1 or ramp < 0:
        raise ConfigError(f"round = {round} and ramp = {ramp}; rounds count from 1, a ramp has 0 rounds or more")
    left = 1.0 - min(1.0, (round - 1) / ramp) if ramp else 0.0
    return most * math.exp(-5.0 * left * left)


def train_exits(
    model: DepthModel,
    x: NDArray[Any],
    y: NDArray[np.int64],
    *,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int = 32,
    lr: float = 0.1,
    seed: int = 0,
    distill: float = 1.0,
    momentum: float = 0.0,
    proximal: float = 0.0,
    first_step: int = 0,
    velocity: Mapping[str, NDArray[Any]] | None = None,
    anchor: Mapping[str, NDArray[Any]] | None = None,
) -> TrainResult:
    """Train all exits in place: `flower_edge.models.train` with `exits_loss`; the same batches for the same seed.

    Law: a model with one exit trains as `flower_edge.models.train` does, bit for bit.

    Args:
        model: with exits, of any depth and width.
        distill: how much the exits learn from each other, see `exits_loss`.
        x, y, steps, epochs, batch_size, lr, seed, momentum, proximal, first_step, velocity, anchor: as for `train`.

    Returns:
        As `train`; its loss is that of all exits together.

    Raises:
        ConfigError: a model without exits, a number out of range, or not exactly one of steps and epochs.
        DataError, ModelMismatch: as for `train`.
    """
    if not isinstance(model, DepthModel):
        raise ConfigError(
            f"{type(model).__name__} has no exits; make a model that has: depth_model(model, example, exits)"
        )
    return train(
        model,
        x,
        y,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        momentum=momentum,
        proximal=proximal,
        first_step=first_step,
        velocity=velocity,
        anchor=anchor,
        loss_of=partial(_all_exits, distill=distill),
    )


def _all_exits(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, distill: float) -> torch.Tensor:
    assert isinstance(model, DepthModel)
    return exits_loss(model.scores(x), y, distill)
