"""What each width of a model costs: parameters, bytes and FLOPs. Values for whoever assigns; nothing here assigns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .catalogue import Variant, name_of
from .catalogue_torch import variant_of
from .groups import WidthGroups
from .sizes import Size

__all__ = ["Variant", "width_variants"]


def width_variants(
    model: nn.Module, groups: WidthGroups, rates: Sequence[float], example: torch.Tensor
) -> tuple[Variant, ...]:
    """The model at each rate, in the order of the rates; `catalogue` makes a list of names and sizes of it.

    Args:
        model: the whole one; it is not changed.
        groups: its groups.
        rates: above 0 and up to 1.
        example: [samples, ...]; FLOPs are divided by its samples.

    Raises:
        ConfigError: a rate that is none.

    >>> from flower_edge.models import make_model
    >>> from flower_edge.submodels.channels_torch import width_groups
    >>> x = torch.zeros(2, 4)
    >>> model = make_model("mlp", input_shape=(4,), num_classes=2, seed=0, hidden=(8,))
    >>> [(v.rate, v.parameters, v.forward_flops) for v in width_variants(model, width_groups(model, x), [1.0, 0.5], x)]
    [(1.0, 58, 96.0), (0.5, 30, 48.0)]
    """
    sizes = [Size(rate) for rate in rates]
    return tuple(variant_of(model, groups, size, example, name_of(size)) for size in sizes)
