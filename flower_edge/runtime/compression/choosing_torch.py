"""`Choice`: machines, cuts, depths and methods of a compression, given or chosen; `choose` makes one.

Nothing here compresses or serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import FringeError
from ...fringe.actions import METHODS
from ...fringe.automatic_torch import automatic
from ...fringe.automatic_values import Given, ModelCosts, Reach
from ...fringe.links import Link
from ...fringe.parts_torch import position_of
from ...fringe.pipeline_torch import Pipeline, distribute
from ...fringe.policy_learned import CostModel
from .settings import CompressionSettings
from .task_torch import CompressionTask

__all__ = ["Choice", "choose", "pipeline_of"]


@dataclass(frozen=True)
class Choice:
    """What is compressed where.

    Attributes:
        machines: that are used, in order.
        cuts: names of the units that they end with, one fewer.
        depth: of the fringe, by machine.
        methods: that may be tried.
        why: sentences on what was chosen automatically; none where all was given.
    """

    machines: tuple[str, ...]
    cuts: tuple[str, ...]
    depth: Mapping[str, int]
    methods: tuple[str, ...]
    why: tuple[str, ...] = ()

    def config(self) -> dict[str, Any]:
        """Plain values; `from_config` is its inverse."""
        return {
            "machines": list(self.machines),
            "cuts": list(self.cuts),
            "depth": dict(self.depth),
            "methods": list(self.methods),
            "why": list(self.why),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Choice:
        """Inverse of `config`.

        Raises:
            KeyError, TypeError: no such config.
        """
        names = {name: tuple(config[name]) for name in ("machines", "cuts", "methods", "why")}
        return cls(depth=dict(config["depth"]), **names)


def pipeline_of(task: CompressionTask, choice: Choice) -> Pipeline:
    """The task's model on these machines, before any compression.

    Raises:
        SplitError: it cannot be cut there.
    """
    return distribute(task.cut, task.learn[:2], choice.machines, choice.cuts)


def choose(
    task: CompressionTask,
    machines: Sequence[str],
    links: Sequence[Link],
    settings: CompressionSettings,
    *,
    costs: ModelCosts | None = None,
    score: float | None = None,
    learned: Reach | CostModel | None = None,
) -> Choice:
    """What the settings say, and where they say nothing, what the model and the links make look best.

    Args:
        task: whose model it is.
        machines: that there are, in order.
        links: between each two that follow one another.
        settings: what is asked for.
        costs: of the model, measured before; None: it is measured where something is to be chosen, on this machine.
        score: of the metric without compression, where the settings have a floor.
        learned: how far compression goes; see `automatic`.

    Raises:
        FringeError: machines or cuts that there are not, or one machine that does it all.
        SplitError: a model that cannot be cut there.
    """
    used = settings.machines or (tuple(machines) if settings.cuts and len(settings.cuts) + 1 == len(machines) else None)
    depth = settings.depth
    if isinstance(depth, int):
        depth = dict.fromkeys(used or machines, depth)
    if used is not None and settings.cuts is not None and depth is not None and settings.methods:
        positions = [position_of(task.cut, cut) for cut in settings.cuts]
        units = tuple(task.cut.units[position - 1] for position in positions)
        return Choice(tuple(used), units, {name: depth.get(name, 1) for name in used}, settings.methods)
    found = automatic(
        task.cut,
        task.learn[:2],
        machines,
        links,
        settings.goals(),
        given=Given(used, settings.cuts, depth, settings.methods or None),
        costs=costs,
        score=score,
        learned=learned,
    )
    if len(found.machines) < 2:
        raise FringeError(
            f"one machine alone, {found.machines[0]!r}, is expected to be fastest: {' '.join(found.why)} "
            "Give machines and cuts to compress nevertheless"
        )
    why = found.why
    methods = found.methods
    if not methods:
        methods = METHODS
        why = (*why, "Nothing that saves bytes is expected to save time here; all methods may be tried for the bytes.")
    return Choice(found.machines, found.cuts, dict(found.depth), methods, why)
