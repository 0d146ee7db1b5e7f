"""Drawing without replacement by weight, as an order of all candidates. Nothing here knows a node or a score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .candidates import Positions

__all__ = ["draw_by_weight", "known_or_mean"]


def draw_by_weight(weights: NDArray[np.float64], rng: np.random.Generator) -> Positions:
    """All positions in the order in which they would be drawn one by one, each time in proportion to the weights left.

    The first d are a draw of d without replacement, for every d at once: who has weight w waits for an exponentially
    distributed time of rate w, and the shortest wait goes first. Weight 0 comes last, in a random order.

    Args:
        weights: float64 [nodes], 0 or more.
        rng: draws one number per node, whatever the weights.

    >>> draw_by_weight(np.array([0.0, 1.0]), np.random.default_rng(0))
    array([1, 0])
    """
    waits = rng.standard_exponential(len(weights))
    never = weights <= 0
    if not never.any():
        return np.argsort(waits / weights)
    return np.lexsort((waits / np.where(never, 1.0, weights), never))


def known_or_mean(values: NDArray[np.float64], otherwise: float = 1.0) -> NDArray[np.float64]:
    """The values, with the mean of the known ones for the unknown; `otherwise` where none is known.

    >>> known_or_mean(np.array([2.0, np.nan, 4.0]))
    array([2., 3., 4.])
    """
    unknown = np.isnan(values)
    if not unknown.any():
        return values
    known = values[~unknown]
    return np.where(unknown, known.mean() if len(known) else otherwise, values)
