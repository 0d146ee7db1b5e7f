"""fe_split_app: the model, the devices' data and the strategy; the same in process and in a deployment."""

from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from flower_edge.clients.properties import answer_properties
from flower_edge.clients.split import split_client
from flower_edge.models.train_torch import get_arrays
from flower_edge.splitting.order import ArchitectureSpec, OptimiserSpec
from flower_edge.splitting.planner import Scheduled
from flower_edge.strategies.splitting.split import Split
from flower_edge.wire import record_of

ROUNDS = 2


def small(input_shape: Any, num_classes: int) -> nn.Sequential:
    """Four units, one of them with buffers."""
    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, num_classes))


MODELS = {"small": small}
SPEC = ArchitectureSpec(name="small", input_shape=(12,), num_classes=3)


def samples(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one device."""
    rng = np.random.default_rng(100 + number)
    x = rng.normal(size=(16, 12)).astype(np.float32)
    return x, x[:, :3].argmax(axis=1).astype(np.int64)


def client() -> ClientApp:
    """A device."""
    app = split_client(lambda context: samples(int(context.node_config["partition-id"])), models=MODELS)
    return answer_properties(app)


def strategy(plane: Any) -> Split:
    """Cuts that differ by device and round, one merge at the end."""
    return Split(
        SPEC,
        planner=Scheduled(((1, 2), (3, 1))),
        strategy=FedAvg(fraction_evaluate=0.0),
        steps_per_round=3,
        batch_size=4,
        optimiser=OptimiserSpec(lr=0.1, options={"momentum": 0.9}),
        merge_every=ROUNDS,
        measure="reports",
        models=MODELS,
        plane=plane,
    )


def start() -> ArrayRecord:
    """Where all begin."""
    torch.manual_seed(3)
    return record_of(get_arrays(small((12,), 3)))
