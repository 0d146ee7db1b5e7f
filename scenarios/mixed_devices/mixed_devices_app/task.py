"""What is learned: data, partition and model of a run config. The same on the server and on every terminal."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from flower_edge.data import Dataset, Partition, load_dataset, make_partition
from flower_edge.models import Model, NumpyMLP, make_model
from flower_edge.splitting import ArchitectureSpec, build
from flower_edge.submodels.catalogue import Catalogue, mlp_catalogue
from mixed_devices_app.config import CLASS_NAMES, STREET, MixedDevices

#: The ladder, the largest first. What each class is given is decided by its speed.
RATES = (1.0, 0.5, 0.25, 0.125, 0.0625)


@lru_cache(maxsize=1)
def datasets(config: MixedDevices) -> tuple[Dataset, Dataset]:
    """Training and test data."""
    return load_dataset(config.data.name, path=config.data.path or None, seed=config.seed)


@lru_cache(maxsize=1)
def partition(config: MixedDevices, terminals: int) -> Partition:
    """Which training samples each terminal has."""
    train, _ = datasets(config)
    return make_partition(config.data.scheme, train.labels, terminals, seed=config.seed, **config.data.options())


def own_data(config: MixedDevices, terminal: int, terminals: int) -> Dataset:
    """A terminal's samples."""
    return datasets(config)[0].subset(partition(config, terminals)[terminal])


@lru_cache(maxsize=1)
def hall_data(config: MixedDevices, terminals: int) -> Dataset:
    """The samples of all terminals of the hall: the segment that the holder of the first piece loads."""
    rows = [partition(config, terminals)[terminal] for terminal in range(STREET, terminals)]
    return datasets(config)[0].subset(np.concatenate(rows))


def sizes(config: MixedDevices) -> tuple[int, ...]:
    """Units of every layer of the whole model."""
    train, _ = datasets(config)
    return (math.prod(train.input_shape), *config.model.layers, train.num_classes)


@lru_cache(maxsize=1)
def models(config: MixedDevices) -> Catalogue:
    """The model list, the largest first; a variant is named like the class of devices it is meant for."""
    return mlp_catalogue(sizes(config), dict(zip(CLASS_NAMES, RATES, strict=True)))


def model(config: MixedDevices) -> NumpyMLP:
    """The whole model before training, the same wherever it is made."""
    return NumpyMLP(sizes(config), config.seed)


def model_of(config: MixedDevices, name: str) -> Model:
    """The whole model as a class of devices makes it: `numpy-mlp`, or `mlp`, the same in torch."""
    train, _ = datasets(config)
    return make_model(
        name,
        input_shape=train.input_shape,
        num_classes=train.num_classes,
        seed=config.seed,
        hidden=config.model.layers,
    )


def architecture(config: MixedDevices) -> ArchitectureSpec:
    """The whole model as data: what the hall is told to cut."""
    train, _ = datasets(config)
    return ArchitectureSpec(
        name="mlp",
        input_shape=train.input_shape,
        num_classes=train.num_classes,
        options={"hidden": list(config.model.layers)},
    )


@lru_cache(maxsize=1)
def unit_parameters(config: MixedDevices) -> tuple[int, ...]:
    """Of each unit that the hall's model can be cut between."""
    return tuple(unit.parameters for unit in build(architecture(config)).profile().units)
