"""fe_pieces_stream: the model, the training data and the strategy; the same in process and in a deployment."""

from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context
from flwr.clientapp import ClientApp
from torch import nn

from flower_edge.clients.pieces import pieces_client
from flower_edge.models.train_torch import get_arrays
from flower_edge.splitting.order import ArchitectureSpec, OptimiserSpec
from flower_edge.strategies.pieces.pieces import Pieces
from flower_edge.wire import record_of

ROUNDS = 1


def small(input_shape: Any, num_classes: int) -> nn.Sequential:
    """Four units, one of them with buffers."""
    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, num_classes))


MODELS = {"small": small}
SPEC = ArchitectureSpec(name="small", input_shape=(12,), num_classes=3)


def samples(context: Context, segment: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a segment, whoever loads it."""
    rng = np.random.default_rng(100 + segment)
    x = rng.normal(size=(16, 12)).astype(np.float32)
    return x, x[:, :3].argmax(axis=1).astype(np.int64)


def client() -> ClientApp:
    """A terminal."""
    return pieces_client(samples, models=MODELS)


def strategy(plane: Any, steps: int) -> Pieces:
    """Three pieces on three terminals, whichever holds which."""
    return Pieces(
        SPEC,
        cuts=(1, 3),
        data="segments",
        steps_per_round=steps,
        batch_size=4,
        optimiser=OptimiserSpec(lr=0.1, options={"momentum": 0.9}),
        models=MODELS,
        plane=plane,
    )


def start() -> ArrayRecord:
    """Where all begin."""
    torch.manual_seed(3)
    return record_of(get_arrays(small((12,), 3)))
