"""Size, recency, frequency: the three factors a reward grows in, each with its shape and its cap.

A factor alone means nothing: what is paid out is a share of a pot, so a constant before a factor would change nobody's
share, and there is none. Claims are cut down before they come here; see `claims`.

Letters:
    n       examples
    age_s   age of the data
    k       rounds of late in which the node's update was accepted

Source: [4], paragraph 72.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError

__all__ = ["Frequency", "Recency", "Shape", "Size"]

#: "log": each further one is worth less than the one before. "linear": as much.
Shape = Literal["log", "linear"]


@dataclass(frozen=True)
class Size:
    """How much data: log(1 + n), or n.

    Args:
        shape: "log" or "linear".
        most: the cap: examples beyond it gain nothing; `None` for no cap.
        unknown: how many a node is taken to have of which nobody knows; a node gains nothing by staying unknown.

    Raises:
        ConfigError: another shape, or numbers below 0.

    >>> Size(shape="linear", most=100).of(40), Size(shape="linear", most=100).of(4000)
    (40.0, 100.0)
    """

    shape: Shape = "log"
    most: int | None = None
    unknown: int = 1

    def __post_init__(self) -> None:
        _check_shape("Size", self.shape)
        if self.most is not None and self.most < 1:
            raise ConfigError(f"Size(most={self.most}): expected 1 or more examples, or None for no cap")
        if self.unknown < 1:
            raise ConfigError(f"Size(unknown={self.unknown}): expected 1 or more examples")

    def of(self, examples: float) -> float:
        """The factor of so many examples; 0 of none."""
        return _shaped(self.shape, max(0.0, examples if self.most is None else min(examples, self.most)))


@dataclass(frozen=True)
class Recency:
    """How fresh: 2^(-age / half-life), from 1 down to `least`.

    Args:
        half_life_s: in this time data lose half of their worth.
        fresh_s: the cap: data younger than it gain nothing more.
        least: the factor of data however old, 0 to 1.
        unknown_s: how old data are taken to be of which nobody knows; `None`: one half-life beyond `fresh_s`.

    Raises:
        ConfigError: a number out of its range.

    >>> [Recency(half_life_s=3600.0).of(age_s) for age_s in (0.0, 3600.0, 7200.0)]
    [1.0, 0.5, 0.25]
    """

    half_life_s: float = 7 * 86_400.0
    fresh_s: float = 0.0
    least: float = 0.0
    unknown_s: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.half_life_s < math.inf:
            raise ConfigError(f"Recency(half_life_s={self.half_life_s}): expected more than 0 s")
        if not 0.0 <= self.fresh_s < math.inf:
            raise ConfigError(f"Recency(fresh_s={self.fresh_s}): expected 0 s or more")
        if not 0.0 <= self.least <= 1.0:
            raise ConfigError(f"Recency(least={self.least}): expected a share, 0 to 1")
        if self.unknown_s is not None and not 0.0 <= self.unknown_s < math.inf:
            raise ConfigError(f"Recency(unknown_s={self.unknown_s}): expected 0 s or more, or None")

    @property
    def unknown_age_s(self) -> float:
        """How old data are taken to be of which nobody knows."""
        return self.fresh_s + self.half_life_s if self.unknown_s is None else self.unknown_s

    def of(self, age_s: float) -> float:
        """The factor of data of this age."""
        return max(self.least, math.exp2(-max(0.0, age_s - self.fresh_s) / self.half_life_s))


@dataclass(frozen=True)
class Frequency:
    """How often: in how many of the last rounds the node's update was accepted; k, or log(1 + k).

    All nodes are counted over the same rounds, so the count is as good as the share. The round that is paid counts.

    Args:
        window: how many rounds back are counted, this one among them.
        shape: "linear" or "log".
        most: the cap: rounds beyond it gain nothing; `None`: the window.

    Raises:
        ConfigError: another shape, a window or cap below 1, or a cap above the window.

    >>> Frequency(window=10).of(3), Frequency(window=10, most=5).of(9)
    (3.0, 5.0)
    """

    window: int = 10
    shape: Shape = "linear"
    most: int | None = None

    def __post_init__(self) -> None:
        _check_shape("Frequency", self.shape)
        if self.window < 1:
            raise ConfigError(f"Frequency(window={self.window}): expected 1 or more rounds")
        if self.most is not None and not 1 <= self.most <= self.window:
            raise ConfigError(f"Frequency(most={self.most}): expected 1 to {self.window}, the window, or None")

    def of(self, accepted: int) -> float:
        """The factor of a node whose update was accepted in so many of the last `window` rounds."""
        return _shaped(self.shape, max(0, min(accepted, self.window if self.most is None else self.most)))


def _shaped(shape: Shape, amount: float) -> float:
    return math.log1p(amount) if shape == "log" else float(amount)


def _check_shape(factor: str, shape: str) -> None:
    if shape not in ("log", "linear"):
        raise ConfigError(f"{factor}(shape={shape!r}): expected 'log' or 'linear'")
