"""How much each score counts in the loss of a terminal that has samples of some classes only. Nothing here trains.

Plain cross entropy pushes the scores of classes that a terminal has never seen down in every step, on every terminal
that lacks them. With those scores times 0 (HeteroFL's mask) it says nothing about them: their rows of the last layer
do not move. With those scores times a half (FedRS) it pushes, with less force.

Sources: Diao, Ding, Tarokh, "HeteroFL", ICLR 2021, section 3 ("masking trick"); Li, Zhan, "FedRS: Federated learning
with restricted softmax for label distribution non-IID data", KDD 2021, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError

__all__ = ["class_factors"]


def class_factors(
    classes: Sequence[int] | NDArray[np.integer[Any]],
    num_classes: int,
    others: float = 0.0,
    y: NDArray[np.integer[Any]] | None = None,
) -> NDArray[np.float32]:
    """What each score is multiplied by before the softmax: float32 [num_classes].

    Args:
        classes: that there are samples of, in any order, each once; their factor is 1.
        num_classes: scores that the model gives.
        others: factor of all other classes, from 0 to 1: 0 is HeteroFL's, 1 the plain loss, FedRS takes 0.5.
        y: targets; each is to be one of `classes`.

    Raises:
        ConfigError: no classes, a number that is none, one that is there twice, or a factor out of its range.
        DataError: a target that is not among the classes.

    >>> class_factors([3, 1], 4, others=0.5)
    array([0.5, 1. , 0.5, 1. ], dtype=float32)
    """
    known = np.asarray(classes)
    if known.ndim != 1 or not known.size or known.dtype.kind not in "iu" or known.min() < 0:
        raise ConfigError(f"classes = {classes!r:.60}: expected whole numbers from 0 on, such as np.unique(y)")
    if len(np.unique(known)) < len(known) or known.max() >= num_classes:
        raise ConfigError(f"classes = {classes!r:.60}: expected each once, and up to {num_classes - 1} at most")
    if not (math.isfinite(others) and 0.0 <= others <= 1.0):
        raise ConfigError(f"others = {others!r}: expected a factor from 0 (not looked at) to 1 (the plain loss)")
    factors = np.full(num_classes, others, np.float32)
    factors[known] = 1.0
    if y is not None and len(odd := np.setdiff1d(y, known)):
        raise DataError(f"there are targets of class {odd[0]}, and classes = {classes!r:.60}; give np.unique(y)")
    return factors
