"""Fewer channels of a tensor that a part sends: layers that make it give up rows, the rest is selected from.

The selection is pushed from the output backwards, through sums, activations, pooling and normalisations that work
channel by channel, to the layers that make the channels. Where it meets what must not change, such as the identity
beside a residual block or a frozen layer, it stays as a step of its own there. Nothing here chooses channels or trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from ..errors import FringeError
from .channel_steps_torch import (
    Shapes,
    copied,
    elementwise,
    in_place,
    module_at,
    outputs,
    places_only,
    shapes_of,
)
from .pruned_layers_torch import Select, slice_rows
from .reconstruction import checked_keep

__all__ = ["KEPT", "Narrowed", "channel_axis", "free_name", "narrow_outputs", "writer_norms"]

#: What a step of a graph notes in its `meta` when its output was narrowed: (axis from the end, channels of the whole).
KEPT: Final = "flower_edge_kept"


@dataclass(frozen=True, eq=False)
class Narrowed:
    """A part after one tensor of it was narrowed; what it was made of is as it was.

    Attributes:
        part: the new one; owns copies of all arrays, under their names.
        sliced: names of the layers whose arrays are smaller.
        inserted: names of the layers that were put in.
    """

    part: fx.GraphModule
    sliced: tuple[str, ...] = ()
    inserted: tuple[str, ...] = ()


def narrow_outputs(
    part: fx.GraphModule,
    output: int,
    keep: Sequence[int],
    *,
    example: Sequence[torch.Tensor],
    axis: int = 1,
    allowed: Sequence[str] | None = None,
) -> Narrowed:
    """A copy of a part that gives only some channels of one of its tensors.

    What it gives is, bit for bit or within the rounding of another order of sums, what the part gave of these channels.
    A recurrent layer cannot lose a hidden unit, as every unit feeds all others: its output is selected from.

    Args:
        part: of a pipeline; not changed.
        output: which of the tensors it gives.
        keep: channels, increasing.
        example: tensors as the part takes them, any number of samples.
        axis: of the channels in that tensor: 1 for [samples, channels, ...], 2 for [samples, steps, features].
        allowed: names of the layers that may change, each with all inside it; None: all.

    Raises:
        FringeError: no such output, axis or channel; an example that does not fit.
    """
    walk = _Walk(part, output, keep, example, axis, allowed)
    return walk.narrowed() if len(walk.keep) < walk.channels else Narrowed(walk.part)


def writer_norms(
    part: fx.GraphModule,
    output: int,
    *,
    example: Sequence[torch.Tensor],
    axis: int = 1,
    allowed: Sequence[str] | None = None,
) -> npt.NDArray[np.float64]:
    """L1 norm of the weights that make each channel [channels], summed over the layers that would be sliced.

    Raises:
        FringeError: as `narrow_outputs`; or no layer would be.
    """
    walk = _Walk(part, output, (0,), example, axis, allowed)
    total: npt.NDArray[np.float64] = np.zeros(walk.channels)
    layers = [walk.part.get_submodule(name) for name in walk.writers()]
    layers = [layer for layer in layers if not isinstance(layer, Select)]
    if not layers:
        raise FringeError(
            f"no layer that may change makes output {output}, so its channels have no weights; rank them by what they "
            "hold: rank_channels"
        )
    for layer in layers:
        weight: torch.Tensor = layer.get_parameter("weight")
        total += weight.detach().abs().flatten(1).sum(1).cpu().double().numpy()
    return total


def channel_axis(shape: Sequence[int], axis: int, what: str) -> int:
    """The axis counted from the end.

    Raises:
        FringeError: no such axis, or that of the samples.
    """
    if not 0 < axis % len(shape) < len(shape) or not -len(shape) < axis < len(shape):
        raise FringeError(f"axis = {axis} of {what}, of shape {list(shape)}; give one after that of the samples")
    return axis % len(shape) - len(shape)


class _Walk:
    """One walk from an output backwards. `axes` are counted from the end throughout."""

    def __init__(
        self,
        part: fx.GraphModule,
        output: int,
        keep: Sequence[int],
        example: Sequence[torch.Tensor],
        axis: int,
        allowed: Sequence[str] | None,
    ) -> None:
        self.part, self.allowed = copied(part), allowed
        self.last, self.given = outputs(self.part)
        if not 0 <= output < len(self.given):
            raise FringeError(
                f"output {output} of a part that gives {len(self.given)} tensors; use 0 or more, below that"
            )
        self.output, self.start = output, self.given[output]
        self.shapes: Shapes = shapes_of(self.part, example)
        shape = self.shapes[self.start]
        self.axis = channel_axis(shape, axis, f"output {output}")
        self.channels = shape[self.axis]
        self.keep = checked_keep(keep, self.channels)
        #: By step whose output is narrowed: the axis, and which of its inputs have to be narrowed with it.
        self.pushed: dict[fx.Node, dict[fx.Node, int]] = {}
        self.asks: dict[fx.Node, dict[fx.Node, int]] = {self.start: {self.last: self.axis}}
        self._push()

    def writers(self) -> list[str]:
        """Layers that would be sliced by rows."""
        return [
            str(node.target)
            for node in self.part.graph.nodes
            if node in self.pushed and node.op == "call_module" and self._slice(node, apply=False) is True
        ]

    def narrowed(self) -> Narrowed:
        sliced = [
            str(node.target) for node in self.pushed if node.op == "call_module" and self._slice(node, apply=True)
        ]
        for node in self.pushed:
            axis = next(iter(self.asks[node].values()))
            before = node.meta.get(KEPT, (axis, range(self.channels)))[1]
            node.meta[KEPT] = (axis, tuple(before[channel] for channel in self.keep))
        inserted = []
        for node, asks in self.asks.items():
            if node in self.pushed:
                continue
            for user, axis in asks.items():
                if user is not self.last and user not in self.pushed:
                    continue
                name = free_name(self.part, f"selected_{node.name}")
                # Before the step that reads, not behind the one that makes: another may write to it in between.
                with self.part.graph.inserting_before(user):
                    self.part.add_submodule(name, Select(self.keep, axis))
                    selected = self.part.graph.call_module(name, (node,))
                inserted.append(name)
                if user is self.last:
                    self.given[self.output] = selected
                    self.last.args = (tuple(self.given),)
                else:
                    user.replace_input_with(node, selected)
        self.part.graph.lint()
        self.part.recompile()
        order = {str(node.target): number for number, node in enumerate(self.part.graph.nodes)}
        return Narrowed(self.part, tuple(sorted(sliced, key=lambda name: order[name])), tuple(inserted))

    def _push(self) -> None:
        nodes = list(self.part.graph.nodes)
        for node in reversed(nodes):
            if node not in self.asks:
                continue
            through = self._through(node)
            if through is None:
                continue
            self.pushed[node] = through
            for before, axis in through.items():
                self.asks.setdefault(before, {})[node] = axis
        # A push that ends at no layer to slice only moves the selection: it stays where it was.
        for node in nodes:
            if node in self.pushed and not self._makes(node) and not any(n in self.pushed for n in self.pushed[node]):
                del self.pushed[node]

    def _makes(self, node: fx.Node) -> bool:
        return node.op == "call_module" and self._slice(node, apply=False) is True

    def _slice(self, node: fx.Node, *, apply: bool) -> bool | None:
        """As `slice_rows`; of a layer that works number by number, None."""
        layer = module_at(node, self.part, self.allowed)
        if layer is None or node not in self.shapes:
            return None
        axis = next(iter(self.asks[node].values()))
        found = slice_rows(layer, self.keep, axis, self.shapes[node], apply=apply)
        return found if not apply else found is not None

    def _through(self, node: fx.Node) -> dict[fx.Node, int] | None:
        """What has to be narrowed so that this step gives fewer channels; None if it cannot."""
        asks = self.asks[node]
        axis = next(iter(asks.values()))
        times = sum(given is node for given in self.given)
        if node not in self.shapes or set(node.users) != set(asks) or set(asks.values()) != {axis} or times > 1:
            return None
        if in_place(node, self.part) and any(len(before.users) > 1 for before in node.all_input_nodes):
            return None  # others read what it writes
        if elementwise(node, self.part):
            return self._alike(node, axis)
        if places_only(node, self.part) and axis == 1 - len(self.shapes[node]) and len(node.all_input_nodes) == 1:
            return {node.all_input_nodes[0]: axis}
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs or len(node.all_input_nodes) != 1:
            return None
        makes = self._slice(node, apply=False)
        if makes is None:
            return self._beside(node, axis)
        return {} if makes else {node.all_input_nodes[0]: axis}

    def _beside(self, node: fx.Node, axis: int) -> dict[fx.Node, int] | None:
        """A layer norm over axes that are not that of the channels."""
        layer = self.part.get_submodule(str(node.target))
        if type(layer) is nn.LayerNorm and len(layer.normalized_shape) < -axis:
            return {node.all_input_nodes[0]: axis}
        return None

    def _alike(self, node: fx.Node, axis: int) -> dict[fx.Node, int] | None:
        found: dict[fx.Node, int] = {}
        for before in node.all_input_nodes:
            if before not in self.shapes:
                return None
            shape = self.shapes[before]
            if len(shape) < -axis or shape[axis] == 1:  # one number for all channels
                continue
            if shape[axis] != self.channels:
                return None
            found[before] = axis
        return found or None


def free_name(part: fx.GraphModule, wanted: str) -> str:
    """For a layer that is put in: as wanted, with a number behind it where that is taken."""
    number, name = 1, wanted
    while hasattr(part, name):
        number += 1
        name = f"{wanted}_{number}"
    return name
