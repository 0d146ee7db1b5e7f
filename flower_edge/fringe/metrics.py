"""`Metric`: a number that says how good outputs are, and which way is better. Some of them by name.

Nothing here runs a model: see `evaluation_torch`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import FringeError

__all__ = ["METRICS", "Metric", "metric_named"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Metric:
    """How good outputs are.

    Attributes:
        name: for reports.
        of: of outputs [samples, ...] and labels, both NumPy arrays.
        larger_is_better: False for a loss.

    >>> METRICS["loss"].better(0.1, 0.2)
    True
    """

    name: str
    of: Callable[[Array, Array], float]
    larger_is_better: bool = True

    def better(self, one: float, other: float) -> bool:
        """Whether the first is strictly better."""
        return self.lost(one, other) < 0

    def lost(self, now: float, before: float) -> float:
        """How much worse `now` is; below 0 where it is better.

        >>> METRICS["loss"].lost(0.5, 0.25)
        0.25
        """
        return before - now if self.larger_is_better else now - before

    def signed(self, value: float) -> float:
        """So that larger is better."""
        return value if self.larger_is_better else -value


def _classes(outputs: Array, labels: Array) -> tuple[Array, Array]:
    """Named and true classes, flat: scores lie along the last axis."""
    named = outputs.argmax(axis=-1).reshape(-1)
    true = np.asarray(labels).reshape(-1)
    if len(named) != len(true) or not len(true):
        raise FringeError(f"{len(named)} outputs for {len(true)} labels; expected one of each, and one at least")
    return named, true


def _accuracy(outputs: Array, labels: Array) -> float:
    named, true = _classes(outputs, labels)
    return float((named == true).mean())


def _recall(outputs: Array, labels: Array) -> float:
    """Mean over the classes that occur, so that rare ones count alike."""
    named, true = _classes(outputs, labels)
    return float(np.mean([(named[true == one] == one).mean() for one in np.unique(true)]))


def _precision(outputs: Array, labels: Array) -> float:
    """Mean over the classes that occur; 0 for one that is never named."""
    named, true = _classes(outputs, labels)
    shares = [(true[named == one] == one).mean() if (named == one).any() else 0.0 for one in np.unique(true)]
    return float(np.mean(shares))


def _loss(outputs: Array, labels: Array) -> float:
    """Cross-entropy in nats."""
    _, true = _classes(outputs, labels)
    scores = outputs.reshape(-1, outputs.shape[-1]).astype(np.float64)
    scores = scores - scores.max(axis=-1, keepdims=True)
    return float((np.log(np.exp(scores).sum(axis=-1)) - scores[np.arange(len(true)), true]).mean())


def _error(outputs: Array, labels: Array) -> float:
    """Mean squared difference."""
    return float(np.square(outputs - np.asarray(labels).reshape(outputs.shape)).mean())


#: By name. Recall and precision are means over classes.
METRICS: Final = {
    "accuracy": Metric("accuracy", _accuracy),
    "recall": Metric("recall", _recall),
    "precision": Metric("precision", _precision),
    "loss": Metric("loss", _loss, larger_is_better=False),
    "error": Metric("error", _error, larger_is_better=False),
}


def metric_named(metric: Metric | str) -> Metric:
    """One of `METRICS`, or the metric itself.

    Raises:
        FringeError: no such name.
    """
    if isinstance(metric, Metric):
        return metric
    if metric not in METRICS:
        raise FringeError(f"metric = {metric!r}: expected one of {', '.join(METRICS)}, or Metric(name, function)")
    return METRICS[metric]
