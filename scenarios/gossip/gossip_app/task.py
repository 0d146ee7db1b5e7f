"""What is learned: data, partition, model and local training of a run config. The same on the server and every node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flower_edge.data import Dataset, Partition, load_dataset, make_partition
from flower_edge.models import Model, make_model
from gossip_app.config import Gossip


@dataclass(frozen=True)
class Task:
    """A data set and what suits it.

    Attributes:
        data, model: by name; size: pixels a side, options: of the model.
        classes: that each node holds; of the characters, speakers.
        steps, learning_rate: of local training in a round.
    """

    data: str
    model: str
    size: int | None
    options: dict[str, Any]
    classes: int
    steps: int
    learning_rate: float


TASKS = {
    # The 8x8 digits have to be as large as LeNet's own input: 61 706 parameters, as in [1].
    "digits": Task("digits", "lenet5", 32, {}, classes=6, steps=10, learning_rate=0.12),
    "mnist": Task("mnist", "lenet5", 28, {}, classes=6, steps=10, learning_rate=0.12),
    "traffic": Task("network-traffic", "mlp", None, {"hidden": (64,)}, classes=3, steps=10, learning_rate=0.1),
    "characters": Task("characters", "char-transformer", None, {"width": 32}, classes=2, steps=10, learning_rate=0.2),
}


def task_of(config: Gossip) -> Task:
    """The task of a run config, with the keys that replace what suits it."""
    task = TASKS[config.task]
    return Task(
        task.data,
        task.model,
        task.size,
        task.options,
        config.data.classes_per_node or task.classes,
        config.train.steps or task.steps,
        config.train.learning_rate or task.learning_rate,
    )


@lru_cache(maxsize=1)
def datasets(config: Gossip) -> tuple[Dataset, Dataset]:
    """Training and test data."""
    task = task_of(config)
    return load_dataset(task.data, path=config.data.path or None, size=task.size, seed=config.seed)


@lru_cache(maxsize=1)
def partition(config: Gossip, nodes: int) -> Partition:
    """Which training samples each node has: those of six classes, as in [1]."""
    train, _ = datasets(config)
    return make_partition("classes-per-node", train.labels, nodes, seed=config.seed, k=task_of(config).classes)


def model(config: Gossip) -> Model:
    """The model before training, the same wherever it is made."""
    train, _ = datasets(config)
    task = task_of(config)
    return make_model(
        task.model, input_shape=train.input_shape, num_classes=train.num_classes, seed=config.seed, **task.options
    )


def place(config: Gossip, node_config: Mapping[str, Any]) -> tuple[int, int]:
    """Which node this is, of how many; the server is the last one where it is a worker, too."""
    return int(node_config["partition-id"]), int(node_config["num-partitions"]) + config.server_is_worker
