"""Plans for whoever can take part, and plans that last for several rounds: widened, and kept in checkpoints. Values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from flower_edge.errors import SplitError
from flower_edge.splitting.plan import Assignment, DeviceView, Plan
from flower_edge.splitting.planner import Planner
from flower_edge.splitting.profile import ModelProfile

__all__ = ["plan_for_all", "plan_of", "plan_to_plain", "widened"]


def plan_for_all(
    planner: Planner,
    profile: ModelProfile,
    views: Mapping[int, DeviceView],
    round: int,
    tell: Callable[[str, str], None],
) -> Plan:
    """A plan for all that can take part; for whom there is none, even alone, sits out.

    Args:
        planner, profile, views, round: as of `Planner.plan`.
        tell: of each device that sits out.

    Raises:
        SplitError: there is none for anybody.
    """
    try:
        return planner.plan(profile, views, round)
    except SplitError:
        able = dict(views)
        for number, view in views.items():
            try:
                planner.plan(profile, {number: view}, round)
            except SplitError as error:
                tell("absent", f"round {round}: device {number} sits out: {error}")
                del able[number]
        if not able or len(able) == len(views):
            raise
    return planner.plan(profile, able, round)


def widened(plan: Plan, late: Plan) -> Plan:
    """With the parts of devices that were not there when it was made; those who were keep theirs.

    >>> first = Plan({0: Assignment(2)}, True, "first")
    >>> widened(first, Plan({0: Assignment(3), 1: Assignment(1)}, True, "later")).assignments[0].cut
    2
    """
    return replace(plan, assignments={**late.assignments, **plan.assignments})


def plan_to_plain(plan: Plan) -> dict[str, Any]:
    """As plain values; `plan_of` is the inverse.

    >>> plan = Plan({3: Assignment(2, up={"kind": "affine"})}, True, "why")
    >>> plan_of(plan_to_plain(plan)).assignments == plan.assignments
    True
    """
    parts = {str(number): _plain(one) for number, one in plan.assignments.items()}
    return {**{one.name: getattr(plan, one.name) for one in fields(plan)}, "assignments": parts}


def plan_of(plain: Mapping[str, Any]) -> Plan:
    """Inverse of `plan_to_plain`."""
    parts = {int(number): Assignment(**one) for number, one in plain["assignments"].items()}
    return Plan(**{**plain, "assignments": parts})


def _plain(part: Assignment) -> dict[str, Any]:
    found = {one.name: getattr(part, one.name) for one in fields(part)}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()}
