"""When the centre does not wait for all its edges: how many it merges at a time, and what a late one counts.

Frozen values. `Hierarchical(asynchronous=FedBuff(...))` uses them; nothing here asks an edge.

    w <- (1 − α) w + α Σ n_e w'_e / Σ n_e        over the K edges that have come in
    w'_e = w + s(τ) (w_e − w_v)                  `against="version"`: what it has learned since its version v
    w'_e = w + s(τ) (w_e − w)                    `against="current"`: its model as it is

With `against="current"` and K = 1 this is FedAsync, w <- w + α s(τ) (w_e − w). The papers weigh edges alike; here n_e
does, because an edge is a sum over its terminals.

Sources: Xie, Koyejo, Gupta, "Asynchronous federated optimization", 2019 (FedAsync); Nguyen et al., "Federated
learning with buffered asynchronous aggregation", AISTATS 2022 (FedBuff).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from flower_edge.errors import ConfigError

__all__ = ["FedAsync", "FedBuff", "Staleness", "constant", "hinge", "polynomial"]

#: s(τ), 1 at τ = 0 and never above.
Staleness = Callable[[int], float]


def polynomial(power: float = 0.5) -> Staleness:
    """s(τ) = (1 + τ)^−power; 1/√(1+τ) by default.

    >>> polynomial()(0), polynomial()(3)
    (1.0, 0.5)
    """
    if not power >= 0:
        raise ConfigError(f"power = {power}: expected 0 or more; the later, the less it counts")
    return lambda staleness: float((1 + staleness) ** -power)


def hinge(grace: int, slope: float) -> Staleness:
    """s(τ) = 1 up to `grace` versions, then 1 / (1 + slope (τ − grace)).

    >>> [hinge(2, 1.0)(tau) for tau in (0, 2, 3)]
    [1.0, 1.0, 0.5]
    """
    if grace < 0 or not slope >= 0:
        raise ConfigError(f"hinge({grace}, {slope}): expected both 0 or more")
    return lambda staleness: 1.0 if staleness <= grace else 1.0 / (1.0 + slope * (staleness - grace))


def constant() -> Staleness:
    """s(τ) = 1: a late edge counts like any other."""
    return lambda staleness: 1.0


#: s(τ) = 1/√(1+τ).
INVERSE_ROOT = polynomial(0.5)


@dataclass(frozen=True)
class FedBuff:
    """The centre merges as soon as K edges have come in; the others go on and are merged when they come.

    Args:
        buffer: K, at least 1. A cloud round ends with the K-th edge; with no more edges under way, with the last.
        mixing: α, above 0 and at most 1.
        staleness: s(τ).
        max_staleness: an edge that began more versions ago is dropped, and begins anew; `None` drops none.
        against: what a late edge's model is compared with, see the equations above.

    Raises:
        ConfigError: an argument out of its range.
    """

    buffer: int
    mixing: float = 1.0
    staleness: Staleness = field(default_factory=polynomial)
    max_staleness: int | None = None
    against: Literal["version", "current"] = "version"

    def __post_init__(self) -> None:
        if type(self.buffer) is not int or self.buffer < 1:
            raise ConfigError(f"buffer = {self.buffer}: a whole number of edges, at least 1")
        if not 0 < self.mixing <= 1:
            raise ConfigError(f"mixing = {self.mixing}: expected above 0 and at most 1")
        if not callable(self.staleness):
            raise ConfigError(f"staleness = {self.staleness!r}: expected a function of τ, such as polynomial(0.5)")
        if self.max_staleness is not None and self.max_staleness < 0:
            raise ConfigError(f"max_staleness = {self.max_staleness}: expected 0 or more, or None")
        if self.against not in ("version", "current"):
            raise ConfigError(f"against = {self.against!r}: expected 'version' or 'current'")

    def too_late(self, staleness: int) -> str:
        """Why an edge that began so many versions ago is not merged; empty where it is."""
        if self.max_staleness is None or staleness <= self.max_staleness:
            return ""
        return f"began {staleness} versions ago, and at most {self.max_staleness} are merged"

    def scale(self, staleness: int) -> float:
        """s(τ), checked.

        Raises:
            ConfigError: a function of the user's that is not between 0 and 1.
        """
        found = self.staleness(staleness)
        if not (math.isfinite(found) and 0 <= found <= 1):
            raise ConfigError(f"staleness({staleness}) = {found}: expected a number from 0 to 1")
        return found


def FedAsync(
    mixing: float = 0.6, staleness: Staleness = INVERSE_ROOT, max_staleness: int | None = None
) -> FedBuff:  # named as in the paper
    """FedAsync: every edge is merged when it comes, w <- w + α s(τ) (w_e − w). FedBuff with K = 1.

    >>> FedAsync(mixing=0.5).buffer
    1
    """
    return FedBuff(1, mixing, staleness, max_staleness, against="current")
