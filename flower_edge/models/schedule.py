"""Which samples every training step sees: a fixed, endless sequence of batches, cut anywhere.

Step k always draws the same samples, in whatever process and however many calls made the steps before it; so N steps
in one call are the same N steps in several. Nothing here touches data or models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError


@dataclass(frozen=True)
class Schedule:
    """Steps `first_step` .. `first_step + steps - 1` of the sequence of batches that `seed` stands for.

    An epoch is a random order of all samples, cut into batches; its last batch may be smaller. Iterating gives
    (step, int64 [batch]).

    >>> whole = Schedule(num_examples=5, batch_size=2, seed=0, steps=4)
    >>> [len(batch) for _, batch in whole]
    [2, 2, 1, 2]
    >>> [step for step, _ in Schedule(num_examples=5, batch_size=2, seed=0, steps=2, first_step=2)]
    [2, 3]
    """

    num_examples: int
    batch_size: int
    seed: int
    steps: int
    first_step: int = 0

    def __post_init__(self) -> None:
        if self.num_examples < 1:
            raise DataError("no samples to train on; leave this node out of the round or give it data")
        for name, least in (("batch_size", 1), ("seed", 0), ("steps", 0), ("first_step", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}; use {least} or more")

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_examples / self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        order, ordered = np.empty(0, np.int64), -1
        for step in range(self.first_step, self.first_step + self.steps):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != ordered:
                order, ordered = np.random.default_rng([self.seed, epoch]).permutation(self.num_examples), epoch
            yield step, order[place * self.batch_size : (place + 1) * self.batch_size]


def make_schedule(
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    steps: int | None,
    epochs: int | None,
    batch_size: int,
    seed: int,
    first_step: int,
) -> Schedule:
    """The schedule of a call of `train`, after the checks both trainers share.

    Raises:
        ConfigError: neither or both of steps and epochs, or a number out of range.
        DataError: no samples, or not as many targets as samples.
    """
    if len(x) != len(y):
        raise DataError(f"{len(x)} samples but {len(y)} targets; give one target per sample")
    if (steps is None) == (epochs is None):
        raise ConfigError(f"steps = {steps} and epochs = {epochs}; give one of the two")
    if steps is None and epochs is not None:
        steps = epochs * Schedule(len(x), batch_size, seed, 0).steps_per_epoch
    return Schedule(len(x), batch_size, seed, steps or 0, first_step)


def check_rates(lr: float, momentum: float, proximal: float, weight_decay: float = 0.0) -> None:
    """Refuse step sizes that cannot train.

    Raises:
        ConfigError: names the rate and its range.
    """
    if not (math.isfinite(lr) and lr > 0):
        raise ConfigError(f"lr = {lr}; use a number above 0, for example 0.1")
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum = {momentum}; use a number in [0, 1), for example 0.9")
    if not (math.isfinite(proximal) and proximal >= 0):
        raise ConfigError(f"proximal = {proximal}; use 0 (off) or more, for example 0.1")
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ConfigError(f"weight_decay = {weight_decay}; use 0 (off) or more, for example 1e-4")
