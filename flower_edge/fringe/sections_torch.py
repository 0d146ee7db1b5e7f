"""The sections of two neighbouring parts that hold the fringe layers: what has to run, and no more, to heal them.

A section shares modules and arrays with the part it is of. Nothing here trains.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

from torch import fx

from .channel_steps_torch import outputs

__all__ = ["around", "before_and_after", "named_parameters_of", "shortened", "up_to", "whole_before"]


def named_parameters_of(part: fx.GraphModule, layers: Sequence[str]) -> list[str]:
    """Names of the parameters of some layers and all inside them, in the part's order."""
    names = [name for name, _ in part.named_parameters()]
    return [name for name in names if any(name == layer or name.startswith(f"{layer}.") for layer in layers)]


def around(part: fx.GraphModule, layers: Sequence[str]) -> tuple[int, int] | None:
    """Numbers of the first and the last step that calls one of these layers; None: there is none."""
    at = [
        number
        for number, node in enumerate(part.graph.nodes)
        if node.op in ("call_module", "get_attr")
        and any(str(node.target) == layer or str(node.target).startswith(f"{layer}.") for layer in layers)
    ]
    return (at[0], at[-1]) if at else None


def before_and_after(part: fx.GraphModule, number: int) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The part in two, one after the other: the steps before a number, and the rest.

    What the first gives, in order, is what the second takes.
    """
    nodes = list(part.graph.nodes)
    number = max(number, _after_inputs(nodes))
    live = _live(nodes, number)
    return _section(part, [], nodes[:number], live), _section(part, live, nodes[number:-1], outputs(part)[1])


def whole_before(part: fx.GraphModule, number: int) -> int:
    """The last place at or before a step where all that is live are tensors: a recurrent layer gives a tuple."""
    nodes = list(part.graph.nodes)
    least = _after_inputs(nodes)
    return next((at for at in range(number, least, -1) if not any(_packed(n) for n in _live(nodes, at))), least)


def up_to(part: fx.GraphModule, last: int) -> list[str]:
    """Names of the tensors by which what steps up to `last` compute can be told: the first single one after them.

    A sum with a shortcut is such a place; where there is none, those the part gives.
    """
    nodes = list(part.graph.nodes)
    for number in range(last + 1, len(nodes)):
        live = _live(nodes, number)
        if len(live) == 1 and not _packed(live[0]):
            return [live[0].name]
    return [node.name for node in outputs(part)[1]]


def shortened(part: fx.GraphModule, names: Sequence[str]) -> fx.GraphModule:
    """The steps that make the tensors of these names, and nothing else."""
    nodes = list(part.graph.nodes)
    by_name = {node.name: node for node in nodes}
    wanted = [by_name[name] for name in names]
    needed: set[fx.Node] = set()
    todo = list(wanted)
    while todo:
        node = todo.pop()
        if node not in needed:
            needed.add(node)
            todo += node.all_input_nodes
            todo += [user for user in node.users if _writes(user)]  # what is done to it in place
    given = [node for node in nodes if node.op == "placeholder"]
    return _section(part, given, [node for node in nodes if node in needed], wanted)


def _after_inputs(nodes: Sequence[fx.Node]) -> int:
    return max((number for number, node in enumerate(nodes, 1) if node.op == "placeholder"), default=0)


def _writes(node: fx.Node) -> bool:
    return node.op == "call_method" and str(node.target).endswith("_") and not str(node.target).endswith("__")


def _packed(node: fx.Node) -> bool:
    """Something is taken out of it: it may be a tuple."""
    return any(user.op == "call_function" and user.target is operator.getitem for user in node.users)


def _live(nodes: Sequence[fx.Node], number: int) -> list[fx.Node]:
    """Tensors made before a step and read at it or later."""
    later = set(nodes[number:])
    return [node for node in nodes[:number] if node.op != "get_attr" and any(user in later for user in node.users)]


def _section(
    part: fx.GraphModule, given: Sequence[fx.Node], steps: Sequence[fx.Node], wanted: Sequence[fx.Node]
) -> fx.GraphModule:
    graph = fx.Graph()
    env: dict[fx.Node, fx.Node] = {node: graph.placeholder(node.name) for node in given}

    def fetched(node: fx.Node) -> fx.Node:
        if node not in env and node.op == "get_attr":
            env[node] = graph.node_copy(node)
        return env[node]

    for node in steps:
        if node in env:
            continue
        for before in node.all_input_nodes:
            fetched(before)
        env[node] = graph.node_copy(node, fetched)
    graph.output(tuple(fetched(node) for node in wanted))
    return fx.GraphModule(part, graph, class_name="Section")
