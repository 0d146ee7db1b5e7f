"""What a chain of grids can tell or do beyond Flower's Grid: the time, a wait, how long a node took, an early end.

Asked by name through the chain, from the outermost grid in: a grid that has the ability answers, none has to. Nothing
here keeps anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from flwr.serverapp import Grid

from .clock.trips import Trip
from .wrapped_grid import chain

__all__ = ["awaits", "cutting_off", "last_duration_s", "last_trip", "most_nodes", "now_s", "wait_until"]


def now_s(grid: Grid) -> float | None:
    """The virtual time of the first grid in the chain that has one; `None` without a virtual clock."""
    for link in chain(grid):
        time_s = getattr(link, "now_s", None)
        if isinstance(time_s, int | float):
            return float(time_s)
    return None


def wait_until(grid: Grid, time_s: float) -> bool:
    """Let virtual time pass until `time_s`, where a grid of the chain can do that; False where nobody has a clock.

    Nothing happens, and it is True, where that time is over already.

    Raises:
        ConfigError: not a finite time.
    """
    for link in chain(grid):
        wait = getattr(link, "wait_until", None)
        if callable(wait):
            wait(time_s)
            return True
    return False


def last_duration_s(grid: Grid, node_id: int) -> float | None:
    """Seconds from sending to reply of the node's last answered training message; `None` where nobody knows."""
    found: Any = _first_answer(grid, "last_duration_s", node_id)
    return None if found is None else float(found)


def last_trip(grid: Grid, node_id: int) -> Trip | None:
    """The node's last training message there and back on a virtual clock; `None` where nobody knows."""
    found: Trip | None = _first_answer(grid, "last_trip", node_id)
    return found


def awaits(grid: Grid, message_id: str) -> bool:
    """Whether replies to a message are still to come, by the first grid in the chain that can tell; else False."""
    return bool(_first_answer(grid, "awaits", message_id))


def most_nodes(grid: Grid) -> int | None:
    """How many nodes there can ever be on the Grid; `None` where more may come, as on any of Flower's own."""
    for link in chain(grid):
        most = getattr(link, "most_nodes", None)
        if isinstance(most, int):
            return most
    return None


def _first_answer(grid: Grid, ability: str, of: int | str) -> Any:
    for link in chain(grid):
        ask = getattr(link, ability, None)
        if callable(ask) and (found := ask(of)) is not None:
            return found
    return None


@contextmanager
def cutting_off(grid: Grid, count: int | None) -> Iterator[None]:
    """Let exchanges inside the block end at `count` usable replies, where a grid of the chain can do that."""
    able = None if count is None else next((link for link in chain(grid) if hasattr(link, "cut_off_at")), None)
    block: Any = nullcontext() if able is None else getattr(able, "cut_off_at")(count)  # noqa: B009
    with block:
        yield
