"""What each cut of a model gives away of its inputs, and NoPeek's loss against it. The gauge itself is in `leakage`.

NoPeek adds weight x dCor(inputs, tensors at the cut) to the task's loss: the device's half learns tensors from which
the inputs are harder to rebuild. It costs accuracy, and what it leaves is measured, not proven.

Source: Vepakomma, Singh, Gupta, Raskar, "NoPeek: information leakage reduction to share activations in distributed deep
learning", ICDM workshops 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from .leakage import gauge
from .recording_torch import left_as_found
from .tensors_torch import Pass

if TYPE_CHECKING:
    from .cutting_torch import CutModel

__all__ = ["distance_correlation", "measure", "nopeek"]


def distance_correlation(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """As `leakage.distance_correlation`, plain, with gradients for `z`: a scalar tensor from 0 to 1.

    Equal samples have a distance of 0, whose root has no gradient: there it is taken as 0. Where all samples are the
    same, at one end or the other, the correlation is 0 and so are its gradients.

    Args:
        x: inputs [batch, ...]; nothing flows back to them.
        z: a tensor at the cut [batch, ...].
    """
    a, b = _centred(_distances(x.detach().to(z.dtype))), _centred(_distances(z))
    own, other = (a * a).mean(), (b * b).mean()
    if not (float(own) > 0 and float(other.detach()) > 0):
        return z.sum() * 0.0
    # Each root by itself: a product of both squares can vanish in float32 where neither does.
    squared = (a * b).mean() / (own.sqrt() * other.sqrt())
    return squared.sqrt() if float(squared.detach()) > 0 else z.sum() * 0.0


def nopeek(weight: float, through: Pass) -> torch.Tensor | None:
    """NoPeek's part of the loss of whoever has the samples; None where it is off, or nothing trained is to be seen.

    Args:
        weight: `WorkOrder.nopeek`.
        through: the samples on their way through this machine's units.
    """
    if not weight:
        return None
    seen = [output.flatten(1) for output, wanted in zip(through.outputs, through.differentiable, strict=True) if wanted]
    return weight * distance_correlation(through.leaves[0], torch.cat(seen, 1)) if seen else None


def measure(cut_model: CutModel, x: npt.NDArray[Any] | torch.Tensor, *, corrected: bool = True) -> dict[int, float]:
    """Distance correlation of inputs with what crosses each cut, from 0 (the inputs themselves: 1) to the last.

    The model is run in evaluation mode, unit by unit, and left as it was.

    Args:
        cut_model: the model, cut.
        x: samples [samples, ...] as the first unit takes them; some hundreds are plenty.
        corrected: see `leakage.distance_correlation`.
    """
    inputs = x if isinstance(x, torch.Tensor) else torch.tensor(x)
    if inputs.is_floating_point():
        inputs = inputs.to(cut_model.example)
    crossing: dict[int, list[npt.NDArray[Any]]] = {0: [inputs.numpy(force=True)]}
    tensors: tuple[torch.Tensor, ...] = (inputs,)
    with left_as_found(cut_model.model), torch.no_grad():
        for start in range(len(cut_model.units)):
            tensors = cut_model.stage(start, start + 1).eval()(*tensors)
            crossing[start + 1] = [np.asarray(tensor.numpy(force=True)) for tensor in tensors]
    return gauge(crossing[0][0], crossing, corrected=corrected)


def _distances(x: torch.Tensor) -> torch.Tensor:
    """Between samples, [batch, batch]."""
    flat = x.reshape(len(x), -1)
    flat = flat - flat.mean(dim=0)
    own = flat.square().sum(dim=1)
    squares = own[:, None] + own[None, :] - 2 * (flat @ flat.T)
    # Below a few last digits of the largest, a difference is rounding, and its root's gradient would be huge.
    least = 8 * torch.finfo(x.dtype).eps * own.max()
    apart = (squares > least) & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    # Inside and outside: a root of zero would put NaN into the gradient even where it is not taken.
    return torch.where(apart, torch.where(apart, squares, torch.ones_like(squares)).sqrt(), torch.zeros_like(squares))


def _centred(d: torch.Tensor) -> torch.Tensor:
    return d - d.mean(dim=0) - d.mean(dim=1)[:, None] + d.mean()
