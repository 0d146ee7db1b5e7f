"""A round to which nobody can contribute: how it is noticed, and how time passes instead of it.

Nobody is in coverage, or everybody left in the middle of it and the edge's policy let them go. A flat round and a
cloud round pass the time alike; how a flat one notices is here, too. Nothing here trains.
"""

from __future__ import annotations

import math
import time
from typing import Any

from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import ConfigError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.narrowed_grid import minimum_nodes
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.wrapped_grid import announce, find

__all__ = ["LetGo", "check_idle_s", "let_pass", "too_few"]


def check_idle_s(idle_s: Any) -> None:
    """Refuse what is no time.

    Raises:
        ConfigError: not a number of seconds above 0, nor `None`.
    """
    if idle_s is not None and not (type(idle_s) in (int, float) and 0 < idle_s < math.inf):
        raise ConfigError(f"idle_s = {idle_s!r}: expected seconds, more than 0, or None to wait and raise")


def too_few(strategy: Strategy, grid: Grid, round: Round) -> str:
    """Why a strategy could not sample in this round, before it waits for nodes; empty where it could."""
    announce(grid, round)
    need, have = minimum_nodes(strategy, round.kind), len(list(grid.get_node_ids()))
    return "" if have >= need else f"{have} of the {need} terminals its {type(strategy).__name__} needs are there"


class LetGo:
    """Whom a policy between slices lets go from now on: told to stop, dropped, or detached."""

    def __init__(self, grid: Grid) -> None:
        self._stepped = find(grid, SteppedGrid)
        self._seen = 0 if self._stepped is None else len(self._stepped.events)

    def nodes(self) -> set[int]:
        """Their ids; none where nothing is sent in slices."""
        events = [] if self._stepped is None else self._stepped.events[self._seen :]
        return {event.node_id for event in events if event.decision in ("drop", "detach", "stop")}


def let_pass(grid: Grid, idle_s: float, why: str) -> Event:
    """Let time pass, virtual time on a virtual clock, and tell it."""
    if (clock := find(grid, VirtualClock)) is None:
        time.sleep(idle_s)
    else:
        clock.wait_until(clock.now_s + idle_s)
    return Event("idle", f"nobody contributed ({why}); the model stays, {idle_s:g} s pass")
