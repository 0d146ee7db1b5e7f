"""A controller as plain values: for a page while it runs (`snapshot`), and for the end (`final_report`).

Both may be called by any thread while an iteration goes on; they tell of the version that was current when they began.
Nothing here compresses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .controller_torch import Controller
    from .pipeline_torch import Pipeline

__all__ = ["final_report", "snapshot"]


def snapshot(controller: Controller) -> dict[str, Any]:
    """Status, goals, what could be had at most, all connections and all iterations."""
    first, now = controller.versions[0], controller.version
    return {
        "status": controller.status,
        "goals": controller.goals.config(),
        "floor": controller.goals.worst(first.score),
        "attainable_latency_s": controller.attainable.latency_s,
        "attainable_reduction": controller.attainable.fraction,
        "version": now.number,
        "score": now.score,
        "score_before": first.score,
        "latency_s": controller.latency_s(now),
        "latency_before_s": controller.latency_s(first),
        "connections": [_plain(row) for row in controller.saving(now).rows()],
        "closed": controller.closed,
        "frozen_digest": controller.frozen_digest,
        "iterations": [one.row() for one in tuple(controller.iterations)],
    }


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """None for what was not measured: JSON has no NaN."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def final_report(controller: Controller, test: Callable[[Pipeline], float]) -> dict[str, Any]:
    """A snapshot, and the metric on samples by which nothing was chosen.

    Validation chose among many trials, so what it says of the last one is a little too good.

    Args:
        controller: that has ended.
        test: the metric of a pipeline, as `evaluation(x_test, y_test, goals.metric)` gives it.
    """
    pipeline = controller.pipeline
    before, after = test(controller.whole), test(pipeline)
    lost = controller.goals.judge.lost(after, before)
    return {**snapshot(controller), "test_before": before, "test_after": after, "test_lost": lost}
