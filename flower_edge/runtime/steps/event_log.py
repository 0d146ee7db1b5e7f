"""`EventLog`: what was decided about sliced tasks and what became of the work, as `StepEvent`s in order.

Nothing here decides or sends; `work` tells it.
"""

from __future__ import annotations

from collections.abc import Callable
from logging import getLogger

from .decisions import StepEvent
from .late import Late
from .task import Ending, SlicedTask

__all__ = ["EventLog"]

log = getLogger(__name__)


class EventLog:
    """The events of one `SteppedGrid`.

    Args:
        now_s: what time it is, seconds.

    Attributes:
        events: all of them, the oldest first.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.events: list[StepEvent] = []
        self._now_s = now_s

    def add(
        self,
        task: SlicedTask,
        request: str,
        decision: str,
        outcome: str,
        other_id: int | None = None,
        why: str = "",
    ) -> None:
        """A decision about a task as it is now, and what became of its work."""
        self.events.append(self.of(task, request, decision, outcome, other_id, why))
        log.debug("node %s at step %s of %s: %s, %s", task.node_id, task.done, task.total, decision, outcome)

    def ended(self, task: SlicedTask, fate: str) -> None:
        """What became of the work of a task that was being collected, or of one that just ended."""
        ending = task.ending or Ending()
        self.add(task, ending.request, ending.decision, fate + ending.why, ending.other_id, ending.reason)

    def of(
        self,
        task: SlicedTask,
        request: str,
        decision: str,
        outcome: str,
        other_id: int | None = None,
        why: str = "",
    ) -> StepEvent:
        """Such an event, not kept."""
        cell, time_s = task.crew.cell, self._now_s()
        return StepEvent(task.round, task.node_id, task.done, request, decision, outcome, cell, other_id, time_s, why)

    def of_late(self, late: Late, outcome: str) -> StepEvent:
        """What became of work that came after its round, not kept."""
        return StepEvent(late.round, late.node_id, late.steps, "", "none", outcome, late.cell, None, self._now_s())
