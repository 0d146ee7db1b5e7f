"""What became of partial work, for the run folder: the events of a `SteppedGrid`, in the words of the timeline.

The grid tells what happened to the work, once it is known; why somebody decided so is told by whoever decided. Work
that goes on in the ordinary way, or ends as planned, is not told: that is in the numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.serverapp import Grid

from flower_edge.events import Event
from flower_edge.runtime.abilities import now_s
from flower_edge.runtime.steps.decisions import StepEvent
from flower_edge.runtime.wrapped_grid import chain

from .node_rows import key_of

__all__ = ["step_events"]

#: Decisions that have a word of their own, whatever became of the work.
_WORDS = {"replace": "replaced", "enlist": "enlisted", "detach": "detached", "renew": "changed-model"}
#: What the outcome begins with, and what that is called.
_FATES = {
    "lost": "lost",
    "discarded": "dropped",
    "returned late": "returned-late",
    "not handed out": "not-handed-out",  # not lost: a run that goes on from here may still do it
}
#: How each is told; others are told by how far the work was.
_VERBS = {
    "replaced": "was replaced",
    "detached": "goes on alone",
    "changed-model": "goes on with another model",
    "dropped": "was dropped",
    "stopped-early": "was stopped",
}


def step_events(grid: Grid, *, ended: bool = False) -> list[Event]:
    """What became of partial work on the grids of a chain since the last call; empty where none cuts tasks.

    Args:
        grid: the outermost of the chain.
        ended: the run is over, and detached work that reached nobody is told of as well.
    """
    timed = now_s(grid) is not None
    told: list[Event] = []
    for link in chain(grid):
        drain: Callable[..., list[StepEvent]] | None = getattr(link, "drain_events", None)
        for event in drain(ended=ended) if callable(drain) else ():
            if (what := _word(event)) is not None:
                told.append(_told(event, what, grid, event.time_s if timed else None))
    return told


def _word(event: StepEvent) -> str | None:
    if event.decision in _WORDS:
        return _WORDS[event.decision]
    for beginning, word in _FATES.items():
        if event.outcome.startswith(beginning):
            return word
    goes_on = event.outcome.startswith(("kept on the node", "returned as planned"))
    # Without a decision it came back whole; all there was is a request, and too late for one.
    return None if goes_on or event.decision == "none" else "stopped-early"


def _told(event: StepEvent, what: str, grid: Grid, time_s: float | None) -> Event:
    key, outcome = key_of(grid, event.node_id), event.outcome
    values: dict[str, int | float | str] = {"round": event.round, "steps": event.step, "decision": event.decision}
    if event.other_id is not None:
        other = key_of(grid, event.other_id)
        values["other"] = other
        outcome = outcome.replace(f"node {event.other_id}", f"terminal {other}")
    if event.request:
        values["request"] = event.request
    values["work"] = outcome
    if event.why:
        values["reason"] = event.why
    asked = f"; it had asked for: {event.request}" if event.request else ""
    reason = f" ({event.why})" if event.why else ""
    steps = "1 step" if event.step == 1 else f"{event.step} steps"
    if what == "enlisted":
        text = f"terminal {key} {outcome} in round {event.round}"
    elif what in _VERBS:
        text = f"terminal {key} {_VERBS[what]} after {steps} of round {event.round}{reason}; its work: {outcome}{asked}"
    else:
        text = f"work of terminal {key}, {steps} of round {event.round}: {outcome}{asked}"
    return Event(what, text, key, event.cell, time_s=time_s, values=values)
