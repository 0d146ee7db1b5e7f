"""`accepted`: from settings to a run: one that goes on for other goals, or one that begins. Nothing here waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .events import Events
from .loop_torch import Loop
from .planning_torch import Planner
from .run_torch import Run
from .settings import CompressionSettings
from .task_torch import CompressionTask
from .turns import Turns

__all__ = ["accepted", "going_on"]


def going_on(loop: Loop, settings: CompressionSettings) -> Run | None:
    """The run that would go on with these settings, as they change no more than goals; None: another would begin."""
    run = loop.run
    same = run is not None and run.controller is not None and run.failed is None and run.same_place(settings)
    return run if same else None


def accepted(
    settings: CompressionSettings,
    task: CompressionTask,
    loop: Loop,
    planner: Planner,
    turns: Turns,
    events: Events,
    keep: Callable[[], None],
) -> dict[str, Any]:
    """Let the loop go for these settings; returns what is proposed.

    Args:
        settings: submitted.
        task: that is compressed.
        loop: with the run that goes on now, if any.
        planner: of the same task and machines.
        turns: of all who run models.
        events: where it is said.
        keep: writes what has to survive a restart.

    Raises:
        FringeError, SplitError: as of `Planner.plan`; what went on before goes on.
    """
    run = going_on(loop, settings)
    if run is not None and run.controller is not None:
        with turns.first():
            plan = planner.plan(settings, loop.links(), choice=run.choice)
            run.aim(settings, task)
            loop.automatic = settings.follow
            events.add(f"submitted: {settings.asked}, from version {run.controller.version.number} on")
            keep()
        loop.wake()
        return plan.told
    with turns.first():
        plan = planner.plan(settings, loop.links())
        recorded = () if loop.run is None else loop.run.all_recorded(settings.metric)
        new = Run(settings, recorded=recorded)
        # Machines and cuts are not chosen by links that nobody has measured yet.
        if not plan.unmeasured or (settings.machines and settings.cuts):
            new.choice, new.whole = plan.choice, plan.whole
    events.add(f"submitted: {settings.asked}")
    for why in () if new.choice is None else new.choice.why:
        events.add(f"chosen: {why}")
    loop.automatic = settings.follow
    loop.begin(new)
    return plan.told
