"""`StepTimes`: how long a training step of each variant takes each terminal, as measured, and what was never measured.

A frozen value: every measurement gives a new one, and it goes to a checkpoint as plain values. It does not know where
a measurement came from, and it assigns nothing.

Letters, for one terminal:
    t[v]    seconds a step of variant v takes it when it has nothing else to do
    F[v]    FLOPs of that step, forward and backward
    l       load: the share of its processors that others keep busy; a step then takes t / (1 - l)
    A, B    what was fitted: t = A + B F, neither below 0
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ..conditions import BOUNDS
from ..errors import ConfigError
from .catalogue import Catalogue

__all__ = ["FASTEST_FLOPS_PER_S", "Predicted", "StepTimes", "believed_s", "fitted_s"]

#: Nothing that trains on its own is faster; who tells a step that would be is not believed.
FASTEST_FLOPS_PER_S: Final = 1e16
#: A load of 1 would never end; from here on it counts as this.
MOST_LOAD: Final = 0.95


def believed_s(step_s: object, flops: float = 0.0) -> float | None:
    """Seconds of a step as a terminal tells them, where they can be true; else `None`.

    Args:
        step_s: as it came.
        flops: of that step; faster than 10^16 FLOP/s is not believed.

    >>> believed_s(0.5), believed_s(-1.0), believed_s(float("nan")), believed_s(1e-9, flops=1e9)
    (0.5, None, None, None)
    """
    if isinstance(step_s, bool) or not isinstance(step_s, int | float | np.integer | np.floating):
        return None
    seconds = float(step_s)
    if not 0.0 < seconds <= BOUNDS["step_s"].high or seconds * FASTEST_FLOPS_PER_S < flops:
        return None
    return seconds


def fitted_s(measured: Sequence[tuple[float, float]], flops: float) -> float | None:
    """Seconds of a step that was not measured, from some that were.

    Args:
        measured: (FLOPs, seconds) of each. Of several, t = A + B F by least squares of the relative error, A and B
            not below 0; of one, or of several with the same FLOPs, by the ratio of FLOPs.
        flops: of the step in question.

    Returns:
        Seconds, or `None` where nothing was measured.

    >>> fitted_s([(1e6, 0.3)], 2e6)
    0.6
    >>> round(fitted_s([(1e6, 0.3), (3e6, 0.5)], 2e6), 6)  # 0.2 s that every step costs, and 0.1 s per MFLOP
    0.4
    """
    if not measured:
        return None
    if len({known for known, _ in measured}) < 2:
        known = sum(one for one, _ in measured)
        seconds = sum(one for _, one in measured)
        return seconds / known * flops if known > 0 else seconds / len(measured)
    from scipy.optimize import nnls

    costs, seconds_s = (np.array(column, dtype=np.float64) for column in zip(*measured, strict=True))
    scale = float(costs.max())
    # Divided by what was measured: a small variant's step counts as much as a large one's.
    rows = np.column_stack([np.ones_like(costs), costs / scale]) / seconds_s[:, None]
    (fixed_s, slope), _ = nnls(rows, np.ones(len(costs)))
    return float(fixed_s + slope * flops / scale)


@dataclass(frozen=True)
class Predicted:
    """Seconds of a step, and where they come from: `measured`, `predicted` from other variants, or `told`."""

    step_s: float
    how: str


@dataclass(frozen=True)
class StepTimes:
    """What was measured.

    Attributes:
        idle_s: by terminal and variant, seconds of a step without load.
        batch: samples in a step; measurements of other batches are not comparable.
        weight: of the newest measurement, above 0 and up to 1; those before it fade.

    Raises:
        ConfigError: a batch or a weight that is none.

    >>> from flower_edge.submodels.catalogue import mlp_catalogue
    >>> models = mlp_catalogue([64, 32, 10], {"a": 1.0, "b": 0.5})
    >>> times = StepTimes(batch=32).noted("7", "b", 0.1).noted("7", "b", 0.4, load=0.5)  # 0.2 s without its load
    >>> times.predicted("7", models["b"].name, models)
    Predicted(step_s=0.15000000000000002, how='measured')
    >>> times.predicted("7", "a", models).how, times.predicted("8", "a", models)
    ('predicted', None)
    """

    idle_s: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    batch: int = 32
    weight: float = 0.5

    def __post_init__(self) -> None:
        if type(self.batch) is not int or self.batch < 1:
            raise ConfigError(f"StepTimes(batch={self.batch!r}): expected a whole number of samples from 1")
        if not 0.0 < self.weight <= 1.0:
            raise ConfigError(f"StepTimes(weight={self.weight!r}): expected a number above 0 and up to 1")

    def noted(self, key: str, variant: str, step_s: float, load: float | None = None) -> StepTimes:
        """With one more measurement, while the terminal had this load.

        Raises:
            ConfigError: seconds that cannot be; see `believed_s` for what comes from outside.
        """
        if (seconds := believed_s(step_s)) is None:
            raise ConfigError(f"step_s = {step_s!r} of terminal {key}: expected a finite number of seconds above 0")
        seconds /= slowdown(load)
        own = dict(self.idle_s.get(key, {}))
        own[variant] = seconds if variant not in own else own[variant] + self.weight * (seconds - own[variant])
        return StepTimes({**self.idle_s, key: own}, self.batch, self.weight)

    def without(self, key: str) -> StepTimes:
        """Of everybody else."""
        return StepTimes({k: own for k, own in self.idle_s.items() if k != key}, self.batch, self.weight)

    def predicted(
        self,
        key: str,
        variant: str,
        catalogue: Catalogue,
        *,
        load: float | None = None,
        told_s: float | None = None,
        told_of: str | None = None,
    ) -> Predicted | None:
        """What a step of a variant takes a terminal now.

        Args:
            key: the terminal's.
            variant: its name.
            catalogue: that lists it.
            load: of the terminal now; a step then takes 1 / (1 - load) times as long.
            told_s: seconds of a step by what it said of itself (`Conditions.step_s`), where nothing was measured.
            told_of: the variant that was; `None` is the first of the list, which is usually the whole model.

        Returns:
            `None` where nothing is known of it.
        """
        own = self.idle_s.get(key, {})
        if variant in own:
            return Predicted(own[variant] * slowdown(load), "measured")
        flops = catalogue[variant].train_flops
        measured = [(catalogue[name].train_flops, seconds) for name, seconds in own.items() if name in catalogue]
        if (fitted := fitted_s(measured, flops)) is not None:
            return Predicted(fitted * slowdown(load), "predicted")
        if (told := believed_s(told_s)) is not None:
            # Told with its load in it.
            of = catalogue[told_of] if told_of is not None else catalogue.variants[0]
            return Predicted(fitted_s([(of.train_flops, told)], flops) or told, "told")
        return None

    def to_tree(self) -> dict[str, Any]:
        """As plain nested values."""
        return {
            "idle_s": {key: dict(own) for key, own in self.idle_s.items()},
            "batch": self.batch,
            "weight": self.weight,
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> StepTimes:
        """Inverse of `to_tree`."""
        return cls({key: dict(own) for key, own in tree["idle_s"].items()}, tree["batch"], tree["weight"])


def slowdown(load: float | None) -> float:
    """How many times longer a step takes under a load: 1 / (1 - l), at most 20.

    >>> slowdown(0.5), slowdown(None)
    (2.0, 1.0)
    """
    if load is None or math.isnan(load):
        return 1.0
    return 1.0 / (1.0 - min(max(load, 0.0), MOST_LOAD))
