"""A policy that learns from recorded iterations: what a step costs in the metric, by ridge regression.

What a step saves is known before it is tried; what it costs is not. `CostModel` estimates it from the method, how far
the step goes (octaves) and how far the connection was compressed by then (depth, octaves as well):

    loss of the metric ~ for each method: a + b octaves + c depth + d octaves^2 + e octaves depth

`Learned` then tries what can be expected to save most seconds: those saved times the probability that the floor holds,
with the model's error taken as normal. It chooses among steps half as long, as long and twice as long as the rules'.
Nothing here compresses.

Source: ridge regression: Hoerl, Kennard, "Ridge regression", Technometrics 1970.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import FringeError
from .actions import METHODS, Candidate
from .history import Iteration
from .metrics import Metric, metric_named

__all__ = ["CostModel", "Learned"]

Array = npt.NDArray[np.float64]
_PER_METHOD = 5


def _features(method: str, before_bytes: float, after_bytes: float, fraction: float) -> Array:
    """Zero but for the terms of its method."""
    octaves = math.log2(before_bytes / after_bytes)
    depth = -math.log2(fraction) - octaves  # before this step
    row = np.zeros(_PER_METHOD * len(METHODS))
    at = _PER_METHOD * METHODS.index(method)
    row[at : at + _PER_METHOD] = (1.0, octaves, depth, octaves * octaves, octaves * depth)
    return row


@dataclass(frozen=True, eq=False)
class CostModel:
    """What a step costs in the metric.

    Attributes:
        weights: of the terms.
        spread: standard deviation of what it gets wrong, of the metric; with few iterations a cautious guess.
        seen: by method, from how many iterations it was learned.
    """

    weights: Array
    spread: float
    seen: Mapping[str, int]

    @classmethod
    def fit(
        cls, iterations: Sequence[Iteration], metric: Metric | str = "accuracy", *, ridge: float = 0.1
    ) -> CostModel:
        """Learn from what was tried, of one run or of several.

        Args:
            iterations: those that were not evaluated do not count.
            metric: of their scores.
            ridge: how much weights are drawn to 0, above 0.

        Raises:
            FringeError: no iteration that was evaluated, or a ridge that is not above 0.
        """
        judge = metric_named(metric)
        rows, lost, seen = [], [], dict.fromkeys(METHODS, 0)
        for one in iterations:
            if one.after_score is None or not math.isfinite(one.after_score):
                continue
            before, after = one.before_bytes[one.connection], one.after_bytes[one.connection]
            rows.append(_features(one.method, before, after, float(one.features["fraction"])))
            lost.append(judge.lost(one.after_score, one.before_score))
            seen[one.method] += 1
        if not rows or not ridge > 0:
            raise FringeError(
                f"{len(rows)} evaluated iterations and ridge = {ridge}: expected one or more, and above 0"
            )
        X, y = np.stack(rows), np.array(lost)
        weights = np.linalg.solve(X.T @ X + ridge * np.eye(X.shape[1]), X.T @ y)
        wrong = y - X @ weights
        # Terms that were fitted make the error look smaller than it is on what comes next.
        free = max(1, len(y) - int(np.count_nonzero(np.abs(X).sum(axis=0))))
        spread = math.sqrt(float(wrong @ wrong) / free)
        return cls(weights, max(spread, 1e-4), seen)

    def lost(self, candidate: Candidate) -> float:
        """What it would cost in the metric; above 0 is worse."""
        one = _features(
            candidate.action.method, candidate.before_bytes, candidate.after_bytes, candidate.fraction
        )  # fmt: skip
        return float(one @ self.weights)

    def holds(self, candidate: Candidate, slack: float) -> float:
        """Probability that it costs no more than `slack`."""
        return 0.5 * math.erfc((self.lost(candidate) - slack) / (self.spread * math.sqrt(2.0)))

    def state(self) -> dict[str, Any]:
        """Plain values and an array; `from_state` is its inverse."""
        return {"weights": self.weights.copy(), "spread": self.spread, "seen": dict(self.seen)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CostModel:
        """Inverse of `state`.

        Raises:
            FringeError: no such state.
        """
        try:
            weights = np.asarray(state["weights"], dtype=np.float64)
            model = cls(weights, float(state["spread"]), {str(k): int(n) for k, n in state["seen"].items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FringeError(f"a cost model of {state!r:.120}: {error}; expected what state() gives") from error
        if weights.shape != (_PER_METHOD * len(METHODS),) or not np.isfinite(weights).all() or not model.spread > 0:
            raise FringeError(
                f"a cost model of weights {weights.shape} and spread {model.spread}; expected "
                f"{_PER_METHOD * len(METHODS)} finite ones, and above 0"
            )
        return model


@dataclass(frozen=True, eq=False)
class Learned:
    """Tries what can be expected to save most. A method that the model never saw is tried as the rules would, last.

    Attributes:
        model: of what steps cost.
        multiples: of the step book's steps, among which it chooses.
    """

    model: CostModel
    multiples: tuple[float, ...] = (0.5, 1.0, 2.0)

    def choose(self, candidates: Sequence[Candidate], slack: float) -> Candidate:
        """See `Policy.choose`."""
        known = [one for one in candidates if self.model.seen.get(one.action.method, 0)] or list(candidates)
        return max(known, key=lambda one: (self.gain_s(one, slack), -one.action.connection, -one.action.octaves))

    def gain_s(self, candidate: Candidate, slack: float) -> float:
        """Seconds of an inference that it can be expected to save."""
        return candidate.saved_s * self.model.holds(candidate, slack)
