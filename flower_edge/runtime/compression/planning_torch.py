"""`Planner`: from settings to a proposal: what would be chosen, what an inference costs, and the most that could go.

It traces, cuts and measures a task's model once and keeps what it found. Nothing here serves or compresses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from ...errors import FringeError
from ...fringe.automatic_torch import model_costs
from ...fringe.automatic_values import ModelCosts
from ...fringe.evaluation_torch import evaluation
from ...fringe.goals import Goals
from ...fringe.links import Link, attainable, inference
from ...fringe.parts_torch import position_of
from ...fringe.pipeline_torch import Pipeline
from ...fringe.policy_learned import CostModel
from ...fringe.wire import HEADER_BYTES
from .choosing_torch import Choice, choose, pipeline_of
from .fleets import Fleet, links_between
from .settings import CompressionSettings
from .task_torch import CompressionTask

__all__ = ["ASSUMED", "Plan", "Planner"]

#: What a link is taken to be until it is measured, so that something can be said before.
ASSUMED: Final = Link(100e6, 0.001)


class Plan(NamedTuple):
    """What would be done: the choice, the uncompressed pipeline, and links that nothing was measured or said of."""

    choice: Choice
    whole: Pipeline
    unmeasured: tuple[int, ...]
    told: dict[str, Any]


class Planner:
    """See the module. One thread at a time: tracing changes what calling a module means for the whole process.

    Args:
        task: what is compressed.
        fleet: on what.
    """

    def __init__(self, task: CompressionTask, fleet: Fleet) -> None:
        self._task, self._fleet = task, fleet
        self._costs: ModelCosts | None = None
        self._scores: dict[str, float] = {}
        self._pipelines: dict[tuple[tuple[str, ...], tuple[str, ...]], Pipeline] = {}

    def score(self, goals: Goals) -> float:
        """Of the uncompressed model on validation."""
        name = goals.judge.name
        if name not in self._scores:
            alone = pipeline_of(self._task, Choice(self._fleet.machines[:1], (), {}, ()))
            self._scores[name] = evaluation(*self._task.validation, goals.metric)(alone)
        return self._scores[name]

    def plan(
        self,
        settings: CompressionSettings,
        links: Sequence[Link | None] | None = None,
        *,
        choice: Choice | None = None,
        learned: CostModel | None = None,
        refuse: bool = True,
    ) -> Plan:
        """What these settings come to.

        Args:
            settings: what is asked for.
            links: between the machines of the fleet, where they were measured; None: as the fleet says.
            choice: made before; None makes it.
            learned: from recorded iterations, how far compression goes.
            refuse: whether goals that cannot be reached are an error, or only said in `told["refused"]`.

        Raises:
            FringeError: settings that do not go with the task or the fleet; goals that cannot be reached.
            SplitError: a model that cannot be cut there.
        """
        goals, machines = settings.goals(), self._fleet.machines
        given = self._fleet.links() if links is None else tuple(links)
        taken = [ASSUMED if link is None else link for link in given]
        links_between(machines, given, settings.machines or machines)
        score = self.score(goals)
        refused: str | None = None
        if choice is None:
            costs = None if _all_given(settings) else self._costs_with(settings.cuts or ())
            asked = settings if all(link is not None for link in given) else _easy(settings)
            try:
                choice = choose(self._task, machines, taken, asked, costs=costs, score=score, learned=learned)
            except FringeError as error:
                if refuse:
                    raise
                refused = str(error)
                asked = _easy(settings)
                choice = choose(self._task, machines, taken, asked, costs=costs, score=score, learned=learned)
        key = choice.machines, choice.cuts
        if key not in self._pipelines:
            self._pipelines = {**dict(list(self._pipelines.items())[-7:]), key: pipeline_of(self._task, choice)}
        whole = self._pipelines[key]
        ways = links_between(machines, given, choice.machines)
        now = [ASSUMED if link is None else link for link in ways]
        unmeasured = tuple(number for number, link in enumerate(ways) if link is None)
        sizes = [one.size_bytes for one in whole.connections]
        try:
            # Of links that nobody knows yet, no latency can be refused.
            known = goals if not unmeasured else _without_latency(goals)
            if known is not None:
                known.refuse_impossible(sizes, now, score=score)
        except FringeError as error:
            if refuse:
                raise
            refused = refused or str(error)
        told = self._told(settings, choice, whole, now, score) | {"refused": refused}
        told["links_measured"] = not unmeasured
        return Plan(choice, whole, unmeasured, told)

    def _costs_with(self, cuts: Sequence[str | int]) -> ModelCosts:
        """Measured once, and again where a cut is asked for that was not worth looking at."""
        also = [position_of(self._task.cut, cut) for cut in cuts]
        known = set() if self._costs is None else {place.position for place in self._costs.places}
        if self._costs is None or not known.issuperset(also):
            self._costs = model_costs(self._task.cut, self._task.learn[:2], also=also)
        return self._costs

    def _told(
        self, settings: CompressionSettings, choice: Choice, whole: Pipeline, links: Sequence[Link], score: float
    ) -> dict[str, Any]:
        goals = settings.goals()
        sizes = [one.size_bytes for one in whole.connections]
        most, before_s = attainable(sizes, links), inference(sizes, links).latency_s
        heads = HEADER_BYTES * len(sizes)
        most_bytes, most_s = goals.most_bytes(sum(sizes)), goals.most_seconds(before_s)
        return {
            **choice.config(),
            "connections": [
                {
                    "name": f"{one.producer} -> {one.consumer}",
                    "size_bytes": one.size_bytes,
                    "seconds": link.seconds(one.size_bytes),
                    "goodput_bps": link.goodput_bps if math.isfinite(link.goodput_bps) else None,
                    "delay_s": link.delay_s,
                }
                for one, link in zip(whole.connections, links, strict=True)
            ],
            "metric": goals.judge.name,
            "score_before": score,
            "floor": goals.worst(score),
            "before_bytes": sum(sizes),
            "before_s": before_s,
            "most_bytes": most_bytes if math.isfinite(most_bytes) else None,
            "most_s": most_s if math.isfinite(most_s) else None,
            "attainable_bytes": sum(sizes) - heads,
            "attainable_bytes_share": 1 - heads / sum(sizes),
            "attainable_factor": sum(sizes) / heads,
            "attainable_s": most.latency_s,
            "attainable_time_s": most.reduction_s,
            "attainable_time_share": most.fraction,
        }


def _all_given(settings: CompressionSettings) -> bool:
    return bool(settings.machines and settings.cuts and settings.methods and settings.depth is not None)


def _easy(settings: CompressionSettings) -> CompressionSettings:
    """The same with a goal that anything reaches: for a choice by links that nobody knows, or goals out of reach."""
    return replace(settings, latency=None, reduction=None, bandwidth="1.01x")


def _without_latency(goals: Goals) -> Goals | None:
    if goals.bandwidth is None:
        return None
    return Goals(floor=goals.floor, drop=goals.drop, metric=goals.metric, bandwidth=goals.bandwidth)
