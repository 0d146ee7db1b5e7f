"""What is learned and what is served: data, partition and model of a run config. The same on server and terminals.

A quarter of the training data stays with the server: half of it, without labels, for healing, half for validation. The
test data choose nothing.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from flower_edge.data import Dataset, Partition, load_dataset, make_partition
from flower_edge.models import Model, make_model
from fringe_app.config import FringeRun

MODEL = "resnet"


@lru_cache(maxsize=1)
def datasets(config: FringeRun) -> tuple[Dataset, Dataset]:
    """Training and test data, pictures of 32x32."""
    return load_dataset(config.data.name, path=config.data.path or None, size=32, seed=config.seed)


@lru_cache(maxsize=1)
def _dealt(config: FringeRun) -> tuple[Dataset, Dataset, Dataset]:
    train, _ = datasets(config)
    order = np.random.default_rng(config.seed).permutation(len(train))
    eighth = len(train) // 8
    return (
        train.subset(np.sort(order[2 * eighth :])),
        train.subset(np.sort(order[:eighth])),
        train.subset(np.sort(order[eighth : 2 * eighth])),
    )


def terminals_data(config: FringeRun) -> Dataset:
    """What all terminals have together."""
    return _dealt(config)[0]


def learn_data(config: FringeRun) -> Dataset:
    """What fringe layers heal with, on the server; labels are not looked at."""
    return _dealt(config)[1]


def validation_data(config: FringeRun) -> Dataset:
    """What versions are judged by, on the server."""
    return _dealt(config)[2]


@lru_cache(maxsize=1)
def partition(config: FringeRun, terminals: int) -> Partition:
    """Which samples each terminal has."""
    return make_partition(
        config.data.scheme, terminals_data(config).labels, terminals, seed=config.seed, **config.data.options()
    )


def model(config: FringeRun) -> Model:
    """Before training, the same wherever it is made."""
    train, _ = datasets(config)
    return make_model(MODEL, input_shape=train.input_shape, num_classes=train.num_classes, seed=config.seed)
