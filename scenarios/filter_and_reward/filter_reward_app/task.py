"""What is learned: data, partition and model of a run config. The same on the server and on every terminal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from filter_reward_app.config import FilterAndReward
from flower_edge.data import Dataset, Partition, load_dataset, make_partition
from flower_edge.models import Model, make_model
from flower_edge.runtime.generators import derive_seed

MODEL = "numpy-mlp"


@dataclass(frozen=True, eq=False)
class Data:
    """Samples by who has them.

    Attributes:
        train: of all terminals.
        edges: each edge's held-out set.
        centre: the centre's held-out set.
        test: nobody's; the accuracy that is shown.
    """

    train: Dataset
    edges: tuple[Dataset, ...]
    centre: Dataset
    test: Dataset


@lru_cache(maxsize=1)
def data(config: FilterAndReward) -> Data:
    """All samples; those of faulty edges are labelled wrong."""
    whole, test = load_dataset(config.data.name, path=config.data.path or None, seed=config.seed)
    order = np.random.default_rng(derive_seed(config.seed, "held-out")).permutation(len(whole.y)).astype(np.int64)
    ends = [config.data.held_out_edge * (edge + 1) for edge in range(config.edges)]
    *edges, centre, train = np.split(order, [*ends, ends[-1] + config.data.held_out_centre])
    return Data(
        whole.subset(np.sort(train)),
        tuple(
            too_high(whole.subset(part)) if edge in config.faults.of_edges else whole.subset(part)
            for edge, part in enumerate(edges)
        ),
        whole.subset(centre),
        test,
    )


@lru_cache(maxsize=1)
def partition(config: FilterAndReward, terminals: int) -> Partition:
    """Which training samples each terminal has."""
    train = data(config).train
    return make_partition(config.data.scheme, train.labels, terminals, seed=config.seed, **config.data.options())


def edge_of(config: FilterAndReward, terminal: int, terminals: int) -> int:
    """The edge of a terminal: blocks of equal size, as `flower_edge.strategies.blocks` makes them."""
    return next(
        edge for edge, part in enumerate(np.array_split(np.arange(terminals), config.edges)) if terminal in part
    )


def wrong(config: FilterAndReward, terminal: int, terminals: int) -> NDArray[np.bool_]:
    """Which of an honest terminal's samples are labelled wrong, [samples]."""
    size = len(partition(config, terminals)[terminal])
    rng = np.random.default_rng(derive_seed(config.seed, "wrong", terminal))
    share = rng.uniform(0.0, config.data.wrong_most)
    chosen = np.zeros(size, bool)
    chosen[rng.permutation(size)[: round(share * size)]] = True
    return chosen


def own_data(config: FilterAndReward, terminal: int, terminals: int) -> Dataset:
    """A terminal's samples as its owner labelled them, before any fault."""
    own = data(config).train.subset(partition(config, terminals)[terminal])
    rng = np.random.default_rng(derive_seed(config.seed, "labels", terminal))
    other = (own.y + rng.integers(1, own.num_classes, len(own.y))) % own.num_classes
    return replace(own, y=np.where(wrong(config, terminal, terminals), other, own.y))


def too_high(own: Dataset) -> Dataset:
    """Every label one too high: the tool of a faulty edge."""
    return replace(own, y=(own.y + 1) % own.num_classes)


def flipped(own: Dataset) -> Dataset:
    """Every label the last class minus the right one: a terminal that flips labels."""
    return replace(own, y=own.num_classes - 1 - own.y)


def useful(config: FilterAndReward, terminal: int, terminals: int, number: int) -> int:
    """Rightly labelled examples behind what a terminal sends in round `number` of the run, counted once per round.

    Nothing where the model it sends is not the one they made, is the one it has sent before, or cannot be merged at
    its true weight. The scenario makes the faults, so it knows this; nobody in the run does.
    """
    if edge_of(config, terminal, terminals) in config.faults.of_edges:
        return 0
    fault = config.faults.of_terminals.get(terminal)
    if fault is not None and not (fault == "stale" and number == 1):
        return 0
    return int((~wrong(config, terminal, terminals)).sum())


def model(config: FilterAndReward) -> Model:
    """The model before training, the same wherever it is made."""
    train = data(config).train
    return make_model(MODEL, input_shape=train.input_shape, num_classes=train.num_classes, seed=config.seed)
