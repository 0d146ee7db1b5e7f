"""A small search around a proposal, on a terminal's own data. It tries; what a trial is, the caller says.

Greedy: the proposal first, then neighbours of the best so far, one hyperparameter at a time. Our own; it is meant to
be cheap and to lean the right way, and the merge of many such leanings over rounds does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from .kinds import Kind, Value, check_values

__all__ = ["Found", "local_search"]


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        values: the best it tried.
        score: of these; `None` where no trial had a finite score, and then the values are the proposal's.
        gain: by how much it is better than the proposal's score; `None` where one of the two has no finite score.
        tried: trials made: what the search cost.
    """

    values: Mapping[str, Value]
    score: float | None
    gain: float | None
    tried: int


def local_search(
    proposed: Mapping[str, Value],
    kinds: Mapping[str, Kind],
    try_one: Callable[[dict[str, Value]], float],
    rng: np.random.Generator,
    tries: int = 3,
) -> Found:
    """The best of a few trials: the proposal, then neighbours of the best so far, drawn without repeating one.

    Args:
        proposed: the value of every hyperparameter in `kinds`; others are passed on to `try_one` as they are.
        kinds: of what is searched.
        try_one: trains and scores on a part of the terminal's data that it does not train on, higher is better. A
            score that is not finite is the worst. Each call costs what a training costs: with `tries=3` a round takes
            three times as long, unless the trials are shorter than the training. Keep the model of the best trial and
            no other training is needed.
        rng: of the draws.
        tries: how often `try_one` is called at most, 1 or more; it ends earlier where nothing is left to try.

    Raises:
        ConfigError: a proposal that is none of its kinds, or fewer than one try.

    >>> from flower_edge.tuning import Count
    >>> k = {"k": Count(1, 9)}
    >>> local_search({"k": 4}, k, lambda at: -abs(at["k"] - 6), np.random.default_rng(0), tries=4)
    Found(values={'k': 6}, score=0.0, gain=2.0, tried=4)
    """
    if type(tries) is not int or tries < 1:
        raise ConfigError(f"tries = {tries!r}: expected a whole number, 1 or more; the first try is the proposal")
    own = check_values(kinds, {name: value for name, value in proposed.items() if name in kinds}, "proposed")
    best: dict[str, Value] = {**proposed, **own}
    first = best_score = _score(try_one(dict(best)))
    seen = [best]
    while len(seen) < tries:
        near = [
            other
            for name, kind in kinds.items()
            for value in kind.neighbours(best[name])
            if (other := {**best, name: value}) not in seen
        ]
        if not near:
            break
        candidate = near[int(rng.integers(len(near)))]
        seen.append(candidate)
        score = _score(try_one(dict(candidate)))
        # An even trial does not win: where nothing matters, everybody reports the proposal.
        if score > best_score:
            best, best_score = candidate, score
    told = None if best_score == -math.inf else best_score
    gain = None if -math.inf in (first, best_score) else best_score - first
    return Found(best, told, gain, len(seen))


def _score(score: float) -> float:
    number = float(score)
    return number if math.isfinite(number) else -math.inf
