"""`Frame`: one thing a device and the cloud say to each other while a split model trains. Values only.

    device -> cloud    ACTIVATIONS     tensors at the cut, and labels where the cloud computes the loss
    cloud  -> device   GRADIENT        gradients of those tensors, and the loss where the cloud computed it
  U-shaped, in between:
    cloud  -> device   OUTPUTS         what the device's tail takes
    device -> cloud    OUTPUT_GRADIENT gradients of those, and the loss

A device says ACTIVATIONS first; each frame has one answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy.typing as npt

__all__ = ["Frame", "Kind", "Tensors"]

#: Float32 arrays, or integer ones where a tensor at the cut is whole numbers, each [batch, ...].
Tensors = tuple[npt.NDArray[Any], ...]


class Kind(IntEnum):
    """What a frame is."""

    ACTIVATIONS = 1
    GRADIENT = 2
    OUTPUTS = 3
    OUTPUT_GRADIENT = 4


@dataclass(frozen=True, eq=False)
class Frame:
    """What is said.

    Attributes:
        kind: see `Kind`.
        step: number of the batch, as counted by `WorkOrder.first_step`.
        tensors: one for each live tensor; of gradients, one for each that is differentiable.
        labels: int64 [batch] or [batch, context] (float32 for a loss on numbers); None where they do not travel.
        loss: mean over the batch, NaN where the sender has not computed it.
    """

    kind: Kind
    step: int
    tensors: Tensors
    labels: npt.NDArray[Any] | None = None
    loss: float = math.nan
