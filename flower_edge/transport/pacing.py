"""`Pace`: when the next piece of a message may leave, so that a link stays within the rate it was allotted.

A message of n bits has left n/rate seconds after it began, like on a link of that rate: a piece leaves when its own
time on such a link is over. Time nobody used is lost, so there is no burst after a pause; a piece that left late
(sleeping is not exact) is made up for, by at most one piece. Hence, over any w seconds,

    bits <= rate * w + two pieces

and with pieces of 10 ms of the rate, no second carries more than 1.02 times the rate. Below 3.28 Mbit/s a piece is
4096 bytes, and the bound is two of those.

This is the generic cell rate algorithm (ITU-T I.371) with a tolerance of one piece. Nothing here sends.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ..errors import ConfigError

__all__ = ["LEAST_PIECE_BYTES", "PIECE_S", "Pace", "piece_bytes"]

#: A piece is what the rate carries in this time …
PIECE_S = 0.01
#: … but never less than this: smaller ones cost more than they smooth.
LEAST_PIECE_BYTES = 4096


def piece_bytes(bps: float | None, most_bytes: int) -> int:
    """Bytes to send at once at a rate of `bps`; None is no limit.

    >>> piece_bytes(20e6, 1 << 20), piece_bytes(1e5, 1 << 20), piece_bytes(None, 1 << 20)
    (25000, 4096, 1048576)
    """
    if bps is None or bps * PIECE_S / 8 >= most_bytes:
        return most_bytes
    return min(most_bytes, max(LEAST_PIECE_BYTES, int(bps * PIECE_S / 8)))


class Pace:
    """The state of one direction of a connection. Not for several threads at once: its owner has the lock.

    Args:
        bps: bits per second; None is no limit.
        clock: seconds, monotonic.

    Raises:
        ConfigError: a rate that is not above 0.

    A second of time for a second's worth of bits, and none for waiting:

    >>> now = [100.0]
    >>> pace = Pace(1000.0, clock=lambda: now[0])
    >>> pace.begin()
    >>> pace.book(500)
    >>> pace.wait_s()
    0.5
    >>> now[0] += 0.25
    >>> pace.change(250.0)  # what is still to go is slower from here on
    >>> pace.wait_s()
    1.0
    """

    def __init__(self, bps: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bps = _checked(bps)
        # When everything booked so far has left.
        self._free_s = -math.inf

    @property
    def bps(self) -> float | None:
        """The rate now."""
        return self._bps

    def piece_bytes(self, most_bytes: int) -> int:
        """How much to send at once at the rate now."""
        return piece_bytes(self._bps, most_bytes)

    def begin(self) -> None:
        """A message begins now; time that nobody used before gives it nothing."""
        self._free_s = max(self._free_s, self._clock())

    def book(self, bits: int) -> None:
        """The next piece has so many bits; it may leave when `wait_s` has come to 0."""
        if self._bps is not None:
            own_s = bits / self._bps
            self._free_s = max(self._free_s, self._clock() - own_s) + own_s

    def wait_s(self) -> float:
        """Seconds until what was booked last may leave; 0 at once."""
        return 0.0 if self._bps is None else max(0.0, self._free_s - self._clock())

    def change(self, bps: float | None) -> None:
        """Another rate from now on, for what was booked and has not left as well.

        Raises:
            ConfigError: a rate that is not above 0.
        """
        new = _checked(bps)
        now_s = self._clock()
        left_s = self._free_s - now_s
        if left_s > 0.0:
            self._free_s = now_s + (0.0 if new is None or self._bps is None else left_s * self._bps / new)
        self._bps = new


def _checked(bps: float | None) -> float | None:
    if bps is None:
        return None
    if not 0.0 < bps < math.inf:
        raise ConfigError(f"a pace of {bps!r} bit/s: expected a number above 0, or None for no limit")
    return float(bps)
