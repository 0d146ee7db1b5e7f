"""When a training ends: limits, what has been used of them, and the first one that is reached.

Frozen values and pure functions, for a terminal's training as well as for the whole one. Nothing here looks at a clock,
sends or trains: whoever does that tells `Spent`, and asks `Limits.reached`.

Source: [4] ¶65-66: a training ends when a preset time elapses, when an evaluation satisfies a preset standard, when it
was performed a preset number of times, or when a resource's availability or a load is below a preset standard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from .errors import ConfigError

__all__ = ["Holds", "Limits", "NoImprovement", "Score", "Spent"]


class Holds(Protocol):
    """What can say whether conditions are met: a `flower_edge.rules.Rule`."""

    def holds(self, told: Mapping[str, Any], /) -> bool:
        """Whether it certainly holds; what is unknown does not."""
        ...

    def facts(self, told: Mapping[str, Any], /) -> str:
        """What it looked at, for the reason."""
        ...


@dataclass(frozen=True)
class Score:
    """A standard that an evaluation satisfies.

    Attributes:
        metric: its name in the metrics of an evaluation.
        at: the value that is good enough.
        higher_is_better: at least `at`; `False`: at most.

    >>> Score("accuracy", 0.9).reached({"accuracy": 0.93})
    True
    >>> Score("loss", 0.1, higher_is_better=False).reached({"loss": 0.2})
    False
    """

    metric: str
    at: float
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if not math.isfinite(self.at):
            raise ConfigError(f"Score({self.metric!r}, at={self.at}): expected a finite number")

    def reached(self, metrics: Mapping[str, float]) -> bool:
        """Whether the metric is there and good enough; a NaN is not."""
        value = metrics.get(self.metric, math.nan)
        return value >= self.at if self.higher_is_better else value <= self.at


@dataclass(frozen=True)
class NoImprovement:
    """A metric that has stopped improving.

    Attributes:
        metric: its name in the metrics of an evaluation.
        patience: how many evaluations in a row may bring no improvement before the training ends, at least 1.
        min_delta: by how much better than the best so far a value must be to count as an improvement.
        higher_is_better: whether better is more.
    """

    metric: str
    patience: int
    min_delta: float = 0.0
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if type(self.patience) is not int or self.patience < 1:
            raise ConfigError(f"NoImprovement(patience={self.patience!r}): a whole number of evaluations, at least 1")
        if not (math.isfinite(self.min_delta) and self.min_delta >= 0):
            raise ConfigError(f"NoImprovement(min_delta={self.min_delta}): expected 0 or more")

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than `best` by more than `min_delta`; a NaN never is.

        >>> NoImprovement("accuracy", 3, min_delta=0.125).improves(0.75, best=0.5)
        True
        """
        if best is None:
            return not math.isnan(value)
        gain = value - best if self.higher_is_better else best - value
        return gain > self.min_delta


@dataclass(frozen=True)
class Spent:
    """What a training has used so far, and how well it did. The state of a training's end: plain values.

    Attributes:
        rounds: how many it took part in.
        wall_s: real seconds since it began.
        virtual_s: virtual seconds since it began; `None` where nobody has told a virtual time.
        trained_s: seconds spent training.
        last: metrics of its last evaluation.
        best: the best value of the metric that must improve; `None` before the first.
        stale: evaluations since that improved.
    """

    rounds: int = 0
    wall_s: float = 0.0
    virtual_s: float | None = None
    trained_s: float = 0.0
    last: Mapping[str, float] = field(default_factory=dict)
    best: float | None = None
    stale: int = 0

    def to_tree(self) -> dict[str, Any]:
        """As plain values, for a checkpoint or a parcel."""
        return asdict(replace(self, last=dict(self.last)))

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Spent:
        """Inverse of `to_tree`."""
        return cls(**tree)


@dataclass(frozen=True)
class Limits:
    """What ends a training; whatever is reached first. A limit that is `None` ends nothing.

    Attributes:
        rounds: how many rounds.
        wall_s: seconds of real time.
        virtual_s: seconds of virtual time.
        trained_s: seconds spent training, of a terminal.
        score: a standard that an evaluation satisfies.
        no_improvement: a metric that stopped improving.
        when: ends it as soon as it holds of the conditions: `Rule("battery < 0.2 or load > 0.9")`. What is unknown
            does not hold, so a terminal that tells nothing is not ended by it.

    >>> limits = Limits(rounds=10, no_improvement=NoImprovement("accuracy", patience=2))
    >>> spent = Spent(rounds=3)
    >>> for accuracy in (0.5, 0.5, 0.25):
    ...     spent = limits.scored(spent, {"accuracy": accuracy})
    >>> limits.reached(spent)
    'accuracy has not improved on 0.5 for 2 evaluations'

    Raises:
        ConfigError: a limit that is not above 0.
    """

    rounds: int | None = None
    wall_s: float | None = None
    virtual_s: float | None = None
    trained_s: float | None = None
    score: Score | None = None
    no_improvement: NoImprovement | None = None
    when: Holds | None = None

    def __post_init__(self) -> None:
        for name in ("rounds", "wall_s", "virtual_s", "trained_s"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise ConfigError(f"Limits({name}={value}): expected more than 0, or None for no limit")
        if isinstance(self.when, str):
            raise ConfigError(f"Limits(when={self.when!r}): expected a rule; write when=Rule({self.when!r})")

    def scored(self, spent: Spent, metrics: Mapping[str, float]) -> Spent:
        """After an evaluation. Metrics without the one that must improve make nothing stale."""
        spent = replace(spent, last=dict(metrics))
        watch = self.no_improvement
        if watch is None or watch.metric not in metrics:
            return spent
        value = metrics[watch.metric]
        if watch.improves(value, spent.best):
            return replace(spent, best=value, stale=0)
        return replace(spent, stale=spent.stale + 1)

    def reached(self, spent: Spent, conditions: Mapping[str, Any] | None = None) -> str | None:
        """Why the training ends, in words, or `None`.

        Args:
            spent: what has been used.
            conditions: what `when` is asked about; without them it is not asked.
        """
        if self.rounds is not None and spent.rounds >= self.rounds:
            return f"{spent.rounds} of {self.rounds} rounds are done"
        for name, used_s in (("wall", spent.wall_s), ("virtual", spent.virtual_s), ("trained", spent.trained_s)):
            limit_s = getattr(self, f"{name}_s")
            if limit_s is not None and used_s is not None and used_s >= limit_s:
                kind = {"wall": "of real time", "virtual": "of virtual time", "trained": "of training"}[name]
                return f"{used_s:g} s {kind} are used, the budget is {limit_s:g} s"
        if self.score is not None and self.score.reached(spent.last):
            sign = ">=" if self.score.higher_is_better else "<="
            return f"{self.score.metric} = {spent.last[self.score.metric]:g} {sign} {self.score.at:g}"
        watch = self.no_improvement
        if watch is not None and spent.stale >= watch.patience:
            on = "" if spent.best is None else f" on {spent.best:g}"
            return f"{watch.metric} has not improved{on} for {spent.stale} evaluations"
        if self.when is not None and conditions is not None and self.when.holds(conditions):
            return f"{self.when} holds: {self.when.facts(conditions)}"
        return None
