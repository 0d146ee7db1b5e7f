"""What sharing a few per cent of the data brings to terminals that know one class each, through the real layer.

Ten terminals with 780 images of one class each of MNIST's 10,000, a perceptron 784-64-10, batches of 20, one epoch,
learning rate 0.05, 20 rounds of FedAvg. With `Shared` each terminal gives a share of its images to the cell, so that
the common set has all classes alike, and trains on its own and the common set. Nothing here is drawn twice: all runs
of a seed have the same images, first model and batches.

Source: Y. Zhao et al., "Federated Learning with Non-IID Data", 2018, for the effect; the set-up is this library's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any, Final, TypeAlias

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from flower_edge.clients.sharing import share_data, sharing_mod, training_data
from flower_edge.data import load_dataset
from flower_edge.errors import DataError
from flower_edge.models.numpy_mlp import NumpyMLP, evaluate, train
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.generators import derive_seed
from flower_edge.sharing import SetSpec, TrainingSet
from flower_edge.strategies.layered import Layered
from flower_edge.strategies.sharing.shared import Shared
from flower_edge.wire import arrays_of, record_of, server_round_of

__all__ = ["ROUNDS", "SHARES", "SharingRun", "run_sharing", "sharing_figures", "train_sharing"]

TERMINALS: Final = 10
IMAGES: Final = 780
SIZES: Final = (784, 64, 10)
BATCH: Final = 20
LEARNING_RATE: Final = 0.05
ROUNDS: Final = 20
SHARES: Final = (0.0, 0.01, 0.025, 0.05)
SPEC: Final = SetSpec((784,), classes=10)
#: Samples and classes.
Pair: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class SharingRun:
    """What one run came to.

    Attributes:
        share: of each terminal's images in the common set.
        seed: of the deal, the first model and the batches.
        accuracy: of the last model on the images of nobody.
        share_bits: sent for sharing, both ways, all rounds together.
        model_bits: of one model; a round sends it to ten terminals and back.
    """

    share: float
    seed: int
    accuracy: float
    share_bits: float
    model_bits: int


@lru_cache(maxsize=1)
def _images(path: Path) -> Pair:
    parts = load_dataset("mnist", path=path)
    x = np.concatenate([part.x.reshape(len(part), -1) for part in parts])
    return x, np.concatenate([part.y for part in parts])


def _deal(path: Path, seed: int) -> tuple[list[Pair], Pair]:
    """Images of each terminal, and those of nobody."""
    x, y = _images(path)
    order = np.random.default_rng([seed, 1]).permutation(len(y))
    shares = [order[y[order] == one][:IMAGES] for one in range(TERMINALS)]
    if short := [one for one, share in enumerate(shares) if len(share) < IMAGES]:
        raise DataError(f"fewer than {IMAGES} images of the classes {short}; this benchmark needs MNIST's 10,000")
    rest = np.setdiff1d(order, np.concatenate(shares))
    return [(x[share], y[share]) for share in shares], (x[rest], y[rest])


def run_sharing(path: str | Path, share: float, seed: int, rounds: int = ROUNDS) -> SharingRun:
    """Train with a share of each terminal's images common to all; 0 is FedAvg alone.

    Args:
        path: folder with `MNIST/raw/`, as `load_dataset` takes it.
        share: 0 to 1.
        seed: of everything.
        rounds: of FedAvg with all terminals.

    Raises:
        DataError: the files are missing, or have too few images of a class.
    """
    dealt, test = _deal(Path(path), seed)
    return train_sharing(dealt, test, share, seed, rounds)


def train_sharing(dealt: Sequence[Pair], test: Pair, share: float, seed: int, rounds: int = ROUNDS) -> SharingRun:
    """`run_sharing` on other samples: x float32 [samples, 784] and y of each terminal, and those for testing."""
    app = ClientApp(mods=[sharing_mod])

    def own(context: Context) -> TrainingSet:
        x, y = dealt[int(context.node_config["partition-id"])]
        return TrainingSet.of(x, y, classes=TERMINALS)

    share_data(app, own, "size_bytes <= 1e6", seed=seed)

    @app.train()
    def fit(message: Message, context: Context) -> Message:
        model, place = NumpyMLP(SIZES), int(context.node_config["partition-id"])
        model.load(arrays_of(message.content.array_records["arrays"]))
        data = training_data(context, own(context), "both")
        # The order of the samples is the node's and the round's, not the run's: runs differ in nothing but the sets.
        drawn = derive_seed(seed, place, server_round_of(message) or 0)
        result = train(model, data.x, data.y, epochs=1, batch_size=BATCH, lr=LEARNING_RATE, seed=drawn)
        metrics = MetricRecord({"num-examples": result.examples, "train_loss": result.loss})
        return Message(RecordDict({"arrays": record_of(model.arrays()), "metrics": metrics}), reply_to=message)

    layers = [Shared("size_bytes <= 1e6", share=share, spec=SPEC)] if share else []
    first = record_of(NumpyMLP(SIZES, seed).arrays())
    sent: dict[str, float] = {}
    with LocalGrid(app, len(dealt)) as grid:
        strategy = Layered(_Listening(sent), *layers)
        result = strategy.start(grid, first, num_rounds=rounds, train_config=ConfigRecord({}))
    model = NumpyMLP(SIZES)
    model.load(arrays_of(result.arrays))
    accuracy = evaluate(model, *test).accuracy
    return SharingRun(share, seed, accuracy, sent.get("share_bits", 0.0), 8 * first.count_bytes())


class _Listening(FedAvg):
    """FedAvg that notes what the layers above the Grid have counted when a round begins."""

    def __init__(self, sent: dict[str, float]) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.sent = sent

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any) -> Any:
        messages = list(super().configure_train(server_round, arrays, config, grid))
        told: Mapping[str, float] = grid.metrics()
        self.sent["share_bits"] = told.get("share_down_bits", 0.0) + told.get("share_up_bits", 0.0)
        return messages


def sharing_figures(
    path: str | Path, seeds: Sequence[int] = (0, 1, 2), shares: Sequence[float] = (0.0, 0.05), rounds: int = ROUNDS
) -> dict[str, float]:
    """Mean accuracies over the seeds, and how many points the largest share brings over none.

    Args:
        path: folder with `MNIST/raw/`.
        seeds: one run each per share.
        shares: with 0 among them.
        rounds: of FedAvg.

    `sharing_traffic_ratio` is what sharing sent over what the models of all rounds took.
    """
    runs = {share: [run_sharing(path, share, seed, rounds) for seed in seeds] for share in shares}
    mean = {share: fmean(run.accuracy for run in of) for share, of in runs.items()}
    most = max(shares)
    models = 2 * TERMINALS * rounds * runs[most][0].model_bits
    figures = {f"sharing_accuracy_{100 * share:g}_percent": accuracy for share, accuracy in mean.items()}
    return {
        **figures,
        "sharing_gain_points": 100 * (mean[most] - mean[0.0]),
        "sharing_gain_points_least": 100
        * min(a.accuracy - b.accuracy for a, b in zip(runs[most], runs[0.0], strict=True)),
        "sharing_traffic_ratio": fmean(run.share_bits for run in runs[most]) / models,
    }
