"""`Progress`: what a gossiping server keeps from round to round beside its group, and what of it is worth telling.

Which model it handed out last, who holds a data set, how far apart models were, what happened. Nothing here sends or
decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt

from flower_edge.errors import ConfigError
from flower_edge.events import Event

from .group import Group
from .happened import environment_event, is_scheduled, link_events, unwatched_event, worker_event
from .replies import Replies

__all__ = ["Progress"]

log = getLogger("flwr.edge")


@dataclass
class Progress:
    """Between two rounds.

    Attributes:
        given: digest of the model that was handed back last; workers go on from their own where it is handed in again.
        handed_out: numbers of the workers that hold the data set they were given.
        distance: largest mean squared difference between neighbours' models in the last round; NaN before any.
        untold: events that nobody has taken yet.
        mean_is_new: whether the last round ended with a mean of its own models; models need not pass the server.
    """

    given: str = ""
    handed_out: set[int] = field(default_factory=set)
    distance: float = math.nan
    untold: list[Event] = field(default_factory=list)
    mean_is_new: bool = True

    def note(self, group: Group, came: Replies, time_s: float | None) -> dict[str, float]:
        """Who has a model and its data now, who has lost them, whose reply was refused.

        Returns:
            What to record: how far models are apart, how many packets were missing, and how many of those that may
            tell a change told a whole model.
        """
        for i, one in came.heard.items():
            number = group.env.numbers[i]
            if one.report.lost:
                group.fresh.add(i)
                self.handed_out.discard(number)
                group.codec_states.pop(number, None)
                group.replicas.lost(number)
                text = "has no model to go on from and gets the mean"
                self.untold.append(worker_event("lost-model", group, i, text, time_s))
            else:
                group.fresh.discard(i)
                self.handed_out.add(number)
        for i, why in came.refused.items():
            self.untold.append(worker_event("refused", group, i, f"told what is not used: {why}", time_s))
        reports = [one.report for one in came.heard.values()]
        distances = [report.distance for report in reports if not math.isnan(report.distance)]
        self.distance = max(distances, default=math.nan)
        missing = sum(len(report.missing) for report in reports)
        told = {"distance": self.distance} if distances else {}
        plain = sum(report.plain for report in reports)
        counts = {"missing_packets": float(missing), "plain_packets": float(plain)}
        return {**told, **{name: count for name, count in counts.items() if count}}

    def decided(self, group: Group, before: npt.NDArray[np.bool_], time_s: float | None) -> None:
        """A round ends in which the links `before` were in use; which changed is told, unless a schedule says so."""
        if not is_scheduled(group.controller):
            self.untold += link_events(group, before, group.control.in_use, time_s)

    def defined_anew(self, group: Group, time_s: float | None) -> None:
        """Workers came or went: those that begin afresh are given their data once more."""
        for i in group.fresh:
            self.handed_out.discard(group.env.numbers[i])
        self.untold.append(environment_event(group, time_s))

    def watching(self, group: Group, watch: int | None, places: int | None, time_s: float | None) -> None:
        """A group begins: whether the worker to be watched is one of it.

        In a hierarchy it is a worker of one cell, and others are told to watch it, too; and it may come later.

        Args:
            group: that begins.
            watch: number of the worker.
            places: how many workers there can ever be; None for any number.
            time_s: now.

        Raises:
            ConfigError: nobody can ever have that number.
        """
        if watch is None or watch in group.env.numbers:
            return
        event = unwatched_event(group, watch, time_s)
        if places is not None and watch >= places:
            raise ConfigError(f"watch = {watch}: {event.text}; the world has no node of that number")
        log.warning("\t%s", event.text)
        self.untold.append(event)

    def take(self) -> list[Event]:
        """What happened since the last call."""
        told, self.untold = self.untold, []
        return told

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; events are in the run folder by then."""
        return {
            "given": self.given,
            "handed_out": sorted(self.handed_out),
            "distance": self.distance,
            "mean_is_new": self.mean_is_new,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """Inverse of `state_dict`."""
        return cls(
            str(state["given"]),
            {int(number) for number in state["handed_out"]},
            float(state["distance"]),
            mean_is_new=bool(state.get("mean_is_new", True)),
        )
