"""What torch's layers do to channels: which arrays have them on which axis, and what comes out.

A layer that is not here needs all channels of its input, and gives an output that is whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .coupling import Axes, Coupling, reshaped
from .groups import Axis, Segment

__all__ = ["Call", "after_layer"]

#: They work on every number alone, or on the places of one channel at a time: axes stay as they are.
_POINTWISE = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign,
    nn.Tanhshrink, nn.Hardshrink, nn.Softshrink, nn.Threshold, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
    nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip
#: They change the places and not the channels, which are on the axis before the places.
_PLACES = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.LPPool1d, nn.LPPool2d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.Upsample, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d,
    nn.ReplicationPad2d, nn.ConstantPad1d, nn.ConstantPad2d,
)  # fmt: skip


@dataclass
class Call:
    """One call of a layer.

    Attributes:
        name: of the layer.
        where: the layer, for errors.
        axes, before: of its input.
        after: shape of its output.
        coupling: takes up what is found.
        label: says that an array of the layer lies so, and gives how it lies; `None` in it is an axis that is whole.
        made: a new group of channels that this layer makes.
    """

    name: str
    where: str
    axes: Axes
    before: tuple[int, ...]
    after: tuple[int, ...]
    coupling: Coupling
    label: Callable[[str, Axes], Axes]
    made: Callable[[int], Axis]


def after_layer(layer: nn.Module, call: Call) -> Axes | None:
    """Axes of the output; `None` for a layer that is not known here."""
    if isinstance(layer, _POINTWISE):
        return call.axes
    if isinstance(layer, _PLACES):
        return kept_places(call)
    if isinstance(layer, nn.Flatten):
        return reshaped(call.coupling, call.before, call.axes, call.after, call.where)
    if isinstance(layer, nn.Linear):
        return _linear(layer, call)
    if isinstance(layer, _ConvNd):
        return _convolution(layer, call)
    if isinstance(layer, nn.Embedding):
        weight = call.label("weight", (None, call.made(layer.embedding_dim)))
        return (*call.axes, weight[1])
    if isinstance(layer, _NormBase):
        return _per_channel(call, 1, ("weight", "bias", "running_mean", "running_var"), layer)
    if isinstance(layer, nn.GroupNorm):
        return _group_norm(layer, call)
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        return _layer_norm(layer, call)
    if isinstance(layer, nn.PReLU):
        return call.axes if layer.num_parameters == 1 else _per_channel(call, 1, ("weight",), layer)
    if isinstance(layer, nn.Softmax | nn.LogSoftmax | nn.Softmin) and layer.dim is not None:
        call.coupling.demand(call.where, "normalises over channels", call.axes[layer.dim])
        return call.axes
    return None


def kept_places(call: Call) -> Axes:
    """A change of places: what is before them stays. Without a batch the channels are first."""
    changed = [place for place, (a, b) in enumerate(zip(call.before, call.after, strict=True)) if a != b]
    call.coupling.demand(call.where, "changes how many channels there are", *(call.axes[place] for place in changed))
    return tuple(None if place in changed else axis for place, axis in enumerate(call.axes))


def _linear(layer: nn.Linear, call: Call) -> Axes:
    weight = call.label("weight", (call.made(layer.out_features), call.axes[-1]))
    if layer.bias is not None:
        call.label("bias", (weight[0],))
    return (*call.axes[:-1], weight[0])


def _convolution(layer: _ConvNd, call: Call) -> Axes:
    at = len(call.before) - len(layer.kernel_size) - 1
    read = call.axes[at]
    transposed = isinstance(layer, _ConvTransposeNd)
    places: Axes = (None,) * len(layer.kernel_size)
    if layer.groups == 1:
        pair = (read, call.made(layer.out_channels)) if transposed else (call.made(layer.out_channels), read)
        weight = call.label("weight", (*pair, *places))
        made = weight[1] if transposed else weight[0]
    else:
        made = _by_groups(layer, call, read)
        if transposed:
            call.coupling.demand(call.where, "is a transposed convolution in groups", read, made)
        call.label("weight", (made, None, *places))
    if layer.bias is not None:
        call.label("bias", (made,))
    return tuple(made if place == at else axis for place, axis in enumerate(call.axes))


def _by_groups(layer: _ConvNd, call: Call, read: Axis | None) -> Axis | None:
    """Channels after a convolution in groups: with those before them, group by group."""
    into, out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    if read is None:
        return call.coupling.fixed(layer.out_channels)
    if into == 1:
        return tuple(Segment(s.group, s.channels, s.repeats * out) for s in read)
    if into == out and len(read) == 1 and read[0].repeats == 1:
        call.coupling.by_units(read, into)
        return read
    call.coupling.demand(call.where, f"has {layer.groups} groups of {into} channels that become {out}", read)
    return call.coupling.fixed(layer.out_channels)


def _per_channel(call: Call, at: int, names: tuple[str, ...], layer: nn.Module) -> Axes:
    """One number of each array per channel."""
    own = [name for name in names if getattr(layer, name, None) is not None]
    for name in own:
        call.label(name, (call.axes[at],))
    return call.axes


def _group_norm(layer: nn.GroupNorm, call: Call) -> Axes:
    axis, together = call.axes[1], layer.num_channels // layer.num_groups
    if not layer.affine:
        call.coupling.demand(call.where, "has no weights that would tell its width", axis)
    elif axis is not None and layer.num_groups > 1 and together > 1:
        if len(axis) == 1 and axis[0].repeats == 1:
            call.coupling.by_units(axis, together)
        else:
            call.coupling.demand(call.where, "has groups of channels that come from several layers", axis)
    return _per_channel(call, 1, ("weight", "bias"), layer)


def _layer_norm(layer: nn.LayerNorm | nn.RMSNorm, call: Call) -> Axes:
    over = len(cast(Any, layer.normalized_shape))
    if not layer.elementwise_affine:
        call.coupling.demand(call.where, "has no weights that would tell its width", *call.axes[-over:])
    for name in ("weight", "bias"):
        if getattr(layer, name, None) is not None:
            call.label(name, call.axes[-over:])
    return call.axes
