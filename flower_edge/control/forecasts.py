"""Forecasts: what a controller expects of the coming round from what it has measured so far.

Made for P, one value per node, and just as good for anything else that is measured once per round and entry. A
forecast is a value: its state is handed in and handed back, and what was not measured (NaN, or inf) is passed over.
Nothing here decides.

A plan made for the mean is late half the time. f is a maximum, and being late costs more than being early: a plan for
somewhat more than the mean has the smaller f (docs/controllers.md has the figures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..topology.rows import Floats
from .controller import State

__all__ = ["Constant", "Ewma", "Forecast", "Last", "Mean", "MeanPlusDeviation", "Quantile", "Shrunk"]


class Forecast(Protocol):
    """Expects the next value of every entry."""

    def init(self, entries: int) -> State:
        """The state before anything was measured."""
        ...

    def update(self, state: State, values: Floats) -> State:
        """The state after a further round; `values` float64 [entries], NaN for what was not measured."""
        ...

    def expected(self, state: State) -> Floats:
        """What to plan with, float64 [entries]; NaN where nothing is known."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same value, whatever is measured."""

    value: float

    def __post_init__(self) -> None:
        _finite("value", self.value)

    def init(self, entries: int) -> State:
        """How many entries there are."""
        return {"entries": entries}

    def update(self, state: State, values: Floats) -> State:
        """Unchanged."""
        del values
        return state

    def expected(self, state: State) -> Floats:
        """The value, for all."""
        return np.full(state["entries"], self.value)


@dataclass(frozen=True)
class Last:
    """What was measured last."""

    def init(self, entries: int) -> State:
        """Nothing known."""
        return {"last": np.full(entries, np.nan)}

    def update(self, state: State, values: Floats) -> State:
        """What was measured replaces what was known."""
        return {"last": np.where(np.isfinite(values), values, state["last"])}

    def expected(self, state: State) -> Floats:
        """The last value of each entry."""
        return np.array(state["last"])


@dataclass(frozen=True)
class Ewma:
    """The exponentially weighted mean of each entry's values: m + rate (value - m), from the first value on."""

    rate: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 < self.rate <= 1.0:
            raise ConfigError(f"rate = {self.rate}: expected more than 0 and at most 1")

    def init(self, entries: int) -> State:
        """Nothing known."""
        return {"mean": np.full(entries, np.nan)}

    def update(self, state: State, values: Floats) -> State:
        """A step of `rate` towards each value."""
        new = np.isfinite(values)
        mean = np.where(np.isnan(state["mean"]) & new, values, state["mean"])
        return {"mean": mean + self.rate * np.subtract(values, mean, out=np.zeros(len(mean)), where=new)}

    def expected(self, state: State) -> Floats:
        """The mean of each entry."""
        return np.array(state["mean"])


def _finite(name: str, value: float) -> None:
    if not np.isfinite(value):
        raise ConfigError(f"{name} = {value}: expected a finite number")


class _Moments:
    """Count, mean and sum of squared deviations of each entry (B. P. Welford, 1962)."""

    def init(self, entries: int) -> State:
        """Nothing known."""
        return {"count": np.zeros(entries), "mean": np.zeros(entries), "squares": np.zeros(entries)}

    def update(self, state: State, values: Floats) -> State:
        """Counts them in."""
        new = np.isfinite(values)
        count = state["count"] + new
        values = np.where(new, values, state["mean"])
        gap = values - state["mean"]
        mean = state["mean"] + gap / np.maximum(count, 1.0)
        return {"count": count, "mean": mean, "squares": state["squares"] + gap * (values - mean)}


def _variance(squares: npt.ArrayLike, freedom: npt.ArrayLike) -> Floats:
    """Sample variance; NaN without a degree of freedom."""
    sums, free = np.asarray(squares, np.float64), np.asarray(freedom, np.float64)
    return np.where(free > 0.0, sums / np.maximum(free, 1.0), np.nan)


def _pooled(state: State) -> tuple[float, float]:
    """Mean and standard deviation of all values of all entries; NaN without one, a deviation of 0 with only one."""
    count = state["count"]
    if not (total := float(count.sum())):
        return float("nan"), float("nan")
    mean = float((count * state["mean"]).sum() / total)
    squares = float((state["squares"] + count * (state["mean"] - mean) ** 2).sum())
    return mean, float(np.sqrt(squares / max(total - 1.0, 1.0)))


@dataclass(frozen=True)
class MeanPlusDeviation(_Moments):
    """The mean of all values so far, plus some of their standard deviations.

    Args:
        deviations: how many. 0 is the mean.
        pooled: one mean and deviation of all entries, right where they are alike; if False, each entry's own, right
            where they differ for good and have been seen often.
    """

    deviations: float = 1.0
    pooled: bool = False

    def __post_init__(self) -> None:
        _finite("deviations", self.deviations)

    def expected(self, state: State) -> Floats:
        """Mean plus deviations. An entry seen less than twice has a deviation of 0."""
        if self.pooled:
            mean, deviation = _pooled(state)
            return np.full(len(state["count"]), mean + self.deviations * deviation)
        deviation_of_each = np.sqrt(np.nan_to_num(_variance(state["squares"], state["count"] - 1.0)))
        return np.where(state["count"] > 0, state["mean"] + self.deviations * deviation_of_each, np.nan)


def Mean(pooled: bool = False) -> MeanPlusDeviation:
    """The mean of all values so far."""
    return MeanPlusDeviation(0.0, pooled)


@dataclass(frozen=True)
class Quantile:
    """A quantile of the last values: late in a share 1 - q of all rounds.

    Args:
        q: between 0 and 1.
        window: rounds that are remembered.
        pooled: over all entries; if False, of each entry's own values.
    """

    q: float = 0.8
    window: int = 50
    pooled: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.q <= 1.0:
            raise ConfigError(f"q = {self.q}: expected 0 to 1")
        if self.window < 1:
            raise ConfigError(f"window = {self.window}: expected 1 round or more")

    def init(self, entries: int) -> State:
        """Nothing known."""
        return {"values": np.zeros((0, entries))}

    def update(self, state: State, values: Floats) -> State:
        """The last `window` rounds."""
        values = np.where(np.isfinite(values), values, np.nan)
        return {"values": np.vstack([state["values"], values])[-self.window :]}

    def expected(self, state: State) -> Floats:
        """The quantile, interpolated between values."""
        values = state["values"]
        known = ~np.isnan(values)
        entries = np.arange(values.shape[1])
        if not known.any():
            return np.full(len(entries), np.nan)
        if self.pooled:
            return np.full(len(entries), np.quantile(values[known], self.q))
        ordered = np.sort(values, axis=0)  # what is not known comes last
        last = np.maximum(known.sum(axis=0) - 1, 0)
        place = self.q * last
        low = place.astype(np.int64)
        below, above = ordered[low, entries], ordered[np.minimum(low + 1, last), entries]
        return np.asarray(below + (place - low) * (above - below))


@dataclass(frozen=True)
class Shrunk(_Moments):
    """Each entry's own mean, drawn to the mean of all as far as they look alike, plus some standard deviations.

    How far is read off the values (empirical Bayes): with v the variance of one entry's values around its mean, V that
    of the true means of the entries and n how often an entry was seen, its mean counts V / (V + v / n) and the mean of
    all the rest. Where entries are alike this is the pooled mean; where they differ, each one's own; and in between, or
    early on, it is better than both. The standard deviation is sqrt(v).

    Source: B. Efron, C. Morris, "Stein's estimation rule and its competitors", JASA 68, 1973.

    >>> forecast = Shrunk(deviations=0.0)
    >>> state = forecast.init(2)
    >>> for values in ([1.0, 3.0], [1.2, 2.8]):
    ...     state = forecast.update(state, np.array(values))
    >>> forecast.expected(state).round(3)  # they differ far more than each of them does
    array([1.106, 2.894])
    """

    deviations: float = 1.0

    def __post_init__(self) -> None:
        _finite("deviations", self.deviations)

    def expected(self, state: State) -> Floats:
        """Shrunk mean plus deviations; the mean of all for an entry never seen."""
        count, mean = state["count"], state["mean"]
        seen = count > 0
        everyone, deviation = _pooled(state)
        if not seen.any():
            return np.full(len(count), np.nan)
        # Until some entry was seen twice, nothing tells apart how entries differ and how each one varies.
        freedom = float(np.maximum(count - 1.0, 0.0).sum())
        within = float(state["squares"].sum()) / freedom if freedom else deviation**2
        per_entry = within / np.maximum(count, 1.0)
        spread_of_means = float(mean[seen].var(ddof=1)) if seen.sum() > 1 else 0.0
        between = max(spread_of_means - float(per_entry[seen].mean()), 0.0)
        trust = np.where(seen & (between > 0.0), between / np.maximum(between + per_entry, 1e-300), 0.0)
        if not between and not within:
            trust = seen.astype(np.float64)
        return np.asarray(everyone + trust * (mean - everyone) + self.deviations * np.sqrt(within))
