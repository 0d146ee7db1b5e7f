"""`Run`: one submission that goes on: what was chosen, the pipeline, what serves it, and its controller.

    look at the links  ->  choose  ->  cut  ->  deploy, uncompressed  ->  measure  ->  a controller, step by step

`Run` does each of these when it is told to, in whatever thread; `CompressionSession` tells it. Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
import torch

from ...errors import FringeError
from ...fringe.controller_torch import Controller
from ...fringe.deployed_torch import as_link
from ...fringe.distil_recipe import DistilRecipe
from ...fringe.evaluation_torch import evaluation, stage_seconds
from ...fringe.fitting_torch import Recipe
from ...fringe.fringe_torch import Fringe, fringe
from ...fringe.history import Iteration
from ...fringe.links import Link
from ...fringe.pipeline_torch import Pipeline
from ...fringe.policy import LargestFirst, Policy, SlowestFirst
from ...fringe.policy_learned import CostModel, Learned
from .choosing_torch import Choice
from .serving_torch import Serving
from .settings import CompressionSettings
from .task_torch import CompressionTask

__all__ = ["Run", "fringe_of", "policy_from"]

#: Evaluated iterations from which a policy learns; fewer say less than the rules.
_LEAST_RECORDED: Final = 4
#: Inputs that the entry kept, from which healing learns; fewer say less than the task's own.
_LEAST_LIVE: Final = 64


def policy_from(settings: CompressionSettings, recorded: Sequence[Iteration]) -> Policy:
    """The rules; or, once enough was recorded, what can be learned from it."""
    judged = [one for one in recorded if one.after_score is not None]
    if settings.policy == "rules" or len(judged) < _LEAST_RECORDED:
        return LargestFirst() if settings.latency is settings.reduction is None else SlowestFirst()
    return Learned(CostModel.fit(judged, settings.metric))


@dataclass(eq=False)
class Run:
    """See the module.

    Attributes:
        settings: as submitted; goals may be changed while it runs.
        choice: what was chosen; None until links are known.
        whole: before any compression; None until it was cut.
        layers: that may change.
        serving: what serves.
        controller: None until all is prepared.
        recorded: iterations of earlier runs by the same metric, for a policy that learns.
        kept: of a controller, to go on from; and what links were taken to be then.
        links_at_first: as they were when its controller was made.
        failed: why it cannot go on; `notice`: why it stopped, if machines did not take a version.
        stopped: whether it is to stop as soon as it is prepared.
        settled: the status with which it ended, once all was measured and judged.
        told_end, goes_on: what was said of its end, and is to be said once it goes on.
        test_scores: of the uncompressed pipeline, and of versions by number, once they were asked for.
    """

    settings: CompressionSettings
    choice: Choice | None = None
    whole: Pipeline | None = None
    layers: Fringe | None = None
    serving: Serving | None = None
    controller: Controller | None = None
    recorded: tuple[Iteration, ...] = ()
    kept: Mapping[str, Any] | None = None
    links_kept: tuple[Link | None, ...] = ()
    links_at_first: tuple[Link, ...] = ()
    failed: str | None = None
    notice: str | None = None
    settled: str | None = None
    stopped: bool = False
    told_end: tuple[str, int] | None = None
    goes_on: str = ""
    test_scores: dict[int, float] = field(default_factory=dict)

    def control(self, task: CompressionTask, iterated: Callable[[Iteration], None]) -> None:
        """Make the controller; with `kept`, the version that was current is served again.

        Raises:
            FringeError: goals that cannot be reached on these links, or a state of another model.
        """
        assert self.whole is not None
        assert self.layers is not None
        assert self.serving is not None
        assert self.choice
        goals = self.settings.goals()
        self.controller = Controller(
            self.whole,
            self.layers,
            goals,
            evaluation(*task.validation, goals.metric),
            task.learn,
            labels=task.labels,
            methods=self.choice.methods,
            policy=policy_from(self.settings, self.recorded),
            deployed=self.serving,
            compute_s=partial(stage_seconds, x=task.learn[:1]) if self.settings.weigh_compute else None,
            healing=replace(task.healing or Recipe(), seed=self.settings.seed),
            distilling=replace(task.distilling or DistilRecipe(), seed=self.settings.seed),
            on_iteration=iterated,
            state=self.kept,
            other_samples=self.settings.live,
        )

    def aim(self, settings: CompressionSettings, task: CompressionTask) -> None:
        """Go for other goals from where it is; see `same_place`.

        Raises:
            FringeError: such as cannot be reached; those before are kept.
        """
        assert self.controller is not None
        self.controller.aim(settings.goals())
        self.controller.policy = policy_from(settings, (*self.recorded, *self.controller.iterations))
        if self.settings.live and not settings.live:
            self.controller.learn_from(task.learn, task.labels)
        self.controller.resume()
        self.settings, self.notice, self.settled = settings, None, None
        self.told_end = None  # said of each submission, also where nothing is left to do

    def same_place(self, settings: CompressionSettings) -> bool:
        """Whether other settings change no more than goals and how they are followed: then it can aim at them.

        What was left to choose may be named as it was chosen.
        """
        if any(getattr(settings, name) != getattr(self.settings, name) for name in ("metric", "weigh_compute", "seed")):
            return False
        chosen = {} if self.choice is None else self.choice.config()
        for name in ("machines", "cuts", "depth", "methods"):
            given, before = settings.config()[name], self.settings.config()[name]
            if given != before and (not given or given != chosen.get(name)):
                return False
        return True

    def all_recorded(self, metric: str) -> tuple[Iteration, ...]:
        """Iterations of this run and of those before, if they were judged by this metric."""
        if self.settings.metric != metric:
            return ()
        return (*self.recorded, *(() if self.controller is None else self.controller.iterations))

    def step(self) -> Iteration | None:
        """One iteration, by what was learned so far and from the inputs that came so far."""
        assert self.controller is not None
        if self.settings.policy == "learned":
            self.controller.policy = policy_from(self.settings, (*self.recorded, *self.controller.iterations))
        return self.controller.step()

    def learn_live(self) -> int:
        """Heal with inputs that the entry kept, if it keeps enough of them; returns how many there are."""
        assert self.controller is not None
        assert self.serving is not None
        seen = self.serving.live_inputs()
        if seen is None or len(seen) < _LEAST_LIVE:
            return 0 if seen is None else len(seen)
        self.controller.learn_from(torch.from_numpy(np.ascontiguousarray(seen)))
        return len(seen)

    def test_score(self, task: CompressionTask, number: int) -> float:
        """The metric on the test set, of version 0 or of the current one.

        Raises:
            FringeError: another version, or none yet.
        """
        if self.controller is None:
            raise FringeError("nothing was compressed yet, so there is nothing to report; submit first")
        if number not in self.test_scores:
            judged = evaluation(*task.test, self.settings.metric)
            known = {0: self.controller.whole, self.controller.version.number: self.controller.pipeline}
            if number not in known:
                raise FringeError(f"version {number}: expected 0 or the current one, {max(known)}")
            self.test_scores[number] = judged(known[number])
        return self.test_scores[number]

    def links(self) -> tuple[Link, ...]:
        """Of the connections, as they were when somebody looked last; of one that nothing is known of, no limit."""
        assert self.serving is not None
        return tuple(
            one if isinstance(one, Link) else as_link(one) if one.transfers else Link(float("inf"))
            for one in self.serving.links_seen()
        )


def fringe_of(pipeline: Pipeline, choice: Choice) -> Fringe:
    """The layers that may change.

    Raises:
        FringeError: no layer at all.
    """
    found = fringe(pipeline, choice.depth)
    if not found.layers():
        raise FringeError(
            f"depth = {dict(choice.depth)}: no layer touches a cut, so nothing could be healed; give 1 or more"
        )
    return found
