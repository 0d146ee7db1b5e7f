"""What depth sub-models are worth beside narrow ones, shallow ones for all, and leaving small terminals out.

Twelve terminals with equal shares of MNIST's 10,000 pictures; a third can hold the first layer of a small CNN, a third
two, a third all three. Compared at equal rounds, samples and first arrays:

    whole     all terminals train the whole model with its exits: what the others cannot have
    depth     each terminal its depth, its exits learning from each other (DepthFL)
    alone     the same, with exits that learn from the targets only
    width     each terminal a narrow model of no more parameters than its depth has (HeteroFL)
    shallow   all terminals the smallest depth
    excluded  only the third that can hold the whole model trains

Functions only; whoever measures the provision of models calls them. Source: Kim et al., "DepthFL", ICLR 2023.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any, Final, Literal

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from torch import nn

from flower_edge.clients.submodel import submodel
from flower_edge.data import load_dataset, make_partition
from flower_edge.models.train_torch import evaluate, get_arrays, set_arrays, train
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.generators import derive_seed
from flower_edge.strategies import SubModels
from flower_edge.submodels import WidthGroups, prefix, width_groups
from flower_edge.submodels.depth_torch import DepthModel, depth_model
from flower_edge.submodels.depth_training_torch import train_exits
from flower_edge.submodels.groups import manifest_of, values_of
from flower_edge.submodels.sizes import Size
from flower_edge.wire import arrays_of, record_of, server_round_of

__all__ = ["ARMS", "DepthRun", "depth_figures", "run_depth"]

TERMINALS: Final = 12
DEPTHS: Final = 3
BATCH: Final = 20
LEARNING_RATE: Final = 0.02
MOMENTUM: Final = 0.9
Arm = Literal["whole", "depth", "alone", "width", "shallow", "excluded"]
ARMS: Final[tuple[Arm, ...]] = ("whole", "depth", "alone", "width", "shallow", "excluded")
#: How the pictures are dealt: all classes to each terminal, or two.
Deal = Literal["iid", "two-class"]


@dataclass(frozen=True)
class DepthRun:
    """One run.

    Attributes:
        arm: what the terminals train.
        accuracy: of the last model on pictures of nobody: the mean of its exits, where it has some.
        exits: accuracy of each exit alone.
        parameters: that a terminal which takes part trains, on average.
    """

    arm: Arm
    accuracy: float
    exits: tuple[float, ...]
    parameters: float


def plain(seed: int) -> nn.Sequential:
    """Three times convolution, ReLU and pooling, 16, 32 and 64 channels, and a linear layer."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number, (before, after) in enumerate(((1, 16), (16, 32), (32, 64)), 1):
            parts[f"conv{number}"] = nn.Conv2d(before, after, 3, padding=1)
            parts[f"relu{number}"] = nn.ReLU()
            parts[f"pool{number}"] = nn.MaxPool2d(2)
        parts["flatten"] = nn.Flatten()
        parts["linear"] = nn.Linear(64 * 3 * 3, 10)
    return nn.Sequential(parts)


def with_exits(seed: int) -> DepthModel:
    """The same with exits behind the first and the second pooling."""
    return depth_model(plain(seed), torch.zeros(2, 1, 28, 28), ["pool1", "pool2"], seed=seed)


def equal_rate(model: nn.Module, groups: WidthGroups, parameters: int) -> float:
    """The largest rate, in hundredths, at which the model has no more parameters."""
    trained = [name for name, _ in model.named_parameters()]
    fits = [n for n in range(1, 101) if values_of(manifest_of(groups, prefix(groups, n / 100)), trained) <= parameters]
    return max(fits, default=1) / 100


def run_depth(path: str | Path, arm: Arm, deal: Deal, seed: int, rounds: int) -> DepthRun:
    """One federation.

    Args:
        path: folder with `MNIST/raw/`.
        arm: one of `ARMS`.
        deal: of the pictures.
        seed: of the deal, the first arrays and the batches.
        rounds: of one local epoch each.
    """
    inside, outside = _pictures(str(path))
    x, y = inside
    options = {"k": 2} if deal == "two-class" else {}
    parts = make_partition("iid" if deal == "iid" else "classes-per-node", y, TERMINALS, seed=seed, **options)
    deep = with_exits(seed)
    counts = [sum(p.numel() for p in deep.at_depth(depth).parameters()) for depth in range(1, DEPTHS + 1)]
    thin = plain(seed)
    groups = width_groups(thin, torch.zeros(2, 1, 28, 28))
    rates = [1.0 if depth == DEPTHS else equal_rate(thin, groups, counts[depth - 1]) for depth in range(1, DEPTHS + 1)]

    def depth_of(number: int) -> int:
        return {"whole": DEPTHS, "shallow": 1}.get(arm, 1 + number % DEPTHS)

    wide = arm == "width"
    takes_part = [n for n in range(TERMINALS) if arm != "excluded" or depth_of(n) == DEPTHS]
    app = ClientApp()

    @app.train()
    def train_(message: Message, context: Context) -> Message:
        rows = parts[takes_part[int(context.node_config["partition-id"])]]
        how: dict[str, Any] = {"epochs": 1, "batch_size": BATCH, "lr": LEARNING_RATE, "momentum": MOMENTUM}
        how["seed"] = derive_seed(seed, server_round_of(message), int(rows[0]))
        model: Any = submodel(message, thin if wide else deep)
        if wide:
            result = train(model, x[rows], y[rows], **how)
        else:
            result = train_exits(model, x[rows], y[rows], distill=0.0 if arm == "alone" else 1.0, **how)
        metrics = MetricRecord({"num-examples": len(rows), "loss": result.loss})
        return Message(RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics}), reply_to=message)

    assign: dict[str, float | Size] = {
        str(place): rates[depth_of(number) - 1] if wide else Size(depth=depth_of(number))
        for place, number in enumerate(takes_part)
    }
    strategy = SubModels(
        FedAvg(fraction_evaluate=0.0),
        groups if wide else None,
        assign=assign,
        depths=None if wide else deep.depths(),
    )
    first: ArrayRecord = record_of(get_arrays(thin if wide else deep))
    random.seed(seed)
    with LocalGrid(app, len(takes_part)) as grid:
        found = arrays_of(strategy.start(grid, first, num_rounds=rounds).arrays)
    trained = [name for name, _ in thin.named_parameters()]
    held = [
        values_of(manifest_of(groups, prefix(groups, rates[depth_of(n) - 1])), trained)
        if wide
        else counts[depth_of(n) - 1]
        for n in takes_part
    ]
    whole: nn.Module = thin if wide else deep
    set_arrays(whole, found)
    if arm == "shallow":
        whole = deep.at_depth(1)
    accuracy = evaluate(whole, *outside).accuracy
    return DepthRun(arm, accuracy, _exits(whole, outside), fmean(held))


def depth_figures(
    path: str | Path,
    seeds: Sequence[int] = (0, 1),
    rounds: int = 10,
    deals: Sequence[Deal] = ("iid", "two-class"),
    arms: Sequence[Arm] = ARMS,
) -> dict[str, float]:
    """Mean accuracies over the seeds, by deal and arm, and how many points depth is over the others.

    Args:
        path: folder with `MNIST/raw/`.
        seeds: one run each per deal and arm.
        rounds: of each.
        deals: of the pictures.
        arms: with `depth` among them.
    """
    figures: dict[str, float] = {}
    for deal in deals:
        runs = {arm: [run_depth(path, arm, deal, seed, rounds) for seed in seeds] for arm in arms}
        mean = {arm: fmean(run.accuracy for run in of) for arm, of in runs.items()}
        kind = deal.replace("-", "_")
        for arm, of in runs.items():
            figures[f"depth_{kind}_{arm}_accuracy"] = mean[arm]
            figures[f"depth_{kind}_{arm}_parameters"] = fmean(run.parameters for run in of)
            for number in range(len(of[0].exits) if len(of[0].exits) > 1 else 0):
                figures[f"depth_{kind}_{arm}_exit{number + 1}_accuracy"] = fmean(run.exits[number] for run in of)
        for arm in arms:
            if arm != "depth":
                figures[f"depth_{kind}_over_{arm}_points"] = 100.0 * (mean["depth"] - mean[arm])
    return figures


def _exits(model: nn.Module, test: tuple[NDArray[Any], NDArray[np.int64]]) -> tuple[float, ...]:
    if not isinstance(model, DepthModel):
        return (evaluate(model, *test).accuracy,)
    found = []
    for depth in range(1, model.depth + 1):
        one = model.at_depth(depth)
        one.predict = "last"
        found.append(evaluate(one, *test).accuracy)
    return tuple(found)


@lru_cache(maxsize=1)
def _pictures(
    path: str,
) -> tuple[tuple[NDArray[Any], NDArray[np.int64]], tuple[NDArray[Any], NDArray[np.int64]]]:
    inside, outside = load_dataset("mnist", path=path)
    return (inside.x, inside.y), (outside.x, outside.y)
