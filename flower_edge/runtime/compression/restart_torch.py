"""What a run leaves in a folder, and a run made of that again. Nothing here writes a file: see `kept`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...errors import FringeError, StateError
from ...fringe.history import Iteration
from ...fringe.links import Link
from .choosing_torch import Choice
from .events import Events
from .planning_torch import Planner
from .requests import Requests
from .run_torch import Run
from .settings import CompressionSettings
from .task_torch import CompressionTask

__all__ = ["kept_of", "restored"]


def kept_of(
    run: Run, task: CompressionTask, events: Events, requests: Requests, automatic: bool, swaps: int
) -> dict[str, Any]:
    """Plain values and arrays; `restored` takes them.

    Args:
        run: that has a controller.
        task: that it compresses.
        events, requests: of the session.
        automatic: whether links are followed.
        swaps: of versions so far.
    """
    assert run.controller is not None
    assert run.choice is not None
    return {
        "task": {"name": task.name, "digest": task.cut.digest},
        "settings": run.settings.config(),
        "choice": run.choice.config(),
        "controller": run.controller.state(),
        "recorded": [one.row() for one in run.recorded],
        # Of a link that nothing is known of nothing is kept.
        "links": [
            [link.goodput_bps, link.delay_s] if math.isfinite(link.goodput_bps) else None for link in run.links()
        ],
        "events": events.told(),
        "requests": requests.state(),
        "automatic": automatic,
        "swaps": swaps,
    }


def restored(
    kept: Mapping[str, Any],
    source: str,
    task: CompressionTask,
    planner: Planner,
    events: Events,
    requests: Requests,
) -> Run:
    """The run again, its controller not made yet; events and requests go on from what they were.

    Args:
        kept: what `kept_of` gave.
        source: its file, for errors.
        task, planner: of the session that goes on.
        events, requests: of the same, still empty.

    Raises:
        FringeError: another task, or machines that there are not.
        StateError: something that `kept_of` never gave.
    """
    digest = task.cut.digest
    if kept["task"] != {"name": task.name, "digest": digest}:
        raise FringeError(
            f"{source} is of task {kept['task']!r:.120}; expected {task.name!r} with a model of {digest[:12]}; use its "
            "own task, or another folder"
        )
    try:
        settings = CompressionSettings.from_config(kept["settings"])
        choice = Choice.from_config(kept["choice"])
        recorded = tuple(Iteration.from_row(row) for row in kept["recorded"])
        links = tuple(None if one is None else Link(*one) for one in kept["links"])
        plan = planner.plan(settings, choice=choice, refuse=False)
        if not isinstance(kept["automatic"], bool) or not isinstance(kept["swaps"], int):
            raise ValueError(f"automatic = {kept['automatic']!r} and swaps = {kept['swaps']!r}")
        requests.resume(kept["requests"])
        events.resume(kept["events"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"{source}: {error!s:.200}; it was altered; use another folder") from error
    return Run(settings, choice, plan.whole, recorded=recorded, kept=kept["controller"], links_kept=links)
