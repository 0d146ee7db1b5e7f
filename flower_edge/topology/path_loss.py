"""Path loss: which share of the power sent arrives at a distance. Named models, as values.

Functions from a distance to a plain ratio; decibels are what the models are written in, and end here. Nothing here
knows of powers, noise or bands, and nothing is random: for that see `shadowing.py`.

Sources, from memory where the text could not be read here:
    3GPP TR 36.942, 4.5.2: macro cell, urban, 2 GHz: 128.1 + 37.6 log10(d in km) dB.
    D2D without a line of sight at 2 GHz: 148 + 40 log10(d in km) dB, as many studies of such links have it.
    WINNER II D1.1.2 V1.2, "Channel models", 2007, Table 4-4, scenario B1 with a line of sight: urban micro cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..units import db_to_ratio
from .rows import Floats

__all__ = ["D2D_NLOS", "MACRO", "WINNER_LOS", "PathLoss", "PowerLaw", "WinnerLos"]

_LIGHT_MPS = 3.0e8  # as WINNER II rounds it


class PathLoss(Protocol):
    """How power fades with distance."""

    def gain_ratio(self, distance_m: npt.ArrayLike) -> Floats:
        """Power that arrives over power sent, 0 to 1, at each distance in metres; float64 of the same shape."""
        ...


@dataclass(frozen=True)
class PowerLaw:
    """Loss in dB is `at_1_km_db` + `per_decade_db` log10(distance in km): a straight line over the log of distance.

    Args:
        at_1_km_db: loss at a kilometre.
        per_decade_db: what ten times the distance adds.
        least_m: nearer than this counts as this: a law for far fields promises gains above 1 at centimetres.

    Raises:
        ConfigError: a number that is not above 0.

    >>> MACRO.gain_ratio([1000.0]) == db_to_ratio(-128.1)
    array([ True])
    """

    at_1_km_db: float
    per_decade_db: float
    least_m: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "at_1_km_db", "per_decade_db", "least_m")

    def gain_ratio(self, distance_m: npt.ArrayLike) -> Floats:
        """Share of the power that arrives, float64 of the shape of `distance_m`."""
        far_km = np.maximum(np.asarray(distance_m, np.float64), self.least_m) / 1e3
        # exp and log, as they are several times as fast as a power.
        return np.asarray(db_to_ratio(-self.at_1_km_db) * np.exp(-self.per_decade_db / 10 * np.log(far_km)))


@dataclass(frozen=True)
class WinnerLos:
    """Urban micro cell with a line of sight, WINNER II B1: two straight lines that meet at a breakpoint.

    With heights above an effective ground of 1 m, h' = h - 1 m, the breakpoint is at 4 h'_1 h'_2 f / c. Before it the
    loss is 22.7 log10(d) + 41.0 + 20 log10(f / 5 GHz) dB; from there on 40 log10(d) + 9.45 - 17.3 log10(h'_1) -
    17.3 log10(h'_2) + 2.7 log10(f / 5 GHz) dB, d in metres.

    Args:
        carrier_hz: f; the model was measured from 2 to 6 GHz.
        heights_m: of the two antennas, each above 1 m; the document's are a lamp post and a hand. For two hands give
            (1.5, 1.5): the breakpoint then lies before 10 m, and links fade with the fourth power of distance.
        least_m: nearer than this counts as this; the model holds from 10 m on.

    Raises:
        ConfigError: a number that is not above 0, or an antenna that is not above 1 m.
    """

    carrier_hz: float = 2.0e9
    heights_m: tuple[float, float] = (10.0, 1.5)
    least_m: float = 10.0

    def __post_init__(self) -> None:
        _positive(self, "carrier_hz", "least_m")
        if len(self.heights_m) != 2 or not all(math.isfinite(h) and h > 1.0 for h in self.heights_m):
            raise ConfigError(f"heights_m = {self.heights_m}; give two heights above 1 m, the model's effective ground")

    @property
    def breakpoint_m(self) -> float:
        """From where on the ground takes its part."""
        return 4 * (self.heights_m[0] - 1) * (self.heights_m[1] - 1) * self.carrier_hz / _LIGHT_MPS

    def gain_ratio(self, distance_m: npt.ArrayLike) -> Floats:
        """Share of the power that arrives, float64 of the shape of `distance_m`."""
        far_m = np.maximum(np.asarray(distance_m, np.float64), self.least_m)
        per_5_ghz = math.log10(self.carrier_hz / 5e9)
        ground = sum(17.3 * math.log10(height_m - 1) for height_m in self.heights_m)
        near = db_to_ratio(-(41.0 + 20 * per_5_ghz)) * np.exp(-2.27 * np.log(far_m))
        beyond = db_to_ratio(-(9.45 - ground + 2.7 * per_5_ghz)) / np.square(np.square(far_m))
        return np.where(far_m < self.breakpoint_m, near, beyond)


def _positive(model: object, *names: str) -> None:
    for name in names:
        value = getattr(model, name)
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{type(model).__name__}: {name} = {value}; give a number above 0")


#: Between devices without a line of sight, 2 GHz.
D2D_NLOS = PowerLaw(148.0, 40.0)
#: An urban macro cell, 2 GHz: milder than D2D_NLOS at every distance.
MACRO = PowerLaw(128.1, 37.6)
#: An urban micro cell with a line of sight, 2 GHz.
WINNER_LOS = WinnerLos()
