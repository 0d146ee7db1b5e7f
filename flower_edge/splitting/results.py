"""What one machine has after its share of a round of split training. Values only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

__all__ = ["WorkResult"]


@dataclass(frozen=True, eq=False)
class WorkResult:
    """A machine's units after a round, and what they cost.

    Attributes:
        arrays: parameters and buffers of the machine's units, by the whole model's names and in its order.
        optimiser: their state, see `optimiser_state`.
        steps: made.
        samples: drawn, repeats counted.
        loss: mean over the samples drawn, each measured just before the step it took part in; NaN before the first.
        flops: of this machine's units, forward and backward, as the profile counts them; 0 where it does not.
        compute_s: wall seconds spent in torch, waiting for others not among them.
    """

    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    optimiser: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    steps: int = 0
    samples: int = 0
    loss: float = math.nan
    flops: float = 0.0
    compute_s: float = 0.0
