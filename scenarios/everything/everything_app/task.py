"""What is learned: data, partition and model of a run config. The same on the server and on every terminal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from everything_app.config import Everything
from flower_edge.data import Dataset, Partition, load_dataset, make_partition
from flower_edge.models import Model, make_model
from flower_edge.runtime.generators import derive_seed

#: Held-out samples by which edges are judged and paid; no terminal has them, nor are they what is shown.
HELD_OUT = 160


@dataclass(frozen=True, eq=False)
class Data:
    """Samples by who has them: the terminals, the centre to judge by, and nobody."""

    train: Dataset
    held_out: Dataset
    test: Dataset


@lru_cache(maxsize=1)
def data(config: Everything) -> Data:
    """All samples."""
    whole, test = load_dataset(config.data.name, path=config.data.path or None, seed=config.seed)
    order = np.random.default_rng(derive_seed(config.seed, "held-out")).permutation(len(whole.y)).astype(np.int64)
    return Data(whole.subset(np.sort(order[HELD_OUT:])), whole.subset(order[:HELD_OUT]), test)


@lru_cache(maxsize=1)
def partition(config: Everything, terminals: int) -> Partition:
    """Which training samples each terminal has."""
    labels = data(config).train.labels
    return make_partition(config.data.scheme, labels, terminals, seed=config.seed, **config.data.options())


def model(config: Everything) -> Model:
    """The model before training, the same wherever it is made."""
    train = data(config).train
    return make_model("numpy-mlp", input_shape=train.input_shape, num_classes=train.num_classes, seed=config.seed)
