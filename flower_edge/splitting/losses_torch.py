"""The losses a split model is trained with: a mean over all targets of a batch. No regularisers.

Cross entropy is that of `flower_edge.models.train`, operation by operation, so that a split step and a whole one agree
in every bit.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from ..errors import DataError, SplitError
from .order import LossName

__all__ = ["backward", "mean_loss"]


def mean_loss(name: LossName, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over all targets of the batch.

    Args:
        name: `cross-entropy` in nats, or `mse`, the mean squared difference.
        outputs: cross entropy: scores [batch, classes] or [batch, context, classes]; mse: [batch, ...].
        targets: cross entropy: int64 [batch] or [batch, context]; mse: as many numbers as outputs, cast to their dtype.

    Raises:
        DataError: outputs and targets that do not belong together, or a class that the model does not have.

    >>> mean_loss("mse", torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 0.0]))
    tensor(5.)
    >>> mean_loss("cross-entropy", torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)).exp().round(decimals=3)
    tensor(4.)
    """
    if name == "mse":
        if outputs.numel() != targets.numel():
            raise DataError(
                f"the model gives {outputs.numel()} numbers (shape {tuple(outputs.shape)}) for {targets.numel()} "
                f"targets (shape {tuple(targets.shape)}); mse needs one target for each"
            )
        return functional.mse_loss(outputs, targets.reshape(outputs.shape).to(outputs.dtype))
    if targets.is_floating_point():
        raise DataError(f"targets of dtype {targets.dtype} for cross entropy; give int64 classes, or use loss 'mse'")
    scores = outputs.reshape(-1, outputs.shape[-1])
    if len(scores) != targets.numel():
        raise DataError(
            f"the model scores {len(scores)} targets, {targets.numel()} came (shape {tuple(targets.shape)}); "
            "sequences need a model for sequences, such as 'char-transformer', single classes one of the others"
        )
    classes = scores.shape[-1]
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        bad = targets[(targets < 0) | (targets >= classes)][0]
        # An accelerator would not raise, but be of no use to this process any more.
        raise DataError(f"target {int(bad)}, and the model scores {classes} classes; expected 0 to {classes - 1}")
    return functional.cross_entropy(scores, targets.reshape(-1))


def backward(loss: torch.Tensor) -> float:
    """Accumulate the gradients of a loss.

    Returns:
        Its value.

    Raises:
        SplitError: it depends on nothing that is trained.
    """
    if not loss.requires_grad:
        raise SplitError("nothing in this model is trained: it has no parameters, or all have requires_grad=False")
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())
