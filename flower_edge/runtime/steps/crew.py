"""`Crew`: what the tasks of one cell and one round know of one another.

Who was asked, when it began, how fast the others are. Nothing here sends or decides.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

__all__ = ["Crew"]


class Crew:
    """The nodes that work on one round of one cell.

    Args:
        cell: the edge; empty where there is only one federation.
        round: the strategy's round; 0 where it tells none.

    Attributes:
        asked: nodes that have or had a task here.
        begun_s: when the first task was sent; `None` before.
        working: tasks that have not ended.

    >>> crew = Crew("edge-0", 3)
    >>> crew.paced("a", 2.0); crew.paced("b", 4.0); crew.paced("b", 8.0)
    >>> crew.median_step_s
    5.0
    """

    def __init__(self, cell: str, round: int) -> None:
        self.cell = cell
        self.round = round
        self.asked: frozenset[int] = frozenset()
        self.begun_s: float | None = None
        self.working = 0
        self._pace_of: dict[str, float] = {}
        self._paces: list[float] = []  # sorted: the median is asked for after every slice

    def ask(self, nodes: Iterable[int]) -> None:
        """These nodes have been given a task."""
        self.asked |= frozenset(nodes)

    def paced(self, task: str, step_s: float) -> None:
        """A task has made its steps at so many seconds each so far."""
        if (before := self._pace_of.get(task)) is not None:
            del self._paces[bisect_left(self._paces, before)]
        self._pace_of[task] = step_s
        insort(self._paces, step_s)

    def step_s(self, task: str) -> float | None:
        """Seconds per step of a task; `None` before its first step."""
        return self._pace_of.get(task)

    @property
    def median_step_s(self) -> float | None:
        """Median of the tasks' seconds per step; `None` where none has made one."""
        if not self._paces:
            return None
        middle, odd = divmod(len(self._paces), 2)
        return self._paces[middle] if odd else (self._paces[middle - 1] + self._paces[middle]) / 2
