"""What training and evaluation hand back. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What a call of `train` did.

    Attributes:
        loss: mean cross entropy in nats over the samples drawn, each measured just before the step it took part in; a
            proximal term is not in it.
        steps: steps made.
        examples: samples drawn, repeats counted.
        velocity: SGD's momentum after the last step, one array per trained parameter; empty without momentum. Pass it
            to the call that continues.
    """

    loss: float
    steps: int
    examples: int
    velocity: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class EvalResult:
    """How good a model is on some data.

    Attributes:
        loss: mean cross entropy in nats over all targets.
        accuracy: share of targets whose class got the highest score, 0..1. Every position of a sequence is a target.
        examples: samples.
    """

    loss: float
    accuracy: float
    examples: int


def mean_loss(losses: list[float], sizes: list[int]) -> float:
    """Mean of batch losses weighted by batch sizes.

    >>> mean_loss([1.0, 4.0], [2, 1])
    2.0
    """
    return float(np.average(losses, weights=sizes))
