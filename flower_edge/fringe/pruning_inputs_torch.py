"""Fewer channels of a tensor that a part is sent: layers that read it lose columns, the rest gets a guess of all.

The channels that are not sent are taken as A times those that are, and A is folded into the layers that read: W' = W A.
Without A they are taken as 0, and columns only go. Where something else reads the tensor (the identity beside a
residual block, a frozen layer) a step is put in that makes all channels. Nothing here chooses channels or trains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from ..errors import FringeError
from .channel_steps_torch import (
    Shapes,
    at_most_one,
    copied,
    elementwise,
    in_place,
    linear_in_channels,
    module_at,
    name_of,
    normalises,
    placeholders,
    places_only,
    shapes_of,
    zero_stays,
)
from .pruned_layers_torch import Map, Scatter, fold_columns, reads, weights_of
from .pruning_outputs_torch import Narrowed, channel_axis, free_name
from .reconstruction import checked_keep

__all__ = ["narrow_inputs", "reader_gram"]

_Array = npt.NDArray[np.float64]
_OF_STREAMS = (nn.LayerNorm, nn.RMSNorm, nn.MultiheadAttention)


def narrow_inputs(
    part: fx.GraphModule,
    input: int,
    keep: Sequence[int],
    A: npt.ArrayLike | None = None,
    *,
    example: Sequence[torch.Tensor],
    axis: int = 1,
    allowed: Sequence[str] | None = None,
) -> Narrowed:
    """A copy of a part that takes only some channels of one of its tensors.

    It computes what the part computes of A times these channels, or, without A, of the tensor with 0 in the others.

    Args:
        part: of a pipeline; not changed.
        input: which of the tensors it takes.
        keep: channels, increasing.
        A: [channels, kept], such as `least_squares_map` gives.
        example: tensors as the part takes them now, any number of samples.
        axis: of the channels in that tensor: 1 for [samples, channels, ...], 2 for [samples, steps, features].
        allowed: names of the layers that may change, each with all inside it; None: all.

    Raises:
        FringeError: no such input, axis or channel; a map of another shape; an example that does not fit; a
            transformer's stream, all features of which are normalised together.
    """
    walk = _Walk(part, input, example, axis, allowed, mixed=A is not None)
    kept = checked_keep(keep, walk.channels)
    if A is None:
        if len(kept) == walk.channels:
            return Narrowed(walk.part)
        walk.refuse_a_stream()
        return walk.narrowed(np.eye(walk.channels)[:, kept], kept)
    matrix = np.asarray(A, dtype=np.float64)
    if matrix.shape != (walk.channels, len(kept)) or not np.isfinite(matrix).all():
        raise FringeError(
            f"a map of shape {list(matrix.shape)} for {len(kept)} of {walk.channels} channels; expected finite "
            f"[{walk.channels}, {len(kept)}], of least_squares_map(moment, keep)"
        )
    walk.refuse_a_stream()
    return walk.narrowed(matrix, None)


def reader_gram(
    part: fx.GraphModule,
    input: int,
    *,
    example: Sequence[torch.Tensor],
    axis: int = 1,
    allowed: Sequence[str] | None = None,
) -> _Array:
    """G [channels, channels] of what reads a tensor: an error of moment R in it costs trace(G R) in what is read.

    Layers count with their weights, as often as they read a place; everything else, such as an identity, with 1.

    Raises:
        FringeError: as `narrow_inputs`.
    """
    walk = _Walk(part, input, example, axis, allowed, mixed=True)
    walk.refuse_a_stream()
    return walk.gram()


@dataclass(frozen=True)
class _Fold:
    """A layer that reads the channels; `spread`: neighbouring numbers that belong to one."""

    node: fx.Node
    layer: nn.Module
    spread: int = 1


class _Walk:
    """One walk from an input forwards. Axes are counted from the end."""

    def __init__(
        self,
        part: fx.GraphModule,
        input: int,
        example: Sequence[torch.Tensor],
        axis: int,
        allowed: Sequence[str] | None,
        *,
        mixed: bool,
    ) -> None:
        self.part, self.allowed, self.mixed, self.input = copied(part), allowed, mixed, input
        given = placeholders(self.part)
        if not 0 <= input < len(given):
            raise FringeError(f"input {input} of a part that takes {len(given)} tensors; use 0 or more, below that")
        self.start = given[input]
        self.shapes: Shapes = shapes_of(self.part, example)
        shape = self.shapes[self.start]
        self.axis = channel_axis(shape, axis, f"input {input}")
        self.channels = shape[self.axis]
        self.folds, self.expands = self._follow(self.start, self.axis)

    def narrowed(self, matrix: _Array, keep: list[int] | None) -> Narrowed:
        """`keep`: what the matrix selects; None: it mixes."""
        sliced = []
        for fold in self.folds:
            name = str(fold.node.target)
            if isinstance(fold.layer, Scatter | Map):
                self._compose(name, fold.layer, matrix, keep)
            else:
                fold_columns(fold.layer, matrix, fold.spread)
            sliced.append(name)
        inserted = []
        for node in dict.fromkeys(node for node, _ in self.expands):
            name = free_name(self.part, f"expanded_{node.name}")
            axis = self.axis
            layer = Map(matrix, axis, self._like()) if keep is None else Scatter(keep, self.channels, axis)
            self.part.add_submodule(name, layer)
            # Behind all inputs: who takes a part apart counts on them to come first.
            given = placeholders(self.part)
            with self.part.graph.inserting_after(given[-1] if node in given else node):
                expanded = self.part.graph.call_module(name, (node,))
            inserted.append(name)
            for user in [user for one, user in self.expands if one is node]:
                user.replace_input_with(node, expanded)
        self.part.graph.lint()
        self.part.recompile()
        return Narrowed(self.part, tuple(sliced), tuple(inserted))

    def gram(self) -> _Array:
        G: _Array = np.zeros((self.channels, self.channels))
        for fold in self.folds:
            if isinstance(fold.layer, Scatter | Map):
                W, often = fold.layer.matrix(), 1.0
            else:
                W, often = weights_of(fold.layer, fold.spread), self._often(fold)
            G += often * (W.T @ W)
        return np.asarray(G + len({user for _, user in self.expands}) * np.eye(self.channels))

    def refuse_a_stream(self) -> None:
        """
        Raises:
            FringeError: all features are normalised together, perhaps after a sum.
        """
        seen, todo = {self.start}, [self.start]
        while todo:
            for user in todo.pop().users:
                if self._mixes_all(user):
                    raise FringeError(
                        f"{str(user.target)!r} reads all {self.channels} features of input {self.input} at once: the "
                        "stream of a transformer runs through the whole model and cannot be pruned at one connection; "
                        "put an encoder and a decoder there instead (the pair of docs/fringe_distillation.md)"
                    )
                if user not in seen and elementwise(user, self.part):
                    seen.add(user)
                    todo.append(user)

    def _mixes_all(self, user: fx.Node) -> bool:
        if user.op != "call_module":
            return self.axis == -1 and normalises(user, self.part)
        layer = self.part.get_submodule(str(user.target))
        if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
            return len(layer.normalized_shape) >= -self.axis
        # A block that could not be traced is one step.
        return self.axis == -1 and any(isinstance(inner, _OF_STREAMS) for inner in layer.modules())

    def _follow(self, node: fx.Node, axis: int) -> tuple[list[_Fold], list[tuple[fx.Node, fx.Node]]]:
        """Layers that can be folded, and which reader of what has to be given all channels."""
        users = list(node.users)
        everywhere = [(node, user) for user in users]
        if len(users) > 1 and any(in_place(user, self.part) for user in users):
            return [], everywhere  # who reads later reads what it wrote
        folds: list[_Fold] = []
        expands: list[tuple[fx.Node, fx.Node]] = []
        for user in users:
            fold = self._fold(user, node, axis)
            if fold is not None:
                folds.append(fold)
                continue
            if self._passes(user, node, axis):
                more, expanded = self._flat(user, axis) if self._flattens(user) else self._follow(user, axis)
                if more:
                    folds += more
                    expands += expanded
                    continue
            expands.append((node, user))
        return (folds, expands) if folds else ([], everywhere)

    def _fold(self, user: fx.Node, node: fx.Node, axis: int, spread: int = 1) -> _Fold | None:
        layer = module_at(user, self.part, self.allowed)
        if layer is None or not user.args or user.args[0] is not node:
            return None
        seen: list[fx.Node] = []
        fx.node.map_arg((user.args, user.kwargs), seen.append)
        if seen.count(node) != 1:
            return None
        ours = isinstance(layer, Scatter | Map) and spread == 1 and layer.axis == axis
        return _Fold(user, layer, spread) if ours or reads(layer, axis, self.shapes[node], spread) else None

    def _passes(self, user: fx.Node, node: fx.Node, axis: int) -> bool:
        if user not in self.shapes or not at_most_one(user, node):
            return False
        if self._flattens(user):
            return axis == 1 - len(self.shapes[node]) and len(self.shapes[user]) == 2
        if places_only(user, self.part) and axis != 1 - len(self.shapes[node]):
            return False
        return linear_in_channels(user, self.part) if self.mixed else zero_stays(user, self.part)

    def _flattens(self, user: fx.Node) -> bool:
        return name_of(user, self.part) == "flatten"

    def _flat(self, user: fx.Node, axis: int) -> tuple[list[_Fold], list[tuple[fx.Node, fx.Node]]]:
        """Linear layers behind it, if nothing else is."""
        spread = self.shapes[user][-1] // self.channels
        folds = [self._fold(reader, user, -1, spread) for reader in user.users]
        return ([], []) if None in folds else ([fold for fold in folds if fold is not None], [])

    def _often(self, fold: _Fold) -> float:
        """How often a layer reads a place: a stride reads fewer."""
        before, after = self.shapes[self.start], self.shapes.get(fold.node)
        if after is None or isinstance(fold.layer, nn.Linear) or len(after) != len(before):
            return 1.0
        return math.prod(after[2:]) / max(1, math.prod(before[2:]))

    def _compose(self, name: str, layer: Scatter | Map, matrix: _Array, keep: list[int] | None) -> None:
        """A tensor that was narrowed before is narrowed again."""
        if isinstance(layer, Scatter) and keep is not None:
            layer.keep = layer.keep[torch.tensor(keep, device=layer.keep.device)]
            return
        like = layer.weight if isinstance(layer, Map) else self._like()
        new = Map(layer.matrix() @ matrix, layer.axis, like)
        new.training = layer.training
        self.part.set_submodule(name, new)

    def _like(self) -> torch.Tensor:
        return next((p for p in self.part.parameters() if p.is_floating_point()), torch.empty(0))
