"""Whole layers, or blocks, of the fringe left out: those whose output has the shape of their input.

What is left out is gone from the part: its steps, its arrays, its time. What crosses a connection has the same shape as
before, so this saves compute, and bytes only together with something else. Which layer can go is measured, not guessed.
Nothing here trains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import fx

from ..errors import FringeError
from .channel_steps_torch import shapes_of
from .fringe_torch import Fringe
from .parts_torch import copied
from .pipeline_torch import Part, Pipeline

__all__ = ["RemovalEffect", "removable", "removal_effects", "without"]


class RemovalEffect(NamedTuple):
    """What a pipeline is without one layer.

    Attributes:
        machine, layer: where it was, and its name.
        score: of the pipeline without it, by the caller's own measure.
        numbers: that go with it, of parameters and buffers.
    """

    machine: str
    layer: str
    score: float
    numbers: int


class _Region(NamedTuple):
    """Steps of one module: what they take from outside, and the one outside takes."""

    steps: tuple[fx.Node, ...]
    taken: fx.Node
    given: fx.Node


def removable(pipeline: Pipeline, fringe: Fringe) -> tuple[tuple[str, str], ...]:
    """(machine, layer) of all that can be left out: a layer, or a block all of whose arrays are of the fringe."""
    found = []
    crossing = _inputs(pipeline)
    for part in pipeline.parts:
        own = set(fringe.layers(part.machine))
        shapes = shapes_of(part.module, crossing[part.machine])
        names = {".".join(name.split(".")[:n]) for name in own for n in range(1, name.count(".") + 2)}
        for name in sorted(names):
            region = _region(part.module, name)
            inside = {layer for layer in _with_arrays(part) if layer == name or layer.startswith(f"{name}.")}
            if region and inside <= own and shapes.get(region.taken) == shapes.get(region.given) is not None:
                found.append((part.machine, name))
    return tuple(found)


def without(pipeline: Pipeline, machine: str, layer: str) -> Pipeline:
    """The pipeline without a layer, a version on; the one given stays as it is.

    Raises:
        FringeError: no such layer, or one that takes or gives several tensors, or another shape than it takes.
    """
    part = pipeline.part(machine)
    module = copied(part.module)
    region = _region(module, layer)
    if region is None:
        raise FringeError(f"{layer!r} of machine {machine!r}: expected a layer with one tensor in and one out")
    shapes = shapes_of(module, _inputs(pipeline)[machine])
    if shapes.get(region.taken) is None or shapes.get(region.taken) != shapes.get(region.given):
        raise FringeError(
            f"{layer!r} takes {shapes.get(region.taken)} and gives {shapes.get(region.given)}; only a layer whose "
            "output has the shape of its input can be left out"
        )
    region.given.replace_all_uses_with(region.taken)
    for step in reversed(region.steps):
        if not step.users:
            module.graph.erase_node(step)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    module.delete_all_unused_submodules()
    return pipeline.with_modules({machine: module})


def removal_effects(
    pipeline: Pipeline, fringe: Fringe, score: Callable[[Pipeline], float]
) -> tuple[RemovalEffect, ...]:
    """Leave out each removable layer by itself and measure; the highest score first.

    Args:
        pipeline: stays as it is.
        fringe: of it.
        score: such as accuracy on held-out data; higher is better.
    """
    before = _numbers(pipeline)
    found = []
    for machine, layer in removable(pipeline, fringe):
        tried = without(pipeline, machine, layer)
        found.append(RemovalEffect(machine, layer, score(tried), before - _numbers(tried)))
    return tuple(sorted(found, key=lambda effect: (-effect.score, effect.machine, effect.layer)))


def _numbers(pipeline: Pipeline) -> int:
    return sum(tensor.numel() for tensor in {id(t): t for t in pipeline.named_tensors().values()}.values())


def _with_arrays(part: Part) -> set[str]:
    """Names of what a step of the part calls or fetches."""
    nodes = part.module.graph.nodes
    called = {str(node.target) for node in nodes if node.op == "call_module"}
    held = {name for name in called if any(True for _ in part.module.get_submodule(name).state_dict())}
    parameters = dict(part.module.named_parameters(remove_duplicate=False))
    return held | {str(node.target) for node in nodes if node.op == "get_attr" and str(node.target) in parameters}


def _region(module: fx.GraphModule, name: str) -> _Region | None:
    """The steps of a module with one tensor in and one out; None where there is no such."""

    def inside(node: fx.Node) -> bool:
        places = [str(node.meta.get("owner", ""))] + ([str(node.target)] if node.op == "call_module" else [])
        return node.op.startswith("call_") and any(p == name or p.startswith(f"{name}.") for p in places)

    steps = tuple(node for node in module.graph.nodes if inside(node))
    taken = {one for node in steps for one in node.all_input_nodes if one not in steps and one.op != "get_attr"}
    given = {node for node in steps if any(user not in steps for user in node.users)}
    if len(taken) != 1 or len(given) != 1:
        return None
    return _Region(steps, taken.pop(), given.pop())


def _inputs(pipeline: Pipeline) -> dict[str, tuple[torch.Tensor, ...]]:
    """By machine, what its part gets of the example."""
    got = ((pipeline.example,), *pipeline.crossing(pipeline.example))
    return dict(zip(pipeline.machines, got, strict=True))
