"""What is learned: data, partition and model of a run config. The same on the server and on every terminal."""

from __future__ import annotations

from functools import lru_cache

from flower_edge.data import Dataset, Partition, load_dataset, make_partition
from flower_edge.models import Model, make_model
from quickstart_tiers.config import Quickstart

#: The 8x8 digits have to be as large as LeNet's own input.
SIZES = {"lenet5": 32}


@lru_cache(maxsize=1)
def datasets(config: Quickstart) -> tuple[Dataset, Dataset]:
    """Training and test data."""
    size = SIZES.get(config.model.name)
    return load_dataset(config.data.name, path=config.data.path or None, size=size, seed=config.seed)


@lru_cache(maxsize=1)
def partition(config: Quickstart, terminals: int) -> Partition:
    """Which training samples each terminal has."""
    train, _ = datasets(config)
    options = config.partition.options()
    return make_partition(config.partition.scheme, train.labels, terminals, seed=config.seed, **options)


def model(config: Quickstart) -> Model:
    """The model before training, the same wherever it is made."""
    train, _ = datasets(config)
    return make_model(config.model.name, input_shape=train.input_shape, num_classes=train.num_classes, seed=config.seed)
