"""What is learned: data, partition and model of a run config. The same on the server and on every terminal."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from flower_edge.data import Dataset, Partition, load_dataset, make_partition
from flower_edge.models import Model, make_model
from moving_terminals_app.config import MovingTerminals

#: The 8x8 digits have to be as large as LeNet's own input.
SIZES = {"lenet5": 32}


@lru_cache(maxsize=1)
def datasets(config: MovingTerminals) -> tuple[Dataset, Dataset]:
    """Training and test data."""
    size = SIZES.get(config.model.name)
    return load_dataset(config.data.name, path=config.data.path or None, size=size, seed=config.seed)


@lru_cache(maxsize=1)
def partition(config: MovingTerminals, terminals: int) -> Partition:
    """Which training samples each terminal has."""
    train, _ = datasets(config)
    options = config.partition.options()
    return make_partition(config.partition.scheme, train.labels, terminals, seed=config.seed, **options)


def collected(own: Dataset, *, new: bool) -> Dataset:
    """With on-exit = "new-data": what a terminal has when its task begins, or what it has collected when it leaves.

    A stand-in for a stream: three quarters of its samples are there from the beginning, the others come on the way.
    """
    samples, first = np.arange(len(own.y)), 3 * len(own.y) // 4
    return own.subset(samples[first:] if new else samples[:first])


def model(config: MovingTerminals) -> Model:
    """The model before training, the same wherever it is made."""
    train, _ = datasets(config)
    return make_model(config.model.name, input_shape=train.input_shape, num_classes=train.num_classes, seed=config.seed)
