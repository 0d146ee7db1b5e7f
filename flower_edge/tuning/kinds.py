"""What a hyperparameter is: a number on a log scale, a count, or a choice. Values; nothing here merges or searches.

A kind knows its bounds, why a value is none of its own, and which values lie next to one. Its bounds are what makes a
stranger's report harmless: no value outside of them is ever proposed.

Source: [4] ¶20: a training result may be a learning rate, a loss function, a generalisation parameter, a mini batch
size, a number of epochs, a weight initialisation, a number of hidden layers, the k of a k-NN. Sorting them into three
kinds is our own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError

__all__ = ["Choice", "Count", "Kind", "LogScale", "Value", "check_kinds", "check_values"]

#: What a hyperparameter can be set to, as it travels in a Flower ConfigRecord.
Value = int | float | str

#: Whole numbers travel in 64 bits.
_LARGEST = 2**63 - 1
_LONGEST_NAME = 64
_LONGEST_OPTION = 256
#: The least and the largest number of a log scale; beyond them steps and means leave what a float can hold.
_LEAST, _MOST = 1e-100, 1e100
#: A neighbour of a count is this share of it away, and at least one step.
_JUMP = 0.25


@dataclass(frozen=True)
class LogScale:
    """A number whose order of magnitude counts: a learning rate, a regularisation, the scale of initial weights.

    Args:
        low, high: bounds, both admitted, above 0.
        step: the factor between a value and its neighbours, above 1.

    Raises:
        ConfigError: bounds or a step that are none.

    >>> LogScale(1e-4, 1.0).neighbours(0.1)
    (0.05, 0.2)
    >>> LogScale(1e-4, 1.0).problem(3.0)
    'out of bounds'
    """

    low: float
    high: float
    step: float = 2.0

    def __post_init__(self) -> None:
        for name, number in (("low", self.low), ("high", self.high), ("step", self.step)):
            if not _is_number(number) or not math.isfinite(number):
                raise ConfigError(f"LogScale({name}={number!r}): expected a finite number")
        if not _LEAST <= self.low < self.high <= _MOST:
            raise ConfigError(
                f"LogScale({self.low}, {self.high}): expected 0 < low < high, for example LogScale(1e-4, 1.0)"
            )
        if not 1.0 < self.step <= _MOST:
            raise ConfigError(f"LogScale(step={self.step}): expected a factor above 1, for example 2.0")

    def problem(self, value: object) -> str:
        """Why a value is none of this kind: `type`, `out of bounds`; empty where it is one."""
        if not _is_number(value):
            return "type"
        # Also what NaN comes to: it is within no bounds.
        return "" if self.low <= value <= self.high else "out of bounds"  # type: ignore[operator]

    def neighbours(self, value: Value) -> tuple[Value, ...]:
        """One step below and one above, kept within the bounds; one only where the value is at a bound."""
        assert not isinstance(value, str)
        around = (max(value / self.step, self.low), min(value * self.step, self.high))
        return tuple(other for other in around if other != value)


@dataclass(frozen=True)
class Count:
    """A whole number: a batch size, epochs, hidden layers, the k of a k-NN.

    Args:
        low, high: bounds, both admitted.
        step: counts are low, low + step, low + 2 step, …

    Raises:
        ConfigError: bounds or a step that are none.

    >>> Count(1, 15).neighbours(3), Count(1, 15, step=2).neighbours(3), Count(4, 128).neighbours(32)
    ((2, 4), (1, 5), (24, 40))
    """

    low: int
    high: int
    step: int = 1

    def __post_init__(self) -> None:
        for name, number in (("low", self.low), ("high", self.high), ("step", self.step)):
            if type(number) is not int or abs(number) > _LARGEST:
                raise ConfigError(f"Count({name}={number!r}): expected a whole number of 64 bits")
        if not self.low < self.high or self.step < 1:
            raise ConfigError(
                f"Count({self.low}, {self.high}, step={self.step}): expected low < high and a step of 1 or more"
            )
        if self.low + self.step > self.high:
            raise ConfigError(
                f"Count({self.low}, {self.high}, step={self.step}): {self.low} is the only value; take a smaller step"
            )

    def problem(self, value: object) -> str:
        """Why a value is none of this kind: `type`, `out of bounds` (between two steps, too); empty where it is one."""
        if type(value) is not int:
            return "type"
        inside = self.low <= value <= self.high and (value - self.low) % self.step == 0
        return "" if inside else "out of bounds"

    def neighbours(self, value: Value) -> tuple[Value, ...]:
        """A quarter of the value below and above, in whole steps, at least one step, kept within the bounds."""
        assert isinstance(value, int)
        jump = self.step * max(1, round(_JUMP * abs(value) / self.step))
        last = self.high - (self.high - self.low) % self.step
        around = (max(value - jump, self.low), min(value + jump, last))
        return tuple(other for other in around if other != value)


@dataclass(frozen=True)
class Choice:
    """One of some names: a loss, an initialiser, a metric.

    Args:
        options: at least two different names; where a vote is even, the one that is listed first wins.

    Raises:
        ConfigError: options that are none.

    >>> Choice(("ce", "mse", "hinge")).neighbours("mse")
    ('ce', 'hinge')
    """

    options: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.options, tuple) or not all(isinstance(name, str) for name in self.options):
            raise ConfigError(f"Choice({self.options!r}): expected a tuple of texts, such as Choice(('ce', 'mse'))")
        if len(self.options) < 2 or len(set(self.options)) < len(self.options):
            raise ConfigError(f"Choice({self.options!r}): expected two or more different options")
        if any(len(name) > _LONGEST_OPTION for name in self.options):
            raise ConfigError(f"Choice: an option is longer than {_LONGEST_OPTION} characters; give it a short name")

    def problem(self, value: object) -> str:
        """Why a value is none of this kind: `type`, `out of bounds`; empty where it is one."""
        if not isinstance(value, str):
            return "type"
        return "" if value in self.options else "out of bounds"

    def neighbours(self, value: Value) -> tuple[Value, ...]:
        """All the other options."""
        return tuple(option for option in self.options if option != value)


Kind = LogScale | Count | Choice


def check_kinds(kinds: Mapping[str, Kind], taken: frozenset[str]) -> None:
    """Refuse hyperparameters that cannot travel.

    Args:
        kinds: by name.
        taken: names that mean something else in a message.

    Raises:
        ConfigError: names the hyperparameter.
    """
    if not isinstance(kinds, Mapping) or not kinds:
        raise ConfigError(f"hyperparameters = {kinds!r}: expected a kind by name, such as {{'lr': LogScale(1e-4, 1)}}")
    for name, kind in kinds.items():
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
            raise ConfigError(f"hyperparameter {name!r}: expected a name of 1 to {_LONGEST_NAME} characters")
        if name in taken:
            raise ConfigError(f"hyperparameter {name!r}: a message uses this name for something else; choose another")
        if not isinstance(kind, LogScale | Count | Choice):
            raise ConfigError(f"hyperparameter {name!r} = {kind!r}: expected LogScale(...), Count(...) or Choice(...)")


def check_values(kinds: Mapping[str, Kind], values: Mapping[str, object], what: str) -> dict[str, Value]:
    """One value of its kind for every hyperparameter, in the order of `kinds`.

    Raises:
        ConfigError: names every hyperparameter that is missing, unknown or none of its kind.

    >>> check_values({"lr": LogScale(1e-4, 1.0)}, {"lr": 3.0}, "start")
    Traceback (most recent call last):
    ...
    flower_edge.errors.ConfigError: start: lr = 3.0 is not in LogScale(low=0.0001, high=1.0, step=2.0)
    """
    if not isinstance(values, Mapping) or not values:
        raise ConfigError(f"{what} = {values!r}: expected a value by name, for each of {', '.join(kinds)}")
    complaints = [f"{name} is missing" for name in kinds if name not in values]
    complaints += [f"{name} is not among {', '.join(kinds)}" for name in values if name not in kinds]
    complaints += [
        f"{name} = {values[name]!r} is not in {kind}"
        for name, kind in kinds.items()
        if name in values and kind.problem(values[name])
    ]
    if complaints:
        raise ConfigError(f"{what}: {'; '.join(complaints)}")
    return {name: as_told(kind, values[name]) for name, kind in kinds.items()}


def as_told(kind: Kind, value: object) -> Value:
    """An admitted value as it is kept: a number on a log scale is a float, also where 1 was told."""
    if isinstance(kind, LogScale):
        return float(value)  # type: ignore[arg-type]
    assert isinstance(value, int | str)
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
