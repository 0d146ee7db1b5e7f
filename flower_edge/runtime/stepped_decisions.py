"""What an edge can decide between two slices of a terminal's training, and the record of what it decided.

Frozen values and one default policy. Nothing here sends anything; `stepped_grid` carries the decisions out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from .stepped_messages import RESERVED, Request

__all__ = [
    "Change",
    "Continue",
    "Decide",
    "Decision",
    "Drop",
    "Progress",
    "Replace",
    "StepEvent",
    "Stop",
    "honour_requests",
]

Scalar = bool | int | float | str | bytes


@dataclass(frozen=True)
class Progress:
    """Where one node is in its task, after a slice or when it failed.

    Attributes:
        node_id: the node.
        steps_done: steps its model has made in this task.
        steps_total: steps the task has.
        metrics: the numbers of its last reply, all records together.
        request: what the terminal asks for, if anything.
        round: the strategy's `server-round`; 0 where it tells none.
        error: why the node cannot go on; then only `Replace` can help.
    """

    node_id: int
    steps_done: int
    steps_total: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    request: Request | None = None
    round: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Continue:
    """Send the next slice."""


@dataclass(frozen=True)
class Change:
    """Send the next slice with other config values; they hold for the rest of this task.

    The number of steps can be changed, too: a task that has already made as many is stopped.
    """

    config: Mapping[str, Scalar | list[Any]]

    def __post_init__(self) -> None:
        if taken := [key for key in self.config if key in RESERVED]:
            raise ConfigError(f"Change({', '.join(taken)}): SteppedGrid writes these keys itself; change 'local-steps'")


@dataclass(frozen=True)
class Stop:
    """Collect the model as it is; the strategy gets the partial work, `steps` and `num-examples` telling how much."""


@dataclass(frozen=True)
class Drop:
    """End the task and use nothing of it; the strategy gets an error reply."""


@dataclass(frozen=True)
class Replace:
    """Let another node do the task from its beginning, with the message as the strategy made it.

    Attributes:
        node_id: the replacement; if it is busy with a task of its own, that one comes first.
        keep_work: also collect what the replaced node has done; the strategy then gets two replies.
    """

    node_id: int
    keep_work: bool = False


Decision = Continue | Change | Stop | Drop | Replace
Decide = Callable[[Progress], Decision]


def honour_requests(progress: Progress) -> Decision:
    """The default policy: a terminal that asks to stop, or says it is overloaded, is stopped and its work used.

    >>> honour_requests(Progress(1000, 4, 20, request=Request("overload")))
    Stop()
    >>> honour_requests(Progress(1000, 4, 20, request=Request("join")))
    Continue()
    """
    return Stop() if progress.request is not None and progress.request.kind in ("stop", "overload") else Continue()


@dataclass(frozen=True)
class StepEvent:
    """One decision and what became of the work done so far. Plain values, ready for a metrics file.

    Attributes:
        round: the strategy's round.
        node_id: the node it is about.
        step: steps done when it was taken.
        request: the terminal's request in words; empty if it made none.
        decision: `continue`, `change`, `stop`, `drop`, `replace`, or `none` where there was nothing to decide.
        outcome: what became of the work: `kept on the node`, `returned`, `discarded`, `lost`, with a reason if any.
    """

    round: int
    node_id: int
    step: int
    request: str
    decision: str
    outcome: str
