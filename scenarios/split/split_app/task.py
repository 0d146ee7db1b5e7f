"""What is learned: data, partition and model of a run config. The same on the server and on every device."""

from __future__ import annotations

from functools import lru_cache

from flower_edge.data import Dataset, Partition, load_dataset, make_partition
from flower_edge.models import Model, make_model
from flower_edge.splitting import ArchitectureSpec
from split_app.config import Split

MODEL = "resnet"


@lru_cache(maxsize=1)
def datasets(config: Split) -> tuple[Dataset, Dataset]:
    """Training and test data, pictures of 32x32."""
    return load_dataset(config.data.name, path=config.data.path or None, size=32, seed=config.seed)


@lru_cache(maxsize=1)
def partition(config: Split, devices: int) -> Partition:
    """Which training samples each device has."""
    train, _ = datasets(config)
    return make_partition(config.data.scheme, train.labels, devices, seed=config.seed, **config.data.options())


def architecture(config: Split) -> ArchitectureSpec:
    """The model as data: what the cloud decides and devices build."""
    train, _ = datasets(config)
    return ArchitectureSpec(name=MODEL, input_shape=train.input_shape, num_classes=train.num_classes)


def model(config: Split) -> Model:
    """Before training, the same wherever it is made."""
    train, _ = datasets(config)
    return make_model(MODEL, input_shape=train.input_shape, num_classes=train.num_classes, seed=config.seed)
