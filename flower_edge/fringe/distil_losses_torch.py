"""What pairs are trained by: tensors that should come out again, and outputs that another model gave. No state.

Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from ..splitting.losses_torch import mean_loss
from .distil_recipe import DistilRecipe

__all__ = ["distillation_loss", "regression_loss", "squared"]


def squared(got: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> torch.Tensor:
    """Squared differences of all tensors, summed up.

    >>> squared([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 4.0])])
    tensor(4.)
    """
    return torch.stack([(mine - other).square().sum() for mine, other in zip(got, wanted, strict=True)]).sum()


def regression_loss(got: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], variance: float) -> torch.Tensor:
    """Squared difference of a sample, as a share of what there is.

    Args:
        got, wanted: [batch, ...] each.
        variance: of a sample, all tensors together.
    """
    return squared(got, wanted) / max(variance * len(wanted[0]), 1e-30)


def distillation_loss(
    recipe: DistilRecipe, outputs: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    """(1 - share) T^2 KL(teacher / T, outputs / T) + share of cross entropy; of numbers squared differences for both.

    Args:
        recipe: outputs, temperature T and label_share.
        outputs, teacher: scores [batch, ..., classes], or numbers [batch, ...].
        labels: or None, which leaves the first term alone.

    Raises:
        DataError: labels that do not belong to the outputs.

    >>> same = torch.tensor([[2.0, 1.0]])
    >>> distillation_loss(DistilRecipe(), same, same, None)
    tensor(0.)
    """
    if recipe.outputs == "classes":
        classes = outputs.shape[-1]
        soft = functional.kl_div(
            functional.log_softmax(outputs.reshape(-1, classes) / recipe.temperature, dim=1),
            functional.log_softmax(teacher.reshape(-1, classes) / recipe.temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        soft = soft * recipe.temperature**2  # gradients of the size they have at temperature 1
    else:
        soft = functional.mse_loss(outputs, teacher)
    if labels is None or recipe.label_share == 0:
        return soft
    hard = mean_loss("cross-entropy" if recipe.outputs == "classes" else "mse", outputs, labels)
    return (1 - recipe.label_share) * soft + recipe.label_share * hard
