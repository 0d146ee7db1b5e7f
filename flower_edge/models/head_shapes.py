"""Which tensors inside a model a small classifier can be put on: shapes only, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

__all__ = ["head_kind"]


def head_kind(shape: Sequence[int], outputs: Sequence[int]) -> Literal["pooled", "linear"] | None:
    """How a classifier gets from one tensor to the model's outputs; None where none does.

    Args:
        shape: of that tensor for one sample: [channels, height, width], [features], or [context, features].
        outputs: of the model for one sample: [classes], or [context, classes].

    >>> head_kind((8, 14, 14), (10,)), head_kind((32,), (10,)), head_kind((14, 14), (10,))
    ('pooled', 'linear', None)
    """
    if len(outputs) == 1 and len(shape) == 3:
        return "pooled"
    if outputs and len(outputs) == len(shape) and tuple(outputs[:-1]) == tuple(shape[:-1]):
        return "linear"
    return None
