"""`Window`: the latest of a kind of seconds, and their quantiles. Safe to use from several threads."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

__all__ = ["Window"]


class Window:
    """The latest `most` numbers.

    >>> window = Window(3)
    >>> for seconds in (9.0, 1.0, 2.0, 3.0):
    ...     window.add(seconds)
    >>> window.summary()
    {'count': 4, 'p50_s': 2.0, 'p99_s': 3.0}
    """

    def __init__(self, most: int = 4096) -> None:
        self._latest: deque[float] = deque(maxlen=most)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """One more."""
        with self._lock:
            self._latest.append(seconds)
            self._count += 1

    def summary(self) -> dict[str, float | int]:
        """How many there ever were, and of the latest the median and the 99th percentile: values that occurred."""
        with self._lock:
            latest, count = list(self._latest), self._count
        if not latest:
            return {"count": 0, "p50_s": 0.0, "p99_s": 0.0}
        p50, p99 = np.quantile(latest, [0.5, 0.99], method="higher")
        return {"count": count, "p50_s": float(p50), "p99_s": float(p99)}
