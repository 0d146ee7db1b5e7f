"""`classifier_head`: a small classifier for what is live inside a model. One for early exits and for local losses.

Sources: Kim et al., "DepthFL", ICLR 2023 (a classifier behind each depth); Belilovsky et al., "Greedy layerwise
learning can scale to ImageNet", ICML 2019 (auxiliary heads that pool before they classify).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..errors import SplitError
from .head_shapes import head_kind

__all__ = ["classifier_head"]

#: Pictures are pooled to so many places a side at most: a head stays small beside what it is put on.
_SIDE = 2


def classifier_head(shape: Sequence[int], outputs: Sequence[int], *, seed: int = 0) -> nn.Sequential:
    """Scores from one tensor inside a model.

    Args:
        shape: of that tensor for one sample: [channels, height, width], [features], or [context, features].
        outputs: of the model for one sample: [classes], or [context, classes].
        seed: of its first parameters; torch's own generator is left as it was.

    Raises:
        SplitError: shapes it cannot lead from one to the other.

    >>> head = classifier_head((8, 14, 14), (10,))
    >>> head(torch.zeros(3, 8, 14, 14)).shape, [name for name, _ in head.named_parameters()]
    (torch.Size([3, 10]), ['linear.weight', 'linear.bias'])
    """
    head, kind = nn.Sequential(), head_kind(shape, outputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "pooled":
            height, width = min(_SIDE, shape[1]), min(_SIDE, shape[2])
            head.add_module("pool", nn.AdaptiveAvgPool2d((height, width)))
            head.add_module("flatten", nn.Flatten())
            head.add_module("linear", nn.Linear(shape[0] * height * width, outputs[0]))
        elif kind == "linear":
            head.add_module("linear", nn.Linear(shape[-1], outputs[-1]))
        else:
            raise SplitError(
                f"no classifier leads from {list(shape)} to {list(outputs)}; choose a place where one picture "
                "[channels, height, width], one vector [features] or one sequence [context, features] is live"
            )
    return head
