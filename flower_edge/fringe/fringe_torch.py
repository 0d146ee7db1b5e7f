"""`fringe`: the layers that touch a connection, on both of its sides. All others are to stay as they are.

    depth of a layer = 1 + layers with weights on the longest way between it and the nearest tensor that crosses

so depth 1 are the layers with nothing but steps without weights (sums, ReLU, …) between them and the cut, and behind an
identity short cut lie the layers of the block that it passes by. A norm is no layer of its own: it has the depth of its
place, and where it follows a layer at the start of a part, that layer's. Steps that pruning put in are no layers: the
fringe of a pruned pipeline is that of the whole one. An encoder and a decoder are, and lie next to the cut. Nothing
here changes a part.

Source: [2] ¶34-35, fringe layers on both sides of what connects two machines.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import fx, nn

from ..errors import FringeError
from .pipeline_torch import Part, Pipeline
from .pruned_layers_torch import INSERTED

__all__ = ["Fringe", "Side", "fringe", "layer_depths"]

End = Literal["producer", "consumer"]

_NORMS: Final = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms of all dimensions
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


@dataclass(frozen=True)
class Side:
    """The fringe of one machine at one connection.

    Attributes:
        machine: its name.
        connection: its number.
        end: "producer" where the machine sends, "consumer" where it receives.
        layers: names of modules (or of parameters that a step takes directly), nearest to the cut first.
        depths: of the same.
    """

    machine: str
    connection: int
    end: End
    layers: tuple[str, ...]
    depths: tuple[int, ...]


@dataclass(frozen=True)
class Fringe:
    """All sides of all connections.

    Attributes:
        sides: of connection 0 the producer's, then the consumer's, and so on; a middle machine has two.
    """

    sides: tuple[Side, ...]

    def layers(self, machine: str | None = None) -> tuple[str, ...]:
        """Of one machine, or of all; none twice."""
        found = (side.layers for side in self.sides if machine in (None, side.machine))
        return tuple(dict.fromkeys(name for layers in found for name in layers))

    def side(self, connection: int, end: End) -> Side:
        """One side of a connection.

        Raises:
            FringeError: no such side.
        """
        for side in self.sides:
            if (side.connection, side.end) == (connection, end):
                return side
        raise FringeError(f"connection {connection}, end {end!r}: not in this fringe of {len(self.sides)} sides")

    def arrays(self, pipeline: Pipeline) -> tuple[str, ...]:
        """Names of parameters and buffers of the fringe, and of the steps that pruning put in beside it."""
        return tuple(_split(pipeline, self.layers())[0])

    def frozen(self, pipeline: Pipeline) -> tuple[str, ...]:
        """Names of all others: what has to stay, bit for bit."""
        return tuple(_split(pipeline, self.layers())[1])

    def parameters(self, pipeline: Pipeline) -> list[nn.Parameter]:
        """Of the fringe, for an optimiser; none twice."""
        held = _split(pipeline, self.layers())[0].values()
        return list({id(tensor): tensor for tensor in held if isinstance(tensor, nn.Parameter)}.values())


def _split(pipeline: Pipeline, layers: Collection[str]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Arrays of these layers and of what was put in, and the others. A second name of a layer's array is its own, too.

    What pruning put in was never a part of the model, and its maps learn when the fringe does.
    """
    held = pipeline.named_tensors()
    put_in = {name for part in pipeline.parts for name, one in part.module.named_modules() if isinstance(one, INSERTED)}
    own = {id(tensor) for name, tensor in held.items() if _of_one(name, {*layers, *put_in})}
    inside = {name: tensor for name, tensor in held.items() if id(tensor) in own}
    return inside, {name: tensor for name, tensor in held.items() if name not in inside}


def _of_one(name: str, layers: Collection[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:n]) in layers for n in range(1, len(parts) + 1))


def fringe(pipeline: Pipeline, depth: int | Mapping[str, int] = 1) -> Fringe:
    """Find the fringe.

    Args:
        pipeline: as distributed, or already compressed.
        depth: how many layers deep, counted from the cut; by machine, those not named have 1. 0 leaves a machine alone.

    Raises:
        FringeError: a negative depth, or no such machine.

    >>> from flower_edge.fringe.pipeline_torch import distribute
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    >>> [side.layers for side in fringe(distribute(model, torch.zeros(2, 4), ["a", "b"], ["3"])).sides]
    [('2',), ('4',)]
    """
    by_machine = dict(depth) if isinstance(depth, Mapping) else dict.fromkeys(pipeline.machines, depth)
    for machine, wanted in by_machine.items():
        pipeline.part(machine)
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 0:
            raise FringeError(f"depth = {wanted!r} of machine {machine!r}: expected layers, 0 or more")
    sides = []
    for connection in pipeline.connections:
        for machine, end in ((connection.producer, "producer"), (connection.consumer, "consumer")):
            found = layer_depths(pipeline.part(machine), end)  # type: ignore[arg-type]
            near = sorted((at, name) for name, at in found.items() if at <= by_machine.get(machine, 1))
            order = list(found)
            near.sort(key=lambda one: (one[0], order.index(one[1])))
            names, depths = tuple(name for _, name in near), tuple(at for at, _ in near)
            sides.append(Side(machine, connection.number, end, names, depths))  # type: ignore[arg-type]
    return Fringe(tuple(sides))


def layer_depths(part: Part, end: End) -> dict[str, int]:
    """By layer that a tensor of this end depends on (or that depends on one), its depth.

    Args:
        part: of a machine.
        end: "producer" counts from the end of the part, "consumer" from its start.
    """
    graph = part.module.graph
    nodes = list(graph.nodes)
    if end == "producer":
        output = next(node for node in nodes if node.op == "output")
        starts = list(dict.fromkeys(output.args[0]))
        order, before = nodes[::-1], lambda node: node.users
    else:
        starts = [node for node in nodes if node.op == "placeholder"]
        order, before = nodes, lambda node: node.all_input_nodes
    found: dict[str, int] = {}
    at: dict[fx.Node, int] = {}
    for start in starts:
        for node, depth in _longest(part.module, start, order, before).items():
            at[node] = min(depth, at.get(node, depth))
    for node in order:
        if node not in at or node.op in ("placeholder", "output"):
            continue
        depth = at[node]
        if end == "consumer" and _is_norm(part.module, node):
            follows = [at[one] for one in node.all_input_nodes if one in at and _weighs(part.module, one)]
            depth = min([depth, *follows])
        for name in _layers(part.module, node):
            found[name] = min(depth, found.get(name, depth))
    return found


def _longest(
    module: fx.GraphModule,
    start: fx.Node,
    order: Iterable[fx.Node],
    before: Callable[[fx.Node], Iterable[fx.Node]],
) -> dict[fx.Node, int]:
    """Depth of all nodes that a way leads to; `before` gives what lies nearer to the start."""
    at = {start: 1}
    for node in order:
        ways = [at[near] + _weighs(module, near) for near in before(node) if near in at]
        if ways and node is not start:
            at[node] = max(ways)
    return at


def _weighs(module: fx.GraphModule, node: fx.Node) -> int:
    """1 for a step that counts as a layer."""
    return int(bool(_layers(module, node)) and not _is_norm(module, node))


def _is_norm(module: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), _NORMS)


def _layers(module: fx.GraphModule, node: fx.Node) -> list[str]:
    """Names of what with arrays a step uses."""
    if node.op == "call_module":
        called = module.get_submodule(str(node.target))
        held = next(iter(called.parameters()), next(iter(called.buffers()), None))
        return [] if held is None or isinstance(called, INSERTED) else [str(node.target)]
    if not node.op.startswith("call_"):
        return []
    fetched = [str(one.target) for one in node.all_input_nodes if one.op == "get_attr"]
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return [name for name in fetched if name in parameters]  # a constant is no layer, and has nothing to learn
