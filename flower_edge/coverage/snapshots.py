"""A few remembered states of something computed step by step, so that going on is quick and going back possible.

What is remembered never changes an answer, only how long it takes. The states are whatever the caller computes; they
must not be changed afterwards.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Generic, TypeVar

__all__ = ["Snapshots"]

T = TypeVar("T")


class Snapshots(Generic[T]):
    """States by when they hold, at most `most` of them: the first one always, recent ones more densely than old ones.

    >>> kept = Snapshots(0.0, "start", most=3)
    >>> for second in range(1, 6):
    ...     kept.remember(float(second), f"after {second} s")
    >>> kept.last_before(5.5), kept.last_before(0.5)
    ((5.0, 'after 5 s'), (0.0, 'start'))
    """

    def __init__(self, key: float, state: T, *, most: int = 16) -> None:
        self._most = most
        # Replaced as a whole, never changed in place: a thread that reads meanwhile sees the old ones.
        self._kept: tuple[tuple[float, ...], tuple[T, ...]] = ((key,), (state,))

    def last_before(self, key: float) -> tuple[float, T]:
        """The latest remembered state that holds at `key` or earlier, and since when it holds."""
        keys, states = self._kept
        place = bisect_right(keys, key) - 1
        return keys[place], states[place]

    def remember(self, key: float, state: T) -> None:
        """Keep a state that holds at `key`; another one may be forgotten for it."""
        keys, states = self._kept
        place = bisect_left(keys, key)
        if place < len(keys) and keys[place] == key:
            return
        keys = (*keys[:place], key, *keys[place:])
        states = (*states[:place], state, *states[place:])
        if len(keys) > self._most:
            # The one whose absence costs least for its age, so that the gaps grow towards the past.
            newest = keys[-1]
            drop = min(range(1, len(keys) - 1), key=lambda i: (keys[i + 1] - keys[i - 1]) / (newest - keys[i - 1]))
            keys, states = keys[:drop] + keys[drop + 1 :], states[:drop] + states[drop + 1 :]
        self._kept = (keys, states)
