"""What each reply of a round was worth: Shapley values of the merges that coalitions of replies would have made.

    v(S)    score, on held-out data, of the model before the round moved by the weighted mean of the updates in S,
            where those outside S either count as not moved (`absent="idle"`) or are left out of the mean

With those outside S idle, a reply that does nothing is a null player. Left out of the mean, as in the papers, it is
not: it shortens the step of the others, and where their step is too long that has a value.

Nothing here trains, pays or knows Flower's messages.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flower_edge.contribution.exact import exact_shapley
from flower_edge.contribution.game import Contribution
from flower_edge.contribution.leave_one_out import leave_one_out
from flower_edge.contribution.truncated import Sampling, shapley, truncated_shapley
from flower_edge.errors import ConfigError
from flower_edge.filtering.judging import Evaluate
from flower_edge.runtime.generators import kept_generators
from flower_edge.updates.merges import Merges
from flower_edge.updates.update import Arrays, Update

from .replies import began_with
from .state import Pending

__all__ = ["Absent", "Method", "Score", "Worth", "worth_of"]

log = getLogger("flwr.edge")

Method = Literal["auto", "exact", "truncated", "leave-one-out"]
Score = Literal["loss", "accuracy"]
Absent = Literal["idle", "left-out"]

#: A merge that is worse than the model before by more than so many times its score counts as just that bad: one
#: hostile update would else outweigh all others in everybody's mean.
_WORST = 10.0
_FEW = 64


@dataclass(frozen=True)
class Worth:
    """What the replies of a round were worth.

    Attributes:
        found: values, evaluations and bounds; `None` where the model before the round cannot be scored.
        before: score of the model before the round.
        seconds_s: wall time it took.
    """

    found: Contribution | None
    before: float
    seconds_s: float


def worth_of(
    replies: Sequence[Pending],
    weights: Sequence[float],
    before: Arrays,
    number: int,
    evaluate: Evaluate,
    *,
    method: Method,
    score: Score,
    absent: Absent,
    sampling: Sampling,
    rng: np.random.Generator,
) -> Worth:
    """Measure a round's replies against each other.

    Args:
        replies: players, in an order that does not depend on when they came.
        weights: of each in the mean.
        before: the model before the round.
        number: the exchange; replies to an earlier one count as what they have moved by.
        evaluate: a model to what it does on held-out data. What it draws from global generators does not stay drawn.
            A `ValueError` or `ArithmeticError` over a merge is the worst score; over the model before it is raised.
        method: see `Rewarded`.
        score: which of its numbers counts.
        absent: what becomes of those that are not in a coalition.
        sampling: when sampling stops.
        rng: for sampled orders.
    """
    begun_s = time.perf_counter()
    updates = [_update(reply, weight, before, number) for reply, weight in zip(replies, weights, strict=True)]
    merge = _Merging(Merges(before, updates), range(len(replies)) if absent == "idle" else ())

    def value(coalition: frozenset[int]) -> float:
        with np.errstate(all="ignore"):  # a merge that overflows is told by its score
            found = evaluate(merge(coalition))
        if not hasattr(found, score):
            raise ConfigError(
                f"evaluate returned {str(found)[:80]}; expected what has a loss and an accuracy, "
                "such as EvalResult(0.3, 0.9, 100)"
            )
        return -float(found.loss) if score == "loss" else float(found.accuracy)

    with kept_generators():
        base = value(frozenset())
        if not math.isfinite(base):
            return Worth(None, base, time.perf_counter() - begun_s)

        def known(coalition: frozenset[int]) -> float:
            try:
                return value(coalition) if coalition else base
            except (ArithmeticError, ValueError) as error:
                # It could score the model before: libraries refuse the infinities that a hostile reply brings.
                log.debug("the merge of replies %s could not be scored: %s", sorted(coalition), error)
                return math.nan

        floor = base - _WORST * max(1.0, abs(base))
        alike = _alike(replies, weights)
        players = len(replies)
        if method == "auto":
            found = shapley(known, players, rng, sampling=sampling, alike=alike, floor=floor)
        elif method == "exact":
            found = exact_shapley(known, players, alike=alike, floor=floor)
        elif method == "truncated":
            found = truncated_shapley(known, players, rng, sampling=sampling, alike=alike, floor=floor)
        else:
            found = leave_one_out(known, players, alike=alike, floor=floor)
    return Worth(found, base, time.perf_counter() - begun_s)


class _Merging:
    """Merges of coalitions. Of large replies one that is the last and some more takes what the last has added up.

    Nobody is ever taken out of a sum again: a reply of 1e30 would leave nothing of the others in it.

    Args:
        merges: of the round.
        everybody: who counts as not moved where it is not in a coalition.
    """

    def __init__(self, merges: Merges, everybody: Iterable[int]) -> None:
        self._merges = merges
        self._everybody = frozenset(everybody)
        self._running = merges.running()

    def __call__(self, coalition: frozenset[int]) -> dict[str, npt.NDArray[Any]]:
        idle = self._everybody - coalition
        if self._merges.kept:
            return self._merges.of(coalition, idle)
        if not self._running.members <= coalition:
            self._running = self._merges.running()
        for member in sorted(coalition - self._running.members):
            self._running.add(member)
        return self._running.model(idle)


def _update(reply: Pending, weight: float, before: Arrays, number: int) -> Update:
    given = reply.given
    if reply.difference or given.number == number:
        return Update(reply.key, reply.arrays, before, weight, given.manifest, reply.difference)
    # It began from an older model: what it has moved by is its own, what the model has moved by since is not.
    began = began_with(given)
    moved: dict[str, npt.NDArray[Any]] = {
        name: array - began[name] if array.dtype.kind == "f" else array.astype(np.float64) - began[name]
        for name, array in reply.arrays.items()
    }
    return Update(reply.key, moved, before, weight, given.manifest, True)


def _alike(replies: Sequence[Pending], weights: Sequence[float]) -> list[list[int]]:
    """Places of replies that are equal in all that counts."""
    # Nearly always the first numbers tell, and the rest of a large model need not be read.
    groups: dict[tuple[object, ...], list[list[int]]] = {}
    for place, reply in enumerate(replies):
        first = (weights[place], *(array.flat[:_FEW].tobytes() for array in reply.arrays.values()))
        maybe = groups.setdefault(first, [])
        for group in maybe:
            if _same(replies[group[0]], reply):
                group.append(place)
                break
        else:
            maybe.append([place])
    return [group for maybe in groups.values() for group in maybe if len(group) > 1]


def _same(one: Pending, other: Pending) -> bool:
    return (
        one.difference == other.difference
        and one.given.number == other.given.number
        and (one.given.manifest is other.given.manifest or one.given.sent is other.given.sent)
        and one.arrays.keys() == other.arrays.keys()
        and all(np.array_equal(array, other.arrays[name]) for name, array in one.arrays.items())
    )
