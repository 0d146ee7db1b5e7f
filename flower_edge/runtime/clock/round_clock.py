"""`RoundClock`: virtual time for a Grid whose messages take none; whoever knows how long a round lasts moves it.

A gossip round lasts as long as its slowest link, which the controller computes; the messages to and from the server
are not what is timed. Where a `VirtualClock` times every message, that one is moved instead, and this is not needed.
Nothing here measures, sleeps or delays a message.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flwr.serverapp import Grid

from ...errors import ConfigError, NestingError
from ..wrapped_grid import WrappedGrid, chain

__all__ = ["RoundClock"]


class RoundClock(WrappedGrid):
    """Passes everything on, and has a time that `wait_until` moves.

    Args:
        inner: the Grid.
        start_s: the virtual time at the beginning.

    Raises:
        ConfigError: `start_s` is not a finite time.
        NestingError: a grid inside has a time already.

    >>> from flwr.clientapp import ClientApp
    >>> from flower_edge.runtime.local_grid import LocalGrid
    >>> with LocalGrid(ClientApp(), nodes=2) as local:
    ...     clock = RoundClock(local)
    ...     clock.wait_until(clock.now_s + 1.75)
    ...     clock.wait_until(1.0)
    ...     clock.now_s
    1.75
    """

    def __init__(self, inner: Grid, *, start_s: float = 0.0) -> None:
        super().__init__(inner)
        if any(isinstance(getattr(link, "now_s", None), int | float) for link in chain(inner)):
            raise NestingError("RoundClock around a clock: a grid has one time; keep one of them")
        if not math.isfinite(start_s):
            raise ConfigError(f"start_s = {start_s}: expected a finite time in seconds")
        self._now_s = float(start_s)

    @property
    def now_s(self) -> float:
        """The virtual time. It never runs backwards."""
        return self._now_s

    def wait_until(self, time_s: float) -> None:
        """Let virtual time pass until `time_s`; nothing happens where that is over already.

        Raises:
            ConfigError: not a finite time.
        """
        if not math.isfinite(time_s):
            raise ConfigError(f"wait_until({time_s}): expected a finite time in seconds")
        self._now_s = max(self._now_s, float(time_s))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: the time."""
        return {"now_s": self._now_s}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._now_s = float(state["now_s"])
