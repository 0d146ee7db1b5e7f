"""`Pulse`: whether the other end is still there, by when it was last heard. A value with a clock; it sends nothing.

Both ends say ALIVE when they have said nothing else for a while, so silence means that the other process hangs or the
network went. Only time in which this end listened counts: a reader that is held up by its own program hears nobody.

gRPC's keepalive cannot do this: its pings queue behind the data this end has sent, so that on a slow link it takes a
long upload for a dead peer. ALIVE comes the other way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ..errors import TransportError

__all__ = ["PeerSilent", "Pulse"]


class PeerSilent(TransportError):
    """Nothing has been heard for so long that the other end must be gone."""


class Pulse:
    """When the other end was last heard.

    Args:
        most_s: silence that means it is gone.
        clock: seconds, monotonic.

    >>> now = [0.0]
    >>> pulse = Pulse(10.0, clock=lambda: now[0])
    >>> pulse.listening()
    >>> now[0] = 4.0
    >>> pulse.left_s()
    6.0
    >>> pulse.busy()
    >>> now[0] = 400.0
    >>> pulse.left_s()
    inf
    """

    def __init__(self, most_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_s = most_s
        self._clock = clock
        self._since_s = math.inf

    def listening(self) -> None:
        """From now on this end hears what is said."""
        self._since_s = self._clock()

    def busy(self) -> None:
        """This end has heard something and does not listen for the moment."""
        self._since_s = math.inf

    def left_s(self) -> float:
        """Seconds of silence still allowed; never negative, infinite while nobody listens.

        Raises:
            PeerSilent: none.
        """
        left_s = self._since_s + self._most_s - self._clock()
        if left_s <= 0.0:
            raise PeerSilent(
                f"nothing was heard from the other end for {self._most_s:g} s: it hangs, or the network went"
            )
        return left_s
