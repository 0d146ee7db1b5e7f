"""What travels: a proposal down, a report up, plain values by name. Nothing here knows Flower.

Down it is entries of the train config: the value of every hyperparameter, and their names. Up it is a record that
holds those that the terminal tells something about, and its validation score under `validation-score`. Whoever reads a
report believes nothing: it holds what its kinds admit, or it is left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ..errors import ConfigError
from .kinds import Kind, Value, as_told, check_kinds, check_values
from .merging import problem_of

__all__ = ["HYPERPARAMETER_RECORD", "PROPOSED_KEY", "Told", "hyperparameters_of", "read_report", "report_entries"]

#: Name of the record in a reply.
HYPERPARAMETER_RECORD: Final = "flower-edge.hyperparameters"
#: Key of a train config: the names of its entries that are proposals, as a list.
PROPOSED_KEY: Final = "flower-edge.hyperparameters"
SCORE: Final = "validation-score"
#: What Flower and this package put into a train config themselves.
TAKEN: Final = frozenset({SCORE, PROPOSED_KEY, "server-round", "now-s"})
#: The most entries that are read of a record.
MOST_ENTRIES: Final = 128


@dataclass(frozen=True)
class Told:
    """What could be used of a report.

    Attributes:
        values: by hyperparameter, all of their kinds.
        score: the validation score, if one was told.
        left_out: how many entries were not used, by reason: `type`, `out of bounds`, `unknown`; where the whole report
            is left out, `weight`, `score` or `entries`, once.
    """

    values: Mapping[str, Value]
    score: float | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)


def hyperparameters_of(kinds: Mapping[str, Kind], start: Mapping[str, object]) -> dict[str, Value]:
    """The first proposal, in the order of `kinds`.

    Raises:
        ConfigError: a hyperparameter that cannot travel, or a start that is none of its kind.
    """
    check_kinds(kinds, TAKEN)
    if len(kinds) >= MOST_ENTRIES:
        raise ConfigError(f"{len(kinds)} hyperparameters: a record holds fewer than {MOST_ENTRIES}")
    return check_values(kinds, start, "start")


def report_entries(values: Mapping[str, Any], score: Any = None) -> dict[str, Value]:
    """A report as it travels; NumPy's numbers become plain ones.

    Raises:
        ConfigError: a value that is no number and no text, a name that means something else, or a score that is no
            finite number.

    >>> report_entries({"lr": 0.1, "k": 5}, score=0.75)
    {'lr': 0.1, 'k': 5, 'validation-score': 0.75}
    """
    entries: dict[str, Value] = {}
    for name, value in values.items():
        if name in TAKEN:
            raise ConfigError(f"report({name!r}): a message uses this name for something else")
        plain = value.item() if isinstance(value, np.generic) else value
        if isinstance(plain, bool) or not isinstance(plain, int | float | str):
            raise ConfigError(f"report({name!r}: {value!r}): expected a number or a text")
        entries[name] = plain
    if score is not None:
        plain = score.item() if isinstance(score, np.generic) else score
        if isinstance(plain, bool) or not isinstance(plain, int | float) or not math.isfinite(plain):
            raise ConfigError(f"report(score={score!r}): expected a finite number, higher is better; leave it out")
        entries[SCORE] = float(plain)
    return entries


def read_report(entries: Mapping[str, object], kinds: Mapping[str, Kind], weight: object = 1.0) -> Told:
    """What can be used of a report from outside; never raises.

    >>> from flower_edge.tuning import LogScale
    >>> read_report({"lr": 0.1, "epochs": 3, "validation-score": 0.5}, {"lr": LogScale(1e-4, 1.0)})
    Told(values={'lr': 0.1}, score=0.5, left_out={'unknown': 1})
    """
    if len(entries) > MOST_ENTRIES:
        return Told({}, None, {"entries": 1})
    score = entries.get(SCORE)
    if reason := problem_of(weight, score):
        return Told({}, None, {reason: 1})
    values: dict[str, Value] = {}
    left_out: dict[str, int] = {}
    for name, value in entries.items():
        if name == SCORE:
            continue
        if reason := kinds[name].problem(value) if name in kinds else "unknown":
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            values[name] = as_told(kinds[name], value)
    return Told(values, None if score is None else float(score), left_out)  # type: ignore[arg-type]
