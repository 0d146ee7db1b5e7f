"""`Gently`: work in short turns with rests between, so that who is served meanwhile finds a core free."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from ...errors import FringeError

__all__ = ["Gently"]

#: The longest rest at once: a turn in which something else had the core was not that long a turn.
_MOST_REST_S: Final = 0.02


class Gently:
    """Called between the steps of some work, it rests when a turn of it is over. For one thread.

    Args:
        share: of one core that the work may take, above 0 and at most 1; 1: it never rests.
        turn_s: how long it may go on at once.
        clock, rest: to measure and to sleep by.

    Raises:
        FringeError: a share or turn that cannot be.

    >>> now, rested = [0.0], []
    >>> gently = Gently(0.25, turn_s=0.001, clock=lambda: now[0], rest=rested.append)
    >>> for now[0] in (0.0005, 0.0012, 0.0014):
    ...     gently()
    >>> [round(each, 6) for each in rested]
    [0.0036]
    """

    def __init__(
        self,
        share: float = 0.25,
        *,
        turn_s: float = 0.001,
        clock: Callable[[], float] = time.perf_counter,
        rest: Callable[[float], object] = time.sleep,
    ) -> None:
        if not 0.0 < share <= 1.0 or not turn_s > 0.0:
            raise FringeError(f"share = {share!r}, turn_s = {turn_s!r}: expected above 0 and at most 1, and above 0")
        self._rests, self._turn_s, self._clock, self._rest = 1.0 / share - 1.0, turn_s, clock, rest
        self._began_s = clock()

    def __call__(self) -> None:
        """Here it may rest."""
        took_s = self._clock() - self._began_s
        if took_s < self._turn_s or not self._rests:
            return
        self._rest(min(self._rests * took_s, _MOST_REST_S))
        self._began_s = self._clock()
