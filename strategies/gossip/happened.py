"""What happened in a gossiping group that is worth telling: of its links, its workers, its environment.

Events only; nothing here decides or counts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flower_edge.control.controller import Controller
from flower_edge.events import Event

from .group import Group

__all__ = ["environment_event", "is_scheduled", "link_events", "unwatched_event", "worker_event"]

#: How many links, or workers, are named.
NAMED = 8


def worker_event(what: str, group: Group, i: int, text: str, time_s: float | None) -> Event:
    """About one worker."""
    number = group.env.numbers[i]
    return Event(what, f"worker {number} {text}", node=str(number), time_s=time_s)


def environment_event(group: Group, time_s: float | None) -> Event:
    """The environment was defined anew."""
    count = len(group.env.numbers)
    return Event("environment", f"the environment is defined anew: {count} workers", time_s=time_s)


def unwatched_event(group: Group, watch: int, time_s: float | None) -> Event:
    """The worker whose metrics are to be recorded by themselves is not there."""
    numbers = group.env.numbers
    named = ", ".join(map(str, numbers[:NAMED])) + (f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else "")
    return Event("unwatched", f"nobody is worker {watch}, who is to be watched; the workers are {named}", time_s=time_s)


def is_scheduled(controller: Controller) -> bool:
    """Whether other links are used in every round because a schedule says so, not because of anything that happened.

    A controller says so itself, by `scheduled`; one that only reworks what an inner one decides is as that one.
    """
    own = getattr(controller, "scheduled", None)
    if own is not None:
        return bool(own)
    inner = getattr(controller, "inner", None)
    return inner is not None and is_scheduled(inner)


def link_events(
    group: Group, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], time_s: float | None
) -> list[Event]:
    """Links that were in use and are not any more, and the other way round."""
    told: list[Event] = []
    names, topology = group.env.numbers, group.topology
    for what, verb, changed in (
        ("pruned", "given up", before & ~after),
        ("revived", "taken up again", ~before & after),
    ):
        links = np.flatnonzero(changed)
        if not len(links):
            continue
        pairs = [f"{names[topology.sender[k]]} to {names[topology.receiver[k]]}" for k in links[:NAMED]]
        shown = ", ".join(pairs) + (f" and {len(links) - NAMED} more" if len(links) > NAMED else "")
        text = f"{len(links)} {'link was' if len(links) == 1 else 'links were'} {verb}: {shown}"
        values = {"links": len(links), "left": int(after.sum())}
        told.append(Event(what, text, time_s=time_s, values=values))
    return told
