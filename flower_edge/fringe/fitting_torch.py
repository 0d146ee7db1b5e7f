"""Training of some parameters, with the best of all epochs kept: that of no training at all is one of them.

Adam with a rate that falls to 0 along half a cosine. Modules stay in evaluation mode, so that no buffer moves. Nothing
here knows what is trained towards what.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import CodecError, FringeError

__all__ = ["Fit", "Recipe", "batches", "fit"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train.

    Attributes:
        epochs: passes over the samples.
        lr: Adam's rate at the start.
        batch_size: samples per step.
        held_out: share of the samples, the last ones, that is not trained on and says which epoch was the best.
        seed: of the order of the samples.
        together: what a controller tries where this recipe, at one connection, does not hold the floor: the fringe
            layers of all machines learn towards the uncompressed model's scores, see `heal_together`. Of classifiers
            only. None: nothing more is tried.
        features: of healing together: weight of the squared error behind each consumer's fringe, beside the divergence
            of the scores; 0: scores only.
        shift: of healing together: pixels by which pictures are moved at most, each batch by its own, down and right;
            what leaves on one side comes back on the other. Without labels a moved picture is a picture more.
        bfloat16: convolutions and products of matrices in bfloat16, pictures with their channels last. Parameters,
            losses and what is evaluated stay float32. About three times as fast where the processor has such products
            (AMX), slower where it has not.

    Raises:
        FringeError: a number that cannot be.
    """

    epochs: int = 10
    lr: float = 2e-3
    batch_size: int = 64
    held_out: float = 0.2
    seed: int = 0
    together: Recipe | None = None
    features: float = 0.0
    shift: int = 0
    bfloat16: bool = False

    def __post_init__(self) -> None:
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in (self.epochs, self.batch_size, self.seed))
        counted = whole and self.epochs >= 0 and self.batch_size >= 1
        if not counted or not 0 < self.lr < math.inf or not 0 < self.held_out < 1:
            raise FringeError(
                f"{self}; use whole epochs of 0 or more, lr above 0, batch_size of 1 or more, held_out between 0 and 1"
            )
        pixels = isinstance(self.shift, int) and not isinstance(self.shift, bool) and self.shift >= 0
        if not pixels or not 0 <= self.features < math.inf:
            raise FringeError(f"{self}; use features of 0 or more, and a whole shift of 0 or more pixels")

    def split(self, samples: int) -> tuple[int, int]:
        """How many are trained on, and how many are held out: at least one each.

        Raises:
            FringeError: fewer than two.

        >>> Recipe().split(100)
        (80, 20)
        """
        if samples < 2:
            raise FringeError(f"{samples} samples; give two or more, better hundreds: some are held out")
        held = min(samples - 1, max(1, round(self.held_out * samples)))
        return samples - held, held


@dataclass(frozen=True)
class Fit:
    """What came out.

    Attributes:
        losses: on what was held out, before training and after each epoch; where one is not finite, training ended.
        best: number of the epoch that was kept; 0: none was better than no training.
    """

    losses: tuple[float, ...]
    best: int


def batches(numbers: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Numbers of samples, so many at a time."""
    return [numbers[first : first + size] for first in range(0, len(numbers), size)]


def fit(
    parameters: Sequence[nn.Parameter],
    loss: Callable[[torch.Tensor], torch.Tensor],
    held_out: Callable[[], float],
    samples: int,
    recipe: Recipe,
) -> Fit:
    """Train in place.

    Args:
        parameters: those that may change; the gradients of no others are taken.
        loss: of samples by their numbers, a scalar.
        held_out: loss on what is held out.
        samples: how many are trained on.
        recipe: see there.

    Raises:
        FringeError: a held-out loss that is not finite before training.
    """
    order = torch.Generator().manual_seed(recipe.seed)
    losses = [held_out()]
    if not math.isfinite(losses[0]):
        raise FringeError(f"a loss of {losses[0]} before training; look at the samples and the wire between the parts")
    best, kept = 0, [parameter.detach().clone() for parameter in parameters]
    steps = max(1, recipe.epochs * math.ceil(samples / recipe.batch_size))
    optimiser = torch.optim.Adam(parameters, lr=recipe.lr)
    done = 0
    for epoch in range(1, recipe.epochs + 1):
        try:
            for numbers in batches(torch.randperm(samples, generator=order), recipe.batch_size):
                for group in optimiser.param_groups:
                    group["lr"] = recipe.lr * 0.5 * (1.0 + math.cos(math.pi * done / steps))
                with torch.enable_grad():  # whoever evaluates without gradients may heal there, too
                    now = loss(numbers)
                    gradients = torch.autograd.grad(now, list(parameters), allow_unused=True)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                optimiser.step()
                done += 1
            losses.append(held_out())
        except CodecError:  # no wire carries what is not finite
            if not done:
                raise
            losses.append(math.inf)
        if not math.isfinite(losses[-1]):
            _log.warning("epoch %d of %d: diverged; lr = %g is too fast", epoch, recipe.epochs, recipe.lr)
            break
        if losses[-1] < losses[best]:
            best, kept = epoch, [parameter.detach().clone() for parameter in parameters]
        _log.info("epoch %d of %d: held-out loss %.6g, best %.6g", epoch, recipe.epochs, losses[-1], losses[best])
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
            parameter.grad = None
    return Fit(tuple(losses), best)
