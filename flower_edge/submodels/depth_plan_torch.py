"""`Plan`: in which order a model with exits computes, and what is live at each exit. It has no arrays, runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from ..splitting.boundaries_torch import Boundary
from ..splitting.tracing_torch import Traced

__all__ = ["Plan", "Steps", "steps_of"]


@dataclass(frozen=True, eq=False)
class Steps:
    """What one mode, training or evaluation, computes."""

    given: fx.Node
    steps: tuple[fx.Node, ...]
    #: By step, values that nothing reads after it.
    done: tuple[tuple[fx.Node, ...], ...]
    #: By exit, how many steps are before it, and what is live there.
    exits: tuple[tuple[int, fx.Node], ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """How a whole model is computed, and what each exit needs. It has no arrays, and copies of a model share it.

    Attributes:
        modes: the steps, by `training`.
        heads: names of the exits before the output, under `exits`.
        copied: by number of an exit, whether its head reads a copy, because later steps write to what is live there.
        names: by exit, the model's own arrays up to it.
    """

    modes: dict[bool, Steps]
    heads: tuple[str, ...]
    copied: frozenset[int]
    names: tuple[tuple[str, ...], ...]

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        return self


def steps_of(traced: Traced, places: Sequence[Boundary], training: bool) -> Steps:
    """Of one mode; the last of the places is the output."""
    graph = traced.training if training else traced.evaluation
    # The two graphs are alike step by step; places are given in nodes of the one of training.
    own = dict(zip(traced.training.nodes, graph.nodes, strict=True))
    steps = traced.steps(training)
    exits = tuple((place.steps, own[place.live[0]]) for place in places)
    last = {node: at for at, step in enumerate(steps) for node in (step, *step.all_input_nodes)}
    kept = {node for _, node in exits[-1:]}
    done: list[list[fx.Node]] = [[] for _ in steps]
    for node, at in last.items():
        if node not in kept:
            done[at].append(node)
    return Steps(traced.input(training), steps, tuple(map(tuple, done)), exits)
