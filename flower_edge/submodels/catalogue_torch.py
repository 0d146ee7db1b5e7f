"""The model list of a torch model, counted by running each size once. It assigns nothing.

FLOPs are those of matrix products and convolutions, as torch counts them. Activations are the tensors that autograd
keeps between the passes, each once, without the parameters themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import ConfigError
from ..splitting.recording_torch import left_as_found
from .catalogue import Catalogue, Variant, check_sizes
from .choices import prefix
from .groups import WidthGroups, index_of
from .narrow_torch import narrow
from .sizes import Size

__all__ = ["catalogue", "variant_of"]


def catalogue(
    model: nn.Module,
    groups: WidthGroups | None,
    sizes: Mapping[str, Size | float] | Sequence[Size | float],
    example: torch.Tensor,
) -> Catalogue:
    """The model in each size, in the order of the sizes: give the most wanted first.

    Args:
        model: the whole one; it is not changed. One that offers `at_depth(depth)`, such as a `DepthModel`, may be
            listed in depths too.
        groups: its `width_groups(model, example)`; `None` where the sizes differ in depth only.
        sizes: rates or `Size`s, by name or without.
        example: [samples, ...], two samples or more; counts are divided by them.

    Raises:
        ConfigError: a size that the model cannot have.

    >>> from flower_edge.models import make_model
    >>> from flower_edge.submodels.channels_torch import width_groups
    >>> x = torch.zeros(2, 4)
    >>> model = make_model("mlp", input_shape=(4,), num_classes=2, seed=0, hidden=(8,))
    >>> models = catalogue(model, width_groups(model, x), {"a": 1.0, "b": 0.5}, x)
    >>> [(one.name, one.parameters, one.state_bytes, one.forward_flops) for one in models]
    [('a', 58, 232, 96.0), ('b', 30, 120, 48.0)]
    """
    return Catalogue(tuple(variant_of(model, groups, size, example, name) for name, size in check_sizes(sizes).items()))


def variant_of(model: nn.Module, groups: WidthGroups | None, size: Size, example: torch.Tensor, name: str) -> Variant:
    """One size of the model, and its price; arguments and errors as `catalogue`."""
    small = _sized(model, groups, size, name)
    trained = {name: parameter for name, parameter in small.named_parameters() if parameter.requires_grad}
    arrays = small.state_dict()
    # By where they lie: what is tied or only looked at differently is not kept twice.
    own = {tensor.untyped_storage().data_ptr() for tensor in arrays.values()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with left_as_found(small):
        small.train()
        saving = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with saving, FlopCounterMode(display=False) as counter:
            given = small(example)
            forward = counter.get_total_flops()
            if given.requires_grad:
                given.sum().backward()
    count = len(example)
    return Variant(
        name,
        size,
        sum(parameter.numel() for parameter in trained.values()),
        sum(tensor.numel() * tensor.element_size() for tensor in arrays.values()),
        forward / count,
        counter.get_total_flops() / count,
        sum(parameter.numel() * parameter.element_size() for parameter in trained.values()),
        sum(kept.values()) / count,
        {name: tuple(tensor.shape) for name, tensor in arrays.items()},
    )


def _sized(model: nn.Module, groups: WidthGroups | None, size: Size, name: str) -> nn.Module:
    if size.depth:
        at_depth: Any = getattr(model, "at_depth", None)
        if not callable(at_depth):
            raise ConfigError(
                f"variant {name!r} has depth {size.depth}, and {type(model).__name__} has no exits; give it some with "
                "depth_model(model, example, exits), or list rates only"
            )
        model = cast(nn.Module, at_depth(size.depth))
    if size.rate == 1.0:
        return copy.deepcopy(model)
    if groups is None:
        raise ConfigError(f"variant {name!r} has rate {size.rate:g}; give groups=width_groups(model, example)")
    held = model.state_dict().keys()
    index = index_of(groups, prefix(groups, size.rate))
    return narrow(model, {array: axes for array, axes in index.items() if array in held})
