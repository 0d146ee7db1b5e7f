"""BatchNorm's statistics of a trained model on one node's data: the one step that static normalisation leaves to do.

Source: Diao, Ding, Tarokh, "HeteroFL", ICLR 2021, section 3 (static batch normalisation).
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import DataError

__all__ = ["batch_statistics"]


def batch_statistics(model: nn.Module, x: NDArray[Any], *, batch_size: int = 64) -> dict[str, NDArray[Any]]:
    """Running means and variances of every BatchNorm, as the plain mean over the batches of these samples.

    Args:
        model: with the arrays it was trained to; it is not changed.
        x: samples, [samples, ...]; no labels are needed.
        batch_size: samples at a time; a last batch of one sample is left out, for it has no variance.

    Returns:
        By name; empty for a model without BatchNorm.

    Raises:
        DataError: fewer than two samples, or batches of fewer.
    """
    if len(x) < 2 or batch_size < 2:
        raise DataError(f"{len(x)} samples in batches of {batch_size}; a variance needs 2 or more")
    own = copy.deepcopy(model)
    layers = {name: m for name, m in own.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats}
    if not layers:
        return {}
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None  # torch then takes the mean of all batches
    kind = next(own.parameters())
    with torch.no_grad(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        own.train()
        for begin in range(0, len(x), batch_size):
            batch = torch.as_tensor(np.asarray(x[begin : begin + batch_size]), device=kind.device)
            if len(batch) > 1:
                own(batch.to(kind.dtype) if batch.is_floating_point() else batch)
    state = own.state_dict()
    return {
        f"{name}.{part}": state[f"{name}.{part}"].cpu().numpy().copy()
        for name in layers
        for part in ("running_mean", "running_var")
    }
