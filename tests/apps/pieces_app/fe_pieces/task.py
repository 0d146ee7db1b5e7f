"""fe_pieces: the model and the segments of the training data; the same in process and in a simulation."""

from typing import Any

import numpy as np
import torch
from torch import nn

from flower_edge.splitting.order import ArchitectureSpec

TERMINALS = 5


def small(input_shape: Any, num_classes: int) -> nn.Sequential:
    """Four units, one of them with buffers."""
    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, num_classes))


MODELS = {"small": small}
SPEC = ArchitectureSpec(name="small", input_shape=(12,), num_classes=3)


def initial() -> nn.Sequential:
    """The model all begin from."""
    torch.manual_seed(0)
    return small((12,), 3)


def segment(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the training data."""
    rng = np.random.default_rng(100 + number)
    x = rng.normal(size=(16, 12)).astype(np.float32)
    return x, x[:, :3].argmax(axis=1).astype(np.int64)
