"""What sub-models are measured on: MNIST's 10,000 pictures, a CNN of 16, 32 and 64 channels, twenty terminals.

The CNN is HeteroFL's, narrower: three times convolution, BatchNorm, ReLU and pooling, then a linear layer over what is
left of the picture, 3 by 3 in each channel; theirs takes the mean over it first. 8,000 pictures are dealt to the
terminals, 2,000 are nobody's. The terminals' program is here, too: the loss, its factors and the steps. Nothing here
gives sizes or merges.

Sources: Diao, Ding, Tarokh, "HeteroFL", ICLR 2021, section 4 and the authors' code; Li, Zhan, "FedRS", KDD 2021.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from flower_edge.clients.submodel import statistics_reply, submodel, with_classes
from flower_edge.data.partition import classes_per_node, iid
from flower_edge.models.classes import class_factors
from flower_edge.models.registry import evaluate, get_arrays
from flower_edge.runtime.generators import derive_seed
from flower_edge.submodels.catalogue import Catalogue, Variant
from flower_edge.submodels.catalogue_torch import catalogue
from flower_edge.submodels.channels_torch import width_groups
from flower_edge.submodels.groups import WidthGroups
from flower_edge.submodels.narrowed import narrowed
from flower_edge.wire import arrays_of, record_of, server_round_of

from .hierarchy_data import images

__all__ = [
    "CLASS_ROWS",
    "RATES",
    "TERMINALS",
    "TEST",
    "Pictures",
    "Recipe",
    "accuracy_of",
    "cnn",
    "deal",
    "first_model",
    "groups",
    "models",
    "terminal_app",
]

TERMINALS: Final = 20
TEST: Final = 2_000
CLASSES: Final = 10
#: Pictures of its own on which each terminal takes BatchNorm's statistics.
STATISTICS: Final = 100
CHANNELS: Final = (16, 32, 64)
#: Arrays with a row per class.
CLASS_ROWS: Final = ("linear.weight", "linear.bias")
#: Share of the channels of each size class.
RATES: Final[Mapping[str, float]] = {"a": 1.0, "b": 0.5, "c": 0.25, "d": 0.125, "e": 0.0625}


@dataclass(frozen=True)
class Recipe:
    """How every terminal trains, whatever its size.

    Attributes:
        epochs: over its own pictures, in each round.
        batch: pictures a step.
        lr: of the first round; it falls to 0 by a cosine over `rounds`, or stays where `falls` is false.
        momentum: of SGD, which starts at rest in each round.
        others: what the scores of classes that the terminal does not have are multiplied by in its loss: 0 is
            HeteroFL's mask, 0.5 FedRS, 1 the plain cross entropy.
        by_class: terminals tell their classes, and rows of the last layer are merged over those that have theirs.
    """

    epochs: int = 1
    batch: int = 20
    lr: float = 0.05
    momentum: float = 0.9
    falls: bool = True
    others: float = 1.0
    by_class: bool = False

    def rate(self, round: int, rounds: int) -> float:
        """The step size of a round, counted from 1.

        >>> Recipe(lr=0.1).rate(1, 40), Recipe(lr=0.1, falls=False).rate(9, 40)
        (0.1, 0.1)
        """
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * (round - 1) / rounds)) if self.falls else self.lr


@dataclass(frozen=True, eq=False)
class Pictures:
    """x float32 [samples, 1, 28, 28] and y int64 [samples] of each terminal, and those of nobody, for testing."""

    terminals: tuple[tuple[NDArray[Any], NDArray[np.int64]], ...]
    test: tuple[NDArray[Any], NDArray[np.int64]]


@lru_cache(maxsize=2)
def deal(split: str, seed: int) -> Pictures:
    """All that a run sees.

    Args:
        split: `iid`, or `two-class` for two classes a terminal.
        seed: of the deal and of which pictures are for testing.

    Raises:
        DataError: the files are missing or damaged.
    """
    given = images()
    x = np.concatenate([given.x, given.test_x]).reshape(-1, 1, 28, 28)
    y = np.concatenate([given.y, given.test_y])
    order = np.random.default_rng([seed, 1]).permutation(len(y))
    test, rest = order[:TEST], order[TEST:]
    parts = (
        iid(y[rest], TERMINALS, seed=seed) if split == "iid" else classes_per_node(y[rest], TERMINALS, k=2, seed=seed)
    )
    return Pictures(tuple((x[rest[part]], y[rest[part]]) for part in parts), (x[test], y[test]))


# -- the model -------------------------------------------------------------------------------------------------------


def cnn(seed: int = 0) -> nn.Sequential:
    """The whole model."""
    members: OrderedDict[str, nn.Module] = OrderedDict()
    before = 1
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for number, channels in enumerate(CHANNELS, 1):
            members[f"conv{number}"] = nn.Conv2d(before, channels, 3, padding=1)
            members[f"norm{number}"] = nn.BatchNorm2d(channels)
            members[f"relu{number}"] = nn.ReLU()
            members[f"pool{number}"] = nn.MaxPool2d(2)
            before = channels
        members |= {"flatten": nn.Flatten(), "linear": nn.Linear(9 * before, CLASSES)}
        return nn.Sequential(members)


def groups() -> WidthGroups:
    """Its channels."""
    return width_groups(cnn(), torch.zeros(2, 1, 28, 28))


@lru_cache(maxsize=1)
def models() -> Catalogue:
    """The model list: what each size class costs."""
    return catalogue(cnn(), groups(), RATES, torch.zeros(2, 1, 28, 28))


def first_model(seed: int) -> ArrayRecord:
    """A new model."""
    return record_of(get_arrays(cnn(seed)))


def accuracy_of(arrays: ArrayRecord, pictures: Pictures) -> float:
    """Per cent of the test pictures that the model gets right, of whatever width it is."""
    model = narrowed(cnn(), arrays_of(arrays)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return 100.0 * evaluate(model, *pictures.test, batch_size=250).accuracy


# -- the terminals ---------------------------------------------------------------------------------------------------


def terminal_app(pictures: Pictures, recipe: Recipe, seed: int, rounds: int) -> ClientApp:
    """What every terminal runs: the size it is sent, its own pictures, and an answer to `query.statistics`."""
    app, whole = ClientApp(), cnn()

    @app.train()
    def fit(message: Message, context: Context) -> Message:
        place, number = int(context.node_config["partition-id"]), server_round_of(message) or 1
        x, y = pictures.terminals[place]
        model = submodel(message, whole)
        # The order of the pictures is the terminal's and the round's, not the run's: runs differ in sizes only.
        order = np.random.default_rng(derive_seed(seed, place, number))
        loss = _train(model, x, y, recipe, recipe.rate(number, rounds), order)
        # The clock of `provision_time` reads it.
        flops = recipe.epochs * len(y) * _variant(model).train_flops
        metrics = MetricRecord({"num-examples": len(y), "train_loss": loss, "flops": flops})
        content = RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics})
        return Message(with_classes(content, y) if recipe.by_class else content, reply_to=message)

    @app.query("statistics")
    def statistics(message: Message, context: Context) -> Message:
        x, _ = pictures.terminals[int(context.node_config["partition-id"])]
        return statistics_reply(message, whole, x[:STATISTICS], batch_size=STATISTICS)

    return app


def _variant(model: nn.Sequential) -> Variant:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return next(variant for variant in models() if variant.parameters == parameters)


def _train(
    model: nn.Sequential, x: NDArray[Any], y: NDArray[np.int64], recipe: Recipe, lr: float, order: np.random.Generator
) -> float:
    """Mean loss; the model is trained in place."""
    # The order of the numbers in memory that convolutions are fastest with; no number is another.
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs, targets = torch.from_numpy(x).contiguous(memory_format=torch.channels_last), torch.from_numpy(y)
    factors = torch.from_numpy(class_factors(np.unique(y), CLASSES, recipe.others))
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=recipe.momentum, fused=True)
    losses: list[float] = []
    model.train()
    for _ in range(recipe.epochs):
        places = torch.from_numpy(order.permutation(len(y)))
        for begin in range(0, len(y), recipe.batch):
            batch = places[begin : begin + recipe.batch]
            optimiser.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(model(inputs[batch]) * factors, targets[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
    return float(np.mean(losses))
