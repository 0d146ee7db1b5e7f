"""What is learned: data, partition and model of a run config. The same on the server and on every terminal."""

from __future__ import annotations

from functools import lru_cache

from compression_app.config import Compression
from flower_edge.data import Dataset, Partition, load_dataset, make_partition
from flower_edge.models import Model, make_model

#: The 8x8 digits have to be as large as LeNet's own input: 61 706 parameters.
SIZES = {"digits": 32, "mnist": 28}


@lru_cache(maxsize=1)
def datasets(config: Compression) -> tuple[Dataset, Dataset]:
    """Training and test data."""
    return load_dataset(config.data.name, path=config.data.path or None, size=SIZES[config.data.name], seed=config.seed)


@lru_cache(maxsize=1)
def partition(config: Compression, terminals: int) -> Partition:
    """Which training samples each terminal has."""
    train, _ = datasets(config)
    return make_partition(config.data.scheme, train.labels, terminals, seed=config.seed, **config.data.options())


def model(config: Compression) -> Model:
    """LeNet before training, the same wherever it is made."""
    train, _ = datasets(config)
    return make_model("lenet5", input_shape=train.input_shape, num_classes=train.num_classes, seed=config.seed)
