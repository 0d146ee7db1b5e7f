"""Processing times: how long each node computes in each round, before its model is ready to send.

[1] ¶49 draws them from "a normal distribution between 0 and 2 seconds": `NormalProcessing`, cut off at limits. Looked
up by (node, round): the same whatever was asked before, and a node's own times do not depend on how many nodes there
are. `GivenProcessing` plays what was recorded. Nothing here measures.

Letters:
    P[j]   seconds from the start of a round until node j's model is ready   float64 [nodes]
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from ..coverage.arguments import each, node_count
from ..coverage.draws import Draws
from ..errors import ConfigError, DataError
from .rows import Floats

__all__ = ["GivenProcessing", "NormalProcessing", "ProcessingTimes", "draw_means_s"]


class ProcessingTimes(Protocol):
    """How long nodes compute. Pure in the round."""

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        ...

    def processing_s(self, round: int) -> Floats:
        """P of a round, from 1 on, float64 [nodes]."""
        ...


class NormalProcessing:
    """Normal times, cut off at limits: independent for every node and round.

    Drawn by the inverse of the distribution function, so that what lies outside the limits is not heaped up on them.

    Args:
        nodes: how many.
        mean_s: of the distribution before it is cut; one for all, or one per node [nodes] for devices that differ
            for good (see `draw_means_s`).
        sd_s: standard deviation before it is cut, above 0; in the same way.
        low_s, high_s: limits; the lower is not reached, the upper can be.
        seed: of the draws.

    Raises:
        ConfigError: numbers out of range, or limits between which the distribution has nothing.

    >>> P = NormalProcessing(1000, seed=1).processing_s(3)
    >>> bool((P > 0.01).all() and (P <= 2.0).all()), round(float(P.mean()), 1)
    (True, 1.0)
    """

    def __init__(
        self,
        nodes: int,
        mean_s: npt.ArrayLike = 1.0,
        sd_s: npt.ArrayLike = 0.5,
        low_s: float = 0.01,
        high_s: float = 2.0,
        *,
        seed: int,
    ) -> None:
        self._everyone = np.arange(node_count(nodes))
        self.mean_s, self.sd_s = each("mean_s", mean_s, nodes), each("sd_s", sd_s, nodes)
        if (self.sd_s <= 0).any():
            raise ConfigError(
                "sd_s has a 0; give numbers above 0, or GivenProcessing for times that are always the same"
            )
        if not 0 <= low_s < high_s:
            raise ConfigError(f"low_s = {low_s}, high_s = {high_s}; give limits from 0 on, the lower one first")
        self.low_s, self.high_s = float(low_s), float(high_s)
        self._below = ndtr((self.low_s - self.mean_s) / self.sd_s)
        self._between = ndtr((self.high_s - self.mean_s) / self.sd_s) - self._below
        if (self._between < 1e-9).any():
            i = int(self._between.argmin())
            raise ConfigError(
                f"mean_s = {self.mean_s[i]}, sd_s = {self.sd_s[i]} puts next to nothing between the limits {low_s} and "
                f"{high_s} s; move the limits"
            )
        self.seed = int(seed)
        self._draws = Draws(seed, "processing")

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return len(self._everyone)

    def processing_s(self, round: int) -> Floats:
        """P of a round, float64 [nodes]."""
        # From (0, 1] rather than [0, 1), as the limits are.
        part = 1.0 - self._draws.uniform(self._everyone, at_round(round))
        drawn_s = self.mean_s + self.sd_s * ndtri(self._below + self._between * part)
        return np.asarray(np.clip(drawn_s, self.low_s, self.high_s))

    def __repr__(self) -> str:
        return (
            f"NormalProcessing({self.nodes}, mean_s={_shown(self.mean_s)}, sd_s={_shown(self.sd_s)}, "
            f"low_s={self.low_s:g}, high_s={self.high_s:g}, seed={self.seed})"
        )


class GivenProcessing:
    """Times that were recorded, or made up.

    Args:
        times_s: P of each round and node, [rounds, nodes], above 0; NaN where a node was silent. The first row is
            round 1.
        repeat: begin again after the last row; without it a round beyond raises.

    Raises:
        DataError: no round, another shape, rows of different lengths, or a time that is not above 0.

    >>> GivenProcessing([[1.0, 0.5]], repeat=True).processing_s(7)
    array([1. , 0.5])
    """

    def __init__(self, times_s: npt.ArrayLike, *, repeat: bool = False) -> None:
        try:
            self._times_s = np.array(times_s, np.float64)
        except ValueError as error:
            raise DataError(f"times_s: {error}; give as many numbers in every row, one for each node") from error
        if self._times_s.ndim != 2 or not len(self._times_s):
            raise DataError(f"times_s has shape {self._times_s.shape}; give a row of times for each round")
        if (self._times_s <= 0).any() or np.isinf(self._times_s).any():
            row, i = np.argwhere((self._times_s <= 0) | np.isinf(self._times_s))[0]
            raise DataError(f"times_s[{row}, {i}] = {self._times_s[row, i]}; give seconds above 0, NaN for silence")
        self._times_s.flags.writeable = False
        self.repeat = repeat

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return int(self._times_s.shape[1])

    def processing_s(self, round: int) -> Floats:
        """P of a round, float64 [nodes]; not to be written to.

        Raises:
            DataError: a round after the last, where nothing is repeated.
        """
        known, row = len(self._times_s), at_round(round) - 1
        if row >= known and not self.repeat:
            raise DataError(f"round {round}: times of {known} rounds were given; give more, or repeat=True")
        return np.asarray(self._times_s[row % known])

    def __repr__(self) -> str:
        return f"GivenProcessing({len(self._times_s)} rounds of {self.nodes} nodes, repeat={self.repeat})"


def draw_means_s(nodes: int, low_s: float, high_s: float, *, seed: int) -> Floats:
    """A mean for each device, even between limits: devices that are fast or slow for good. float64 [nodes].

    >>> draw_means_s(3, 0.4, 1.6, seed=0).shape
    (3,)
    """
    if not 0 < low_s <= high_s < np.inf:
        raise ConfigError(f"low_s = {low_s}, high_s = {high_s}; give finite limits above 0, the lower one first")
    u = Draws(seed, "processing-mean").uniform(np.arange(node_count(nodes)), 0)
    return np.asarray(low_s + (high_s - low_s) * u)


def at_round(round: int) -> int:
    """A round, from 1 on.

    Raises:
        ConfigError: one before the first.
    """
    if round < 1:
        raise ConfigError(f"round = {round}; rounds count from 1")
    return int(round)


def _shown(values: Floats) -> str:
    first = values[0] if len(values) else 0.0
    return f"{first:g}" if (values == first).all() else f"{values.min():.3g}..{values.max():.3g}"
