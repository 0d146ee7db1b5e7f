"""`Ways`: a stage's channels to the machines behind it, one for each address that a version names.

The latest that a version was loaded with is told last. Nothing here knows versions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any, Final

from ...transport.credentials import split_address
from ...transport.transport import Connection
from .onward import Onward
from .settings import ServingLimits

__all__ = ["Ways"]

_CLOSE_S: Final = 2.5


class Ways:
    """Threads may call all of it.

    Args:
        dial: opens a channel to a machine at an address.
        limits: time-outs.
    """

    def __init__(self, dial: Callable[[str, str], Connection], limits: ServingLimits) -> None:
        self._dial, self._limits = dial, limits
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], Onward] = {}

    def to(self, machine: str, address: str, behind: int) -> Onward:
        """The way to a machine at an address; dialled when there is something to send.

        Raises:
            ConfigError: an address that is none.
        """
        split_address(address)
        with self._lock:
            found = self._open.pop((machine, address), None)
            if found is None:
                found = Onward(machine, address, lambda: self._dial(machine, address), self._limits, behind)
            self._open[machine, address] = found
            # Whoever controls the deployment has reached every machine a moment ago.
            found.again()
            return found

    def measures(self) -> list[dict[str, Any]]:
        """Of each, see `Onward.measures`."""
        with self._lock:
            return [one.measures() for one in self._open.values()]

    def keep(self, used: Collection[Onward]) -> None:
        """End all others over which nothing is under way: a relay that moved leaves threads and a channel behind."""
        with self._lock:
            left = [key for key, one in self._open.items() if one not in used and one.idle]
            ways = [self._open.pop(key) for key in left]
        _end(ways, 0.0)

    def close(self) -> None:
        """End them all at once, in bounded time: a machine that hangs takes as long to leave as it may."""
        with self._lock:
            ways = list(self._open.values())
        _end(ways, _CLOSE_S)


def _end(ways: Collection[Onward], most_s: float) -> None:
    ends = [threading.Thread(target=one.close, name=f"stage leaves {one.machine}", daemon=True) for one in ways]
    for end in ends:
        end.start()
    until_s = time.monotonic() + most_s
    for end in ends:
        end.join(max(0.0, until_s - time.monotonic()))
