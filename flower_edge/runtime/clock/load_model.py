"""`LoadModel`: load and battery of simulated terminals, as functions of the virtual time.

Nothing is remembered and nothing advances: asked for the same terminal and time, it says the same, in any order and
process, for one terminal or for all at once. Nothing here decides what a load means, but for how much it slows a
terminal down.

Letters, for one terminal at time t, with k = ⌊t / tick_s⌋:
    load   clip(m + swing · sin(2π (t / day_s + phase)) + noise · x[k], 0, most)
    x[k]   Σ_j a^j u[k - j] / √(Σ_j a^2j), a = exp(-tick_s / memory_s): noise of variance 1 that forgets in `memory_s`
    u[k]   uniform of variance 1, drawn by (seed, k) and the terminal's number
    m      mean of the terminal: that of all, with its own share of `spread`
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...conditions import Conditions
from ...errors import ConfigError
from ..generators import derive_seed

__all__ = ["LoadModel"]

Numbers = npt.NDArray[np.float64]

#: The noise of a tick is left out where it has faded to this share.
FADED: Final = 0.01
#: The longest memory, in ticks: each asks for as many draws, several times over.
LONGEST: Final = 100


@dataclass(frozen=True)
class LoadModel:
    """Conditions in a simulation: `VirtualClock(..., slowdown=model.slowdown)`, `answer_conditions(app, model.source)`.

    A terminal is known by its number, its `partition-id`; what happens to it does not depend on how many others there
    are. Loads change once per tick, and with the time of day.

    Args:
        nodes: how many terminals.
        seed: of everything that is drawn.
        mean: mean load of all, before it is cut to [0, `most`].
        spread: standard deviation of the terminals' own means.
        noise: standard deviation of a terminal's load over time.
        memory_s: after how long the noise has forgotten most of what it was.
        tick_s: how long a load stays as it is.
        swing: how much the load rises and falls over a day; each terminal has its own hour.
        day_s: length of a day.
        most: the highest load there is, below 1.
        on_battery: share of the terminals that have one.
        drain_s, charge_s: how long a battery takes from full to `lowest`, and back; each begins somewhere.
        lowest: charge at which it is put on the mains.
        slowest: the most that `slowdown` says.

    Raises:
        ConfigError: a value out of its range.

    >>> model = LoadModel(nodes=3, seed=1, mean=0.5, spread=0.0, noise=0.0, on_battery=0.0)
    >>> model.at(2, time_s=60.0).to_mapping(), model.slowdown(2, time_s=60.0)
    ({'load': 0.5}, 2.0)
    """

    nodes: int
    seed: int = 0
    mean: float = 0.3
    spread: float = 0.1
    noise: float = 0.1
    memory_s: float = 300.0
    tick_s: float = 60.0
    swing: float = 0.0
    day_s: float = 86_400.0
    most: float = 0.95
    on_battery: float = 0.5
    drain_s: float = 8 * 3600.0
    charge_s: float = 2 * 3600.0
    lowest: float = 0.1
    slowest: float = 10.0
    _fixed: Mapping[str, Numbers] = field(init=False, repr=False, compare=False)
    _fading: Numbers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise ConfigError(f"LoadModel(nodes={self.nodes}): expected 1 or more")
        for name in ("mean", "spread", "noise", "swing", "on_battery", "lowest", "most"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"LoadModel({name}={getattr(self, name)}): expected a share from 0 to 1")
        for name in ("memory_s", "tick_s", "day_s", "drain_s", "charge_s"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ConfigError(f"LoadModel({name}={getattr(self, name)}): expected seconds, more than 0")
        if not self.most < 1.0 or not self.slowest >= 1.0:
            raise ConfigError(
                f"LoadModel(most={self.most}, slowest={self.slowest}): expected most below 1 and slowest 1 or more; "
                "a terminal that is wholly busy would never end"
            )
        if self.memory_s > LONGEST * self.tick_s:
            raise ConfigError(
                f"LoadModel(memory_s={self.memory_s}, tick_s={self.tick_s}): expected a memory of at most {LONGEST} "
                "ticks; take longer ticks"
            )
        fixed = {
            name: np.random.default_rng(derive_seed(self.seed, "load", name)).random(self.nodes)
            for name in ("mean", "phase", "has-battery", "charge")
        }
        object.__setattr__(self, "_fixed", fixed)
        ticks = 1 + math.floor(-math.log(FADED) * self.memory_s / self.tick_s)
        fading = np.exp(-self.tick_s / self.memory_s * np.arange(ticks))
        object.__setattr__(self, "_fading", fading / math.sqrt(float(np.sum(fading**2))))

    def at(self, key: int | str, time_s: float) -> Conditions:
        """The conditions of one terminal at a time."""
        one = self._slice(key)
        load = float(self._load(time_s, one)[0])
        if not self._fixed["has-battery"][one][0] < self.on_battery:
            return Conditions(load=load)
        battery, charging = self._battery(time_s, one)
        return Conditions(load=load, battery=float(battery[0]), charging=bool(charging[0]))

    def source(self, context: Any, now_s: float | None) -> Conditions:
        """Of the terminal whose `Context` this is, by its `partition-id`: for `answer_conditions` and the mods.

        Without a virtual clock there is no time, and it is 0.
        """
        return self.at(int(context.node_config["partition-id"]), now_s or 0.0)

    def columns(self, time_s: float) -> dict[str, npt.NDArray[Any]]:
        """All terminals at a time, by name, each [nodes], NaN where a terminal has no battery."""
        everybody = slice(0, self.nodes)
        without = ~(self._fixed["has-battery"] < self.on_battery)
        battery, charging = self._battery(time_s, everybody)
        return {
            "load": self._load(time_s, everybody),
            "battery": np.where(without, np.nan, battery),
            "charging": np.where(without, np.nan, charging),
        }

    def slowdown(self, key: int | str, time_s: float) -> float:
        """How many times longer a terminal computes than without load: 1 / (1 - load), at most `slowest`."""
        return min(self.slowest, 1.0 / (1.0 - float(self._load(time_s, self._slice(key))[0])))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _slice(self, key: int | str) -> slice:
        try:
            number = int(key)
        except ValueError:
            number = -1
        if not 0 <= number < self.nodes:
            raise ConfigError(
                f"terminal {key!r} is none of the {self.nodes} of this LoadModel; its keys are partition-ids from 0 to "
                f"{self.nodes - 1}"
            )
        return slice(number, number + 1)

    def _load(self, time_s: float, which: slice) -> Numbers:
        mean = self.mean + self.spread * _of_variance_1(self._fixed["mean"][which])
        swing = self.swing * np.sin(2 * math.pi * (time_s / self.day_s + self._fixed["phase"][which]))
        noise = self.noise * self._noise(math.floor(time_s / self.tick_s), which) if self.noise else 0.0
        load: Numbers = np.clip(mean + swing + noise, 0.0, self.most)
        return load

    def _noise(self, tick: int, which: slice) -> Numbers:
        noise = np.zeros(which.stop - which.start)
        for back, weight in enumerate(self._fading):
            noise += weight * _of_variance_1(self._draw(tick - back, which))
        return noise

    def _draw(self, tick: int, which: slice) -> Numbers:
        # A counter-based generator gives the number of any terminal without drawing those before it, 4 to a count.
        generator = np.random.Philox(key=derive_seed(self.seed, "load", "tick", tick))
        generator.advance(which.start // 4)
        skip = which.start % 4
        drawn: Numbers = np.random.Generator(generator).random(which.stop - which.start + skip)
        return drawn[skip:]

    def _battery(self, time_s: float, which: slice) -> tuple[Numbers, npt.NDArray[np.bool_]]:
        whole_s = self.drain_s + self.charge_s
        into_s = (time_s + whole_s * self._fixed["charge"][which]) % whole_s
        charging = into_s >= self.drain_s
        gone: Numbers = np.where(charging, 1.0 - (into_s - self.drain_s) / self.charge_s, into_s / self.drain_s)
        return 1.0 - (1.0 - self.lowest) * gone, charging


def _of_variance_1(uniform: Numbers) -> Numbers:
    """Numbers drawn from [0, 1), with mean 0 and variance 1."""
    return (uniform - 0.5) * math.sqrt(12.0)
