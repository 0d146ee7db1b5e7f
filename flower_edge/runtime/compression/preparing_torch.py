"""`Preparer`: brings a run to its machines: links measured, machines and cuts chosen, deployed, its controller made.

What served before goes on serving until the new machines do. Nothing here iterates: see `loop_torch`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ...fringe.history import Iteration
from ...fringe.links import Link
from ...fringe.pipeline_torch import Pipeline
from ...fringe.policy_learned import CostModel
from .entrance_torch import Entrance
from .events import Events
from .fleets import Fleet, links_between
from .planning_torch import Planner
from .requests import Requests
from .run_torch import Run, fringe_of
from .serving_torch import Serving
from .task_torch import CompressionTask

__all__ = ["Preparer"]

#: Requests of its own, by which links and answers are measured.
_TRIED: Final = 20


class Preparer:
    """See the module.

    Args:
        task, fleet, planner: what is compressed where.
        entrance: where requests come in; led to what serves.
        events, requests: where to say and to count.

    Attributes:
        swaps: of deployments before the one that serves.
    """

    def __init__(
        self,
        task: CompressionTask,
        fleet: Fleet,
        planner: Planner,
        entrance: Entrance,
        events: Events,
        requests: Requests,
    ) -> None:
        self._task, self._fleet, self._planner = task, fleet, planner
        self._entrance, self._events, self._requests = entrance, events, requests
        self.swaps = 0

    def prepare(self, run: Run, iterated: Callable[[Iteration], None]) -> None:
        """Until it can iterate.

        Args:
            run: just submitted, or of a restart.
            iterated: is told each iteration.

        Raises:
            EdgeError: machines that do not take it, goals that their links do not allow; what served goes on.
        """
        if run.choice is None or run.whole is None:
            self._choose(run)
        assert run.choice is not None
        assert run.whole is not None
        run.layers = fringe_of(run.whole, run.choice)
        run.serving = self._serving_on(run.whole, run.links_kept, deploy=run.kept is None)
        if run.kept is None or not run.serving.known:
            if run.kept is not None:
                run.serving.swap(run.whole)
            self.measure(run.serving, 0)
        run.links_at_first = run.links()
        run.control(self._task, iterated)
        assert run.controller is not None
        goes_on = "" if run.kept is None else f" goes on after {len(run.controller.iterations)} iterations"
        machines = ", ".join(run.choice.machines)
        self._events.add(f"compression on {machines}{goes_on or ' begins'}, by {', '.join(run.choice.methods)}")
        if run.stopped:
            run.controller.stop()

    def measure(self, serving: Serving, version: int) -> None:
        """Some requests of its own, so that what is told of links and answers was measured.

        Args:
            serving: that answers them.
            version: that it serves now.

        Raises:
            NotServed: one was not answered.
        """
        if serving.deployment is None:
            return
        seconds = serving.tried(self._task.validation[0][:16].numpy(), _TRIED)
        self._requests.tried(version, _TRIED, seconds)

    def _choose(self, run: Run) -> None:
        """Links that nobody has said anything of are measured first, by requests over all machines."""
        machines = self._fleet.machines
        all_of_them = replace(run.settings, machines=machines, cuts=None, depth=None)
        first = self._planner.plan(all_of_them, refuse=False)
        serving = self._serving_on(first.whole, (), deploy=True)
        self.measure(serving, 0)
        found = [one if isinstance(one, Link) else one.link if one.transfers else None for one in serving.links_seen()]
        learned = None
        if run.settings.policy == "learned" and run.recorded:
            learned = CostModel.fit(run.recorded, run.settings.metric)
        plan = self._planner.plan(run.settings, found, learned=learned)
        run.choice, run.whole = plan.choice, plan.whole
        for why in plan.choice.why:
            self._events.add(f"chosen: {why}")

    def _serving_on(self, pipeline: Pipeline, kept: tuple[Link | None, ...], *, deploy: bool) -> Serving:
        """What serves on the pipeline's machines, the pipeline itself if so wanted, without losing a request."""
        machines, before = pipeline.machines, self._entrance.serving
        given = links_between(self._fleet.machines, self._fleet.links(), machines)
        if kept:
            given = tuple(link if link is not None else old for link, old in zip(given, kept, strict=True))
        if before is not None and before.machines == machines:
            new = before.again(given)
            if deploy:
                new.swap(pipeline)
            self._entrance.to(new)
            return new
        new = Serving(machines, self._fleet.deployed(machines, self._task.architecture), given)
        # Machines hold other parts from now on: what was asked before is answered first, what comes meanwhile waits.
        with self._entrance.closed():
            try:
                if deploy:
                    new.swap(pipeline)
                else:
                    new.take_up()
            except BaseException:
                new.close()
                raise
            self.swaps += 0 if before is None else before.swaps
            self._requests.begin(new.entry, new.deployment)
            self._entrance.to(new)
        if before is not None:
            before.close()
        return new
