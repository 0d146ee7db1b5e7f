"""What each width of a model costs: parameters, bytes and FLOPs. Values for whoever assigns; nothing here assigns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..splitting.recording_torch import left_as_found
from .choices import prefix
from .groups import WidthGroups, bytes_of, index_of, manifest_of, values_of
from .narrow_torch import narrow

__all__ = ["Variant", "width_variants"]


@dataclass(frozen=True)
class Variant:
    """One width of a model.

    Attributes:
        rate: share of the channels of each group.
        parameters: how many numbers are trained.
        state_bytes: of parameters and buffers: what travels each way.
        forward_flops: per sample, of matrix products and convolutions, as torch counts them.
        train_flops: forward and backward together.
    """

    rate: float
    parameters: int
    state_bytes: int
    forward_flops: float
    train_flops: float


def width_variants(
    model: nn.Module, groups: WidthGroups, rates: Sequence[float], example: torch.Tensor
) -> tuple[Variant, ...]:
    """The model at each rate, in the order of the rates.

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
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    out = []
    for rate in rates:
        channels = prefix(groups, rate)
        manifest = manifest_of(groups, channels)
        small = narrow(model, index_of(groups, channels))
        with left_as_found(small):
            small.train()
            with FlopCounterMode(display=False) as counter:
                given = small(example)
                forward = counter.get_total_flops()
                if given.requires_grad:
                    given.sum().backward()
        both = counter.get_total_flops()
        count = len(example)
        out.append(Variant(rate, values_of(manifest, trained), bytes_of(manifest), forward / count, both / count))
    return tuple(out)
