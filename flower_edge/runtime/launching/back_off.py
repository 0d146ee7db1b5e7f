"""How long to wait before something that ended is started again: longer each time, shorter after it went well."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["BackOff"]


class BackOff:
    """Waits that double.

    Args:
        first_s: the first wait.
        most_s: the longest.
        good_s: after so long without an end the waits begin anew; infinite: after `good` alone.
        clock: seconds that never go back.

    >>> waits = BackOff(first_s=5.0, most_s=30.0, good_s=60.0, clock=lambda: 0.0)
    >>> [waits.next_s() for _ in range(4)]
    [5.0, 10.0, 20.0, 30.0]
    >>> late = iter([0.0, 100.0, 200.0])
    >>> waits = BackOff(first_s=5.0, most_s=30.0, good_s=float("inf"), clock=lambda: next(late))
    >>> [waits.next_s() for _ in range(2)]
    [5.0, 10.0]
    """

    def __init__(
        self, *, first_s: float, most_s: float, good_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._first_s, self._most_s, self._good_s, self._clock = first_s, most_s, good_s, clock
        self._wait_s, self._began_s = first_s, clock()

    def began(self) -> None:
        """It was started."""
        self._began_s = self._clock()

    def good(self) -> None:
        """It works: the waits begin anew."""
        self._wait_s = self._first_s

    def next_s(self) -> float:
        """It has ended: wait so long."""
        if self._clock() - self._began_s >= self._good_s:
            self._wait_s = self._first_s
        wait_s, self._wait_s = self._wait_s, min(self._most_s, 2 * self._wait_s)
        return wait_s
