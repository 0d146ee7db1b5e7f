"""`Events`: what happened, in sentences with their time; the latest ones. Safe for several threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .told import Event

__all__ = ["Events"]


class Events:
    """See the module.

    Args:
        clock: seconds since the epoch.
        most: that are kept.

    >>> events = Events(lambda: 5.0)
    >>> events.add("submitted")
    >>> events.told()
    [{'time_s': 5.0, 'text': 'submitted'}]
    """

    def __init__(self, clock: Callable[[], float], most: int = 1000) -> None:
        self._clock = clock
        self._latest: deque[Event] = deque(maxlen=most)
        self._lock = threading.Lock()

    def add(self, text: str) -> None:
        """One more."""
        with self._lock:
            self._latest.append({"time_s": self._clock(), "text": text})

    def told(self) -> list[Event]:
        """All, the oldest first."""
        with self._lock:
            return [{"time_s": one["time_s"], "text": one["text"]} for one in self._latest]

    def resume(self, told: Iterable[Mapping[str, Any]]) -> None:
        """Put what `told` gave before what happened since. Twice does no harm.

        Raises:
            KeyError, TypeError, ValueError: no such events.
        """
        found: list[Event] = [{"time_s": float(one["time_s"]), "text": str(one["text"])} for one in told]
        with self._lock:
            since = [one for one in self._latest if one not in found]
            self._latest.clear()
            self._latest.extend([*found, *since])
