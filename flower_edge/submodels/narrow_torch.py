"""A narrower torch module out of the whole one: the same layers and names, fewer channels. Nothing here chooses them.

The module is copied and its arrays are cut; layers are told their new widths, which follow from the shapes of their
arrays. So a node that was sent the arrays needs nothing else: `narrow_to` makes the module that holds them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..errors import ModelMismatch
from ..updates.manifest import Index

__all__ = ["Scaler", "narrow", "narrow_to", "scale_narrowed", "static_norm"]

Module = TypeVar("Module", bound=nn.Module)


def narrow(model: Module, index: Mapping[str, Index | None]) -> Module:
    """A copy that holds these places of each array; those that are not named it holds whole.

    Tied arrays stay tied, and parameters that are not trained stay so. The model itself is not changed.

    Args:
        model: the whole one.
        index: what `index_of` gives.

    Raises:
        ModelMismatch: an array that the model does not have.
    """
    if unknown := sorted(index.keys() - model.state_dict().keys()):
        raise ModelMismatch(f"arrays {unknown} are not in {type(model).__name__}")
    small = copy.deepcopy(model)
    cut: dict[int, Any] = {}
    for prefix, module in small.named_modules():
        own: list[tuple[dict[str, Any], str]] = [(module._parameters, name) for name in module._parameters]
        own += [(module._buffers, name) for name in module._buffers]
        changed = False
        for holder, name in own:
            tensor = holder[name]
            axes = index.get(f"{prefix}.{name}" if prefix else name)
            if tensor is None or axes is None:
                continue
            if id(tensor) not in cut:
                # The old one is kept beside it: an id is only its own while it lives.
                cut[id(tensor)] = (tensor, _cut(tensor, axes))
            holder[name] = cut[id(tensor)][1]
            changed = True
        if changed:
            _tell(module)
    return small


def narrow_to(model: Module, shapes: Mapping[str, tuple[int, ...]]) -> Module:
    """A copy whose arrays have these shapes, each no longer than the model's on any axis. Its numbers mean nothing yet.

    Raises:
        ModelMismatch: other names, or an array that has more axes or is longer.
    """
    whole = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    odd = [f"{name!r} is missing" for name in whole if name not in shapes]
    odd += [f"{name!r} is unknown" for name in shapes if name not in whole]
    odd += [
        f"{name!r} is {tuple(shape)}, the whole one {whole[name]}"
        for name, shape in shapes.items()
        if name in whole
        and (len(shape) != len(whole[name]) or any(a > b or a < 1 < b for a, b in zip(shape, whole[name], strict=True)))
    ]
    if odd:
        raise ModelMismatch(
            f"arrays are not those of a part of this {type(model).__name__}: {'; '.join(odd[:6])}; make the model with "
            "the same name and options at both ends"
        )
    axes = {name: tuple(np.arange(n, dtype=np.intp) for n in shape) for name, shape in shapes.items()}
    return narrow(model, {name: axes[name] if shapes[name] != whole[name] else None for name in whole})


class Scaler:
    """A forward hook: in training, outputs are divided by the rate (HeteroFL), so that sizes mix in one mean.

    Args:
        rate: of the sub-model, above 0 and up to 1.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, module: nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor | None:
        """What goes on instead of the output; `None` leaves it as it is."""
        return output / self.rate if module.training and self.rate != 1.0 else None


def scale_narrowed(small: nn.Module, whole: nn.Module, rate: float) -> int:
    """Put a `Scaler` behind every convolution and linear layer that has fewer outputs than in the whole model.

    A layer that gives all its outputs, as the last one, is not scaled. Arrays and their names stay.

    Returns:
        How many there are.
    """
    layers = dict(whole.named_modules())
    found = 0
    for name, module in small.named_modules():
        if isinstance(module, nn.Linear | _ConvNd) and _outputs(module) < _outputs(layers[name]):
            module.register_forward_hook(Scaler(rate))
            found += 1
    return found


def static_norm(model: nn.Module) -> int:
    """Let BatchNorm normalise by its batch in training and leave its running statistics as they are (HeteroFL).

    Running statistics of sub-models, and those that are shared, tell of the nodes' data and mix badly; they are taken
    once, at the end: `statistics_torch`.

    Returns:
        How many layers there are.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for layer in layers:
        # With a momentum of 0 the statistics are multiplied by 1; without buffers their names would be missing.
        layer.momentum = 0.0
    return len(layers)


def _outputs(module: Any) -> int:
    return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)


def _cut(tensor: torch.Tensor, axes: Index) -> torch.Tensor:
    part = tensor.detach()
    for axis, places in enumerate(axes):
        if places is not None:
            part = part.index_select(axis, torch.as_tensor(np.asarray(places), device=tensor.device))
    part = part.clone()
    return nn.Parameter(part, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else part


def _tell(module: Any) -> None:
    """Say to a layer how wide it is now."""
    shape = tuple(module.weight.shape) if getattr(module, "weight", None) is not None else ()
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = shape
    elif isinstance(module, _ConvTransposeNd):
        module.in_channels, module.out_channels = shape[0], shape[1] * module.groups
    elif isinstance(module, _ConvNd):
        # So many outputs a group as before: groups are kept or left out as they are.
        module.groups = module.groups * shape[0] // module.out_channels if module.groups > 1 else 1
        module.out_channels, module.in_channels = shape[0], shape[1] * module.groups
    elif isinstance(module, _NormBase):
        module.num_features = len(module.weight if module.weight is not None else module.running_mean)
    elif isinstance(module, nn.GroupNorm):
        module.num_groups = module.num_groups * shape[0] // module.num_channels if module.num_groups > 1 else 1
        module.num_channels = shape[0]
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        module.normalized_shape = shape
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = shape[1]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = shape[0]
