"""`ReadyTimes`: when models will be ready, as far as it can be known from the rounds so far.

P is random. A plan that is good for the mean of P waits, in most rounds, for a node that is late; so plans of this room
are held against the mean of the largest of P[j] + M[j], with M[j] what comes after P on the slowest link that carries
j's model. The distribution of P is the measured one: a place per node, as far as nodes differ for good, and the
deviations of all nodes from their places, pooled. Nothing here chooses anything.

Letters:
    P[j]   from the start of a round until node j's model is ready   s   [nodes]
    M[j]   from then until everybody who hears j has it              s   [nodes]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..topology.rows import Floats

__all__ = ["ReadyTimes", "forget", "ready_times", "remember_ready"]

#: Deviations kept for the pooled distribution, about; and rounds at most and at least.
_KEPT, _MOST, _LEAST = 2048, 64, 4
#: Cells of the table of log F, and points of an integral over it.
_CELLS, _POINTS = 1024, 65
#: log of the probability of what has never been seen.
_NEVER = -60.0


@dataclass(frozen=True, eq=False)
class ReadyTimes:
    """P[j] = place_s[j] + a deviation, drawn independently for each node and round.

    Attributes:
        place_s: float64 [nodes], seconds.
        deviations_s: deviations seen, ascending, float64 [any number but 0], seconds.

    >>> exactly = ReadyTimes(np.array([1.0, 2.0]), np.zeros(1))
    >>> round(float(exactly.largest_s(np.array([3.0, 0.5]))), 6)  # 1 + 3 and 2 + 0.5
    4.0
    """

    place_s: Floats
    deviations_s: Floats

    @cached_property
    def _span_s(self) -> float:
        return max(float(self.deviations_s[-1] - self.deviations_s[0]), 1e-9)

    @cached_property
    def _log_f(self) -> Floats:
        """log of the share of deviations up to x, for x from the least seen to the largest, [cells + 1]."""
        seen = self.deviations_s
        at = np.linspace(seen[0], seen[0] + self._span_s, _CELLS + 1)
        share = np.interp(at, seen, (np.arange(len(seen)) + 0.5) / len(seen))
        share[0], share[-1] = np.exp(_NEVER), 1.0
        return np.asarray(np.log(share))

    @property
    def latest_s(self) -> Floats:
        """The latest each model has to be expected, float64 [nodes]."""
        return np.asarray(self.place_s + self.deviations_s[-1])

    def _logs(self, after_s: Floats) -> tuple[Floats, Floats, Floats]:
        """Least possible largest [..., 1]; table positions [..., nodes, points]; log F of the largest [..., points]."""
        low = self.place_s + after_s + self.deviations_s[0]
        first = low.max(axis=-1, keepdims=True)
        steps = np.linspace(0.0, _CELLS, _POINTS)
        position = (first - low)[..., None] * (_CELLS / self._span_s) + steps
        cell = np.minimum(position, _CELLS).astype(np.intp)
        return first, position, self._log_f[cell].sum(axis=-2)

    def largest_s(self, after_s: Floats) -> Floats:
        """E max over j of P[j] + M[j]: the mean true time of a round, seconds.

        Args:
            after_s: M, float64 [..., nodes]; any number of plans at once.
        """
        if after_s.shape[-1] == 0:
            return np.zeros(after_s.shape[:-1])
        first, _, logs = self._logs(after_s)
        missed = 1.0 - np.exp(logs)
        width = self._span_s / (_POINTS - 1)
        return np.asarray(first[..., 0] + width * (missed.sum(-1) - 0.5 * (missed[..., 0] + missed[..., -1])))

    def slope(self, after_s: Floats) -> Floats:
        """The derivative of `largest_s` by each M[j], float64 [nodes]: how often the round waits for j. Sums to 1."""
        _, position, logs = self._logs(after_s)
        # Over one step of the integral: what lies between two of its points is not lost.
        half = _CELLS // (_POINTS - 1) // 2
        above = np.minimum(position + half, _CELLS).astype(np.intp)
        below = np.clip(position - half, 0, _CELLS).astype(np.intp)
        density = self._log_f[above] - self._log_f[below]
        waits = (density * np.exp(logs)).sum(axis=-1)
        return np.asarray(waits / waits.sum()) if waits.sum() > 0 else (after_s == after_s.max()).astype(np.float64)


def forget(nodes: int, expected_s: Floats | None = None) -> dict[str, Any]:
    """The memory of P before the first round, for a state. With what is expected, float64 [nodes], if anything is."""
    rounds = int(np.clip(_KEPT // max(nodes, 1), _LEAST, _MOST))
    expected = np.full(nodes, np.nan) if expected_s is None else np.asarray(expected_s, np.float64)
    return {
        "last_s": np.full((rounds, nodes), np.nan),
        "sum_s": np.zeros(nodes),
        "square_s": np.zeros(nodes),
        "count": np.zeros(nodes),
        "expected_s": expected,
    }


def remember_ready(memory: dict[str, Any], processing_s: Floats) -> dict[str, Any]:
    """The memory after a further round; P of a silent node is NaN and counts for nothing."""
    heard = np.isfinite(processing_s)
    value = np.where(heard, processing_s, 0.0)
    return memory | {
        "last_s": np.concatenate([memory["last_s"][1:], processing_s[None]]),
        "sum_s": memory["sum_s"] + value,
        "square_s": memory["square_s"] + value**2,
        "count": memory["count"] + heard,
    }


def ready_times(memory: dict[str, Any]) -> ReadyTimes:
    """What the memory says about P.

    A node's place is its own mean, drawn towards the mean of all by as much of the differences between nodes as the
    differences between rounds explain (James and Stein 1961; the variance components of a one-way layout). With P
    independent of the node all places end at the same value, with fast and slow devices at their own.
    """
    count, total = memory["count"], memory["sum_s"]
    heard = count > 0
    if not heard.any():
        expected = memory["expected_s"]
        known = np.isfinite(expected)
        rest = float(expected[known].mean()) if known.any() else 0.0
        return ReadyTimes(np.where(known, expected, rest), np.zeros(1))
    mean = np.where(heard, total / np.maximum(count, 1.0), 0.0)
    centre = float(total.sum() / count.sum())
    place = np.full(len(count), centre)
    often = count >= 2
    if often.sum() >= 2:
        inside = np.maximum(memory["square_s"] - count * mean**2, 0.0)[often].sum() / (count[often] - 1.0).sum()
        by_chance = float((inside / count[often]).mean())
        between = float(mean[often].var(ddof=1))
        own = max(0.0, 1.0 - by_chance / between) if between > 0.0 else 0.0
        place = np.where(heard, centre + own * (mean - centre), centre)
    deviations = memory["last_s"] - place
    return ReadyTimes(place, np.sort(deviations[np.isfinite(deviations)]))
