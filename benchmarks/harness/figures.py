"""Means over seeds and how sure they are. Nothing here measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["mean_and_error", "ratio_and_error"]


def mean_and_error(values: Sequence[float] | NDArray[Any]) -> tuple[float, float]:
    """The mean, and its standard error from the spread of the values; 0 for a single one.

    >>> mean_and_error([1.0, 3.0])
    (2.0, 1.0)
    """
    found = np.asarray(values, dtype=float)
    error = found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else 0.0
    return float(found.mean()), float(error)


def ratio_and_error(above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """The ratio of two means over the same seeds, and its standard error by the jackknife: one seed left out at a time.

    >>> ratio_and_error([6.0, 6.0], [2.0, 2.0])
    (3.0, 0.0)
    """
    a, b = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    if len(a) < 2:
        return float(a.mean() / b.mean()), 0.0
    left_out = (a.sum() - a) / (b.sum() - b)
    error = np.sqrt((len(a) - 1) / len(a) * np.square(left_out - left_out.mean()).sum())
    return float(a.mean() / b.mean()), float(error)
