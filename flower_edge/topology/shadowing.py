"""Shadowing: what stands between two nodes, a random loss that is the same in both directions.

Log-normal: so many decibels more or less than the path loss, drawn from a normal distribution. Looked up by (pair,
draw), not drawn in turn: the loss of a pair depends neither on how many nodes there are nor on what was asked before.
No spatial correlation: nodes side by side have shadows of their own, and a node that moves keeps its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

from ..coverage.draws import Draws
from ..errors import ConfigError
from ..units import db_to_ratios
from .rows import Floats, Indices

__all__ = ["Shadowing"]


@dataclass(frozen=True)
class Shadowing:
    """Log-normal shadowing for each pair of nodes.

    Args:
        sd_db: standard deviation of the loss, 0 or more; the mean is 0 dB. 7 dB in many studies of devices.
        seed: of the draws.
        redrawn_every: rounds that a draw stays; without it, one draw for the run.
        symmetric: whether both directions have the same loss, as radio has.

    Raises:
        ConfigError: a number out of range.

    >>> ends = np.array([3, 8]), np.array([8, 3])
    >>> there, back = Shadowing(7.0, seed=1).gain_ratio(*ends, round=5)
    >>> bool(there == back)
    True
    """

    sd_db: float
    seed: int
    redrawn_every: int | None = None
    symmetric: bool = True
    _draws: Draws = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sd_db) and self.sd_db >= 0):
            raise ConfigError(f"sd_db = {self.sd_db}; give 0 or more")
        if self.redrawn_every is not None and self.redrawn_every < 1:
            raise ConfigError(f"redrawn_every = {self.redrawn_every}; give 1 or more rounds, or None for one draw")
        object.__setattr__(self, "_draws", Draws(self.seed, "shadowing"))

    def draw(self, round: int) -> int:
        """Which draw is valid in a round, counted from 0."""
        return 0 if self.redrawn_every is None else (round - 1) // self.redrawn_every

    def gain_ratio(self, receiver: Indices, sender: Indices, round: int) -> Floats:
        """Factor on the power that arrives over each link in a round, float64 [links]; above 1 as often as below.

        Args:
            receiver, sender: the two ends of each link, int64 [links].
            round: from 1.
        """
        low, high = np.minimum(receiver, sender), np.maximum(receiver, sender)
        # A number for each pair, whatever the number of nodes.
        pair = high * (high - 1) // 2 + low
        if not self.symmetric:
            pair = 2 * pair + (receiver > sender)
        # 0 would be an endless loss.
        u = np.maximum(self._draws.uniform(pair, self.draw(round)), 2.0**-54)
        return db_to_ratios(self.sd_db * ndtri(u))
