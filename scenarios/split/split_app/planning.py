"""Planners and optimiser of a run config."""

from __future__ import annotations

from typing import assert_never

from flower_edge.errors import ConfigError
from flower_edge.splitting import (
    Budgets,
    Dynamic,
    FixedCut,
    OptimiserSpec,
    Planner,
    WholeModel,
    build,
    codecs_named,
)
from split_app import task, world
from split_app.config import PlannerName, Split


def planner(config: Split, name: PlannerName) -> Planner:
    """By name; `Split` adds what a round is."""
    cloud, codecs = world.cloud(config), codecs_named(config.cut.codecs)
    if name == "dynamic":
        budgets = None
        if config.budget.train_s and config.budget.transfer_s:
            budgets = Budgets(config.budget.train_s, config.budget.transfer_s)
        return Dynamic(cloud, budgets=budgets, codecs=(codecs,))
    if name == "fixed":
        return FixedCut(_fixed(config), codecs, cloud)
    if name == "whole":
        return WholeModel(cloud)
    assert_never(name)


def optimiser(config: Split) -> OptimiserSpec:
    """SGD."""
    return OptimiserSpec(name="sgd", lr=config.train.learning_rate, options={"momentum": config.train.momentum})


def _fixed(config: Split) -> int:
    """The cut behind the last unit of a member of the model.

    Raises:
        ConfigError: it has no such member.
    """
    units = build(task.architecture(config)).units
    after = config.cut.fixed_after
    inside = [cut for cut, name in enumerate(units, 1) if name == after or name.startswith(f"{after}.")]
    if not inside:
        members = list(dict.fromkeys(name.split(".")[0] for name in units))
        raise ConfigError(f"cut.fixed-after = {after!r}: the model has {', '.join(members)}")
    return inside[-1]
