"""What pruning does to one layer, and the three small layers it inserts where none can be narrowed.

Layers are changed in place: who calls has made a copy. Nothing here follows a graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

__all__ = ["INSERTED", "Map", "Scatter", "Select", "fold_columns", "reads", "slice_rows", "weights_of"]

_Array = npt.NDArray[np.float64]
_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)


class Select(nn.Module):
    """Sends on some channels of a tensor that is made elsewhere: all of it is there, part of it goes over the wire."""

    keep: torch.Tensor

    def __init__(self, keep: Sequence[int], axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("keep", torch.tensor(list(keep), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.index_select(self.axis, self.keep)

    def extra_repr(self) -> str:
        return f"{len(self.keep)} channels, axis={self.axis}"


class Scatter(nn.Module):
    """Puts channels that came where they belong among all; the others are 0."""

    keep: torch.Tensor

    def __init__(self, keep: Sequence[int], channels: int, axis: int) -> None:
        super().__init__()
        self.channels, self.axis = channels, axis
        self.register_buffer("keep", torch.tensor(list(keep), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = list(x.shape)
        shape[self.axis] = self.channels
        return x.new_zeros(shape).index_copy(self.axis, self.keep, x)

    def matrix(self) -> _Array:
        """[channels, kept]: the same as a map."""
        return np.eye(self.channels)[:, self.keep.tolist()]

    def extra_repr(self) -> str:
        return f"{len(self.keep)} of {self.channels} channels, axis={self.axis}"


class Map(nn.Module):
    """Makes all channels of those that came, by a matrix [channels, kept]; the matrix can be trained."""

    def __init__(self, matrix: _Array, axis: int, like: torch.Tensor) -> None:
        super().__init__()
        self.axis = axis
        self.weight = nn.Parameter(torch.as_tensor(matrix).to(like))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x.movedim(self.axis, -1), self.weight).movedim(-1, self.axis)

    def matrix(self) -> _Array:
        """[channels, kept]."""
        return np.asarray(self.weight.detach().cpu().double().numpy())

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]} to {self.weight.shape[0]} channels, axis={self.axis}"


#: The layers that pruning puts in; they belong to no layer of the model, and may be changed again.
INSERTED = (Select, Scatter, Map)


def slice_rows(layer: nn.Module, keep: Sequence[int], axis: int, shape: Sequence[int], *, apply: bool) -> bool | None:
    """Make a layer give only some of its channels.

    Args:
        layer: changed if `apply`.
        keep: channels of its output.
        axis: of the channels in what it gives, from the end: -1 is the last.
        shape: of what it gives.
        apply: else it is only said what would be.

    Returns:
        True: the layer makes its channels, and what it reads stays. False: it works channel by channel, and has to be
        given the same channels only. None: it cannot be narrowed.
    """
    if isinstance(layer, Select):
        if layer.axis != axis:
            return None
        if apply:
            layer.keep = layer.keep[_index(keep, layer.keep)]
        return True
    if not _plain(layer):
        return None
    kind = type(layer)
    after_batch = axis == 1 - len(shape)
    if kind is nn.Linear:
        if axis != -1:
            return None
        if apply:
            _take(layer, ("weight", "bias"), keep)
            layer.out_features = len(keep)  # type: ignore[assignment]
        return True
    if kind in _CONVOLUTIONS:
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        whole, depthwise = layer.groups == 1, layer.groups == layer.in_channels == layer.out_channels
        if not after_batch or len(shape) != _CONVOLUTIONS[kind] + 2 or not (whole or depthwise):
            return None
        if apply:
            _take(layer, ("weight", "bias"), keep)
            layer.out_channels = len(keep)
            if not whole:
                layer.in_channels = layer.groups = len(keep)
        return whole
    if isinstance(layer, (*_BATCH_NORMS, *_INSTANCE_NORMS)) and kind in (*_BATCH_NORMS, *_INSTANCE_NORMS):
        if not after_batch:
            return None
        if apply:
            _take(layer, ("weight", "bias", "running_mean", "running_var"), keep)
            layer.num_features = len(keep)
        return False
    if kind is nn.GroupNorm:
        assert isinstance(layer, nn.GroupNorm)
        size = layer.num_channels // layer.num_groups
        groups = sorted({channel // size for channel in keep})
        if not after_batch or len(groups) * size != len(keep):
            return None  # a group that loses a channel is normalised by other numbers
        if apply:
            _take(layer, ("weight", "bias"), keep)
            layer.num_channels, layer.num_groups = len(keep), len(groups)
        return False
    return None


def reads(layer: nn.Module, axis: int, shape: Sequence[int], spread: int) -> bool:
    """Whether a layer's columns can be narrowed: it mixes the channels on `axis` of an input of this shape.

    Args:
        layer: any.
        axis: from the end.
        shape: of what it reads.
        spread: neighbouring numbers that belong to one channel; more than 1 behind a flattening.
    """
    kind = type(layer)
    if not _plain(layer):
        return False
    if kind is nn.Linear:
        return axis == -1
    if spread != 1:
        return False
    if kind in _CONVOLUTIONS:
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        return layer.groups == 1 and axis == 1 - len(shape) == -1 - _CONVOLUTIONS[kind]
    return kind in _RECURRENT and axis == -1 and len(shape) == 3


def fold_columns(layer: nn.Module, matrix: _Array, spread: int) -> None:
    """W' = W x A, in the layer's own dtype; with a selection as A, columns are only copied."""
    kept = matrix.shape[1]
    for name in _columns(layer):
        weight = getattr(layer, name)
        setattr(layer, name, nn.Parameter(_folded(weight.detach(), matrix, spread), weight.requires_grad))
    if isinstance(layer, nn.Linear):
        layer.in_features = kept * spread
    elif isinstance(layer, _RECURRENT):
        layer.input_size = kept
    else:
        layer.in_channels = kept


def weights_of(layer: nn.Module, spread: int) -> _Array:
    """Of a layer that reads: [outputs and places, channels]."""
    found = []
    for name in _columns(layer):
        w = np.asarray(getattr(layer, name).detach().cpu().double().numpy())
        w = w.reshape(len(w), -1, spread) if spread > 1 else w.reshape(*w.shape[:2], -1)
        found.append(w.transpose(0, 2, 1).reshape(-1, w.shape[1]))
    return np.concatenate(found)


def _folded(weight: torch.Tensor, matrix: _Array, spread: int) -> torch.Tensor:
    channels = weight.shape[1] // spread
    wide = weight.reshape(len(weight), channels, -1)
    taken = matrix.argmax(axis=0)
    if np.array_equal(matrix, np.eye(channels)[:, taken]):
        narrow = wide[:, taken.tolist()]
    else:
        narrow = torch.einsum("ocp,ck->okp", wide.double(), torch.as_tensor(matrix, device=weight.device)).to(weight)
    return narrow.reshape(len(weight), matrix.shape[1] * spread, *weight.shape[2:]).contiguous()


def _columns(layer: nn.Module) -> list[str]:
    """Names of the weights that multiply what a layer reads."""
    if isinstance(layer, _RECURRENT):
        return [name for name in layer._parameters if name in ("weight_ih_l0", "weight_ih_l0_reverse")]
    return ["weight"]


def _plain(layer: nn.Module) -> bool:
    """Nothing of the user's hangs on it, and its arrays are its own: no weight that is computed."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    parameters = all(isinstance(p, nn.Parameter) for p in layer._parameters.values() if p is not None)
    affine = getattr(layer, "weight", None) is None or "weight" in layer._parameters
    return not hooked and parameters and affine


def _take(layer: nn.Module, names: Sequence[str], keep: Sequence[int]) -> None:
    for name in names:
        tensor = getattr(layer, name, None)
        if tensor is None:
            continue
        part = tensor.detach()[_index(keep, tensor)].clone()
        setattr(layer, name, nn.Parameter(part, tensor.requires_grad) if name in layer._parameters else part)


def _index(keep: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(list(keep), dtype=torch.int64, device=like.device)
