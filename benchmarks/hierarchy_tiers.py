"""Tiers that count their samples, and how often the centre is needed: HierFAVG's protocol, over the real path.

50 terminals with the images of one class each train a logistic regression; edges average after κ1 steps, the centre
after κ2 of these. `Hierarchical` with `CellTier` runs it over a `LocalGrid`. Nothing here has a clock.

    edge-iid    5 edges x 10 terminals, every edge has all ten classes
    edge-noniid 5 edges x 10 terminals, two classes per edge
    unequal     one edge with the 40 terminals of classes 0-7, four edges with 2 or 3 of those of classes 8 and 9

Source: Liu, Zhang, Song, Letaief, "Client-edge-cloud hierarchical federated learning", ICC 2020, section V.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from flower_edge.models.numpy_mlp import NumpyMLP, evaluate, train
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.generators import derive_seed
from flower_edge.store import RunFolder
from flower_edge.strategies import Hierarchical
from flower_edge.wire import arrays_of, record_of

from .harness.figures import mean_and_error, ratio_and_error
from .hierarchy_data import CLASSES, INPUTS, images

__all__ = ["Layout", "Outcome", "Setting", "edges_of", "run_setting", "tier_figures", "tier_settings"]

Layout = Literal["edge-iid", "edge-noniid", "unequal"]

PER_CLASS: Final = 5
EACH: Final = 160
BATCH: Final = 20
LR: Final = 0.01
#: The learning rate falls by this factor, every so many steps of a terminal.
DECAY: Final = 0.995
DECAY_STEPS: Final = 60
STEPS: Final = 1200
FEDAVG_STEPS: Final = 1800
#: Of each class, for testing: what is left of the rarest class is 92.
TEST_EACH: Final = 90
TARGET: Final = 0.85
#: As torchvision's examples and HierFL shift and scale MNIST.
PIXEL_MEAN: Final = np.float32(0.1307)
PIXEL_DEVIATION: Final = np.float32(0.3081)


@dataclass(frozen=True)
class Setting:
    """One training.

    Args:
        layout: which terminals belong to which edge.
        kappa1: steps of a terminal per edge round.
        kappa2: edge rounds per cloud round.
        seed: of the initial model, of who has which images, and of the batches.
        equal: merge the edges with equal weights, as FEDn and NVFlare's tiers do, instead of by their samples.
        steps: of every terminal, altogether.
    """

    layout: Layout
    kappa1: int
    kappa2: int
    seed: int
    equal: bool = False
    steps: int = STEPS

    @property
    def cloud_rounds(self) -> int:
        """How often the centre merges."""
        return self.steps // (self.kappa1 * self.kappa2)

    @property
    def name(self) -> str:
        """Layout, κ1, κ2 and the rule, short."""
        return f"{self.layout} ({self.kappa1},{self.kappa2})" + (" equal weights" if self.equal else "")


@dataclass(frozen=True)
class Outcome:
    """What a training brought, per cloud round.

    Args:
        accuracy: on the test images.
        divergence: of the edges' models from their mean, as the library reported it.
        final: the accuracy when each terminal had made 1,200 steps.
    """

    accuracy: Sequence[float]
    divergence: Sequence[float] = ()
    final: float = 0.0

    def rounds_to(self, target: float = TARGET) -> int:
        """Cloud rounds until the accuracy was first reached; one more than there were if it was not.

        >>> Outcome([0.5, 0.9]).rounds_to(0.85), Outcome([0.5, 0.6]).rounds_to(0.85)
        (2, 3)
        """
        return next((at for at, reached in enumerate(self.accuracy, 1) if reached >= target), len(self.accuracy) + 1)


def edges_of(layout: Layout) -> list[list[int]]:
    """The partition ids of each edge's terminals; partition p has images of class p // 5.

    >>> [len(edge) for edge in edges_of("unequal")], edges_of("edge-iid")[0][:3], edges_of("edge-noniid")[4][:3]
    ([40, 3, 3, 2, 2], [0, 5, 10], [40, 41, 42])
    """
    if layout == "edge-iid":
        return [list(range(edge, CLASSES * PER_CLASS, PER_CLASS)) for edge in range(PER_CLASS)]
    if layout == "edge-noniid":
        return [list(range(10 * edge, 10 * edge + 10)) for edge in range(5)]
    # Of the five terminals each of the classes 8 and 9, every small edge has one or two of each.
    eights, nines = list(range(40, 45)), list(range(45, 50))
    small = [[*eights[:2], nines[0]], [eights[2], *nines[1:3]], [eights[3], nines[3]], [eights[4], nines[4]]]
    return [list(range(40)), *small]


Samples = tuple[NDArray[Any], NDArray[np.int64]]


def deal(seed: int) -> tuple[list[Samples], Samples]:
    """Who has which of the 10,000 images: 160 for each terminal, and 900 for the test, 90 of each class."""
    data = images()
    x, y = np.concatenate([data.x, data.test_x]), np.concatenate([data.y, data.test_y])
    x = (x - PIXEL_MEAN) / PIXEL_DEVIATION
    rng = np.random.default_rng(derive_seed(seed, "who has which images"))
    piles = [rng.permutation(np.flatnonzero(y == one)) for one in range(CLASSES)]
    shares = [share for pile in piles for share in pile[: PER_CLASS * EACH].reshape(PER_CLASS, EACH)]
    test = np.concatenate([pile[PER_CLASS * EACH :][:TEST_EACH] for pile in piles])
    return [(x[share], y[share]) for share in shares], (x[test], y[test])


def terminals_app(setting: Setting, shares: Sequence[Samples]) -> ClientApp:
    """The terminals: κ1 steps of SGD on 160 images of one class, at the place in the sequence where the round is."""
    companions = {node: len(edge) for edge in edges_of(setting.layout) for node in edge}
    model = NumpyMLP([INPUTS, CLASSES])
    app = ClientApp()

    @app.train()
    def train_terminal(message: Message, context: Context) -> Message:
        node = int(context.node_config["partition-id"])
        config = message.content.config_records["config"]
        done = (int(str(config["server-round"])) - 1) * setting.kappa1
        model.load(arrays_of(message.content.array_records["arrays"]))
        train(
            model,
            *shares[node],
            steps=setting.kappa1,
            first_step=done,
            batch_size=BATCH,
            lr=LR * DECAY ** (done // DECAY_STEPS),
            seed=derive_seed(setting.seed, "batches", node),
        )
        # All terminals have as many images, so that this changes nothing inside an edge, and makes every n_e 1.
        weight = 1 / companions[node] if setting.equal else float(EACH)
        metrics = MetricRecord({"num-examples": weight})
        return Message(RecordDict({"arrays": record_of(model.arrays()), "metrics": metrics}), reply_to=message)

    return app


def run_setting(setting: Setting) -> Outcome:
    """Train once; deterministic."""
    shares, test = deal(setting.seed)
    judge = NumpyMLP([INPUTS, CLASSES])
    accuracy: list[float] = []

    def judged(number: int, arrays: ArrayRecord) -> MetricRecord:
        judge.load(arrays_of(arrays))
        found = evaluate(judge, *test).accuracy
        if number:
            accuracy.append(found)
        return MetricRecord({"accuracy": found})

    edges = edges_of(setting.layout)

    def cells(grid: Any, round: Any) -> Mapping[str, list[int]]:
        nodes = list(grid.get_node_ids())
        return {f"edge-{k}": [nodes[node] for node in edge] for k, edge in enumerate(edges)}

    strategy = Hierarchical(
        edge=lambda cell: FedAvg(fraction_evaluate=0.0), cells=cells, edge_rounds=setting.kappa2, seed=setting.seed
    )
    start = record_of(NumpyMLP([INPUTS, CLASSES], seed=setting.seed).arrays())
    with (
        tempfile.TemporaryDirectory(prefix="fe-benchmark-") as folder,
        RunFolder.create("tiers", config={}, seed=setting.seed, root=folder) as run,
        LocalGrid(terminals_app(setting, shares), nodes=CLASSES * PER_CLASS, seed=setting.seed) as grid,
    ):
        strategy.start(
            grid,
            start,
            num_rounds=setting.cloud_rounds,
            train_config=ConfigRecord({"local-steps": setting.kappa1}),
            evaluate_fn=judged,
            run=run,
        )
        told = [row.number("divergence") for row in run.rows("nodes")]
    final = accuracy[min(STEPS, setting.steps) // (setting.kappa1 * setting.kappa2) - 1]
    return Outcome(accuracy, [value for value in told if value is not None], final)


def tier_settings(*, quick: bool, seeds: Sequence[int] = (0, 1, 2)) -> list[Setting]:
    """All trainings of both comparisons.

    `quick` has only the two ends of κ1κ2 = 60, and (60,1) once: with κ2 = 1 it is FedAvg, whoever is at which edge.
    """
    pairs = [(60, 1), (6, 10)] if quick else [(60, 1), (30, 2), (15, 4), (6, 10)]
    # FedAvg gets more time: where it does not get to 85 % there would be no figure.
    kinds = [
        Setting(layout, *pair, 0, steps=FEDAVG_STEPS if pair == (60, 1) else STEPS)
        for layout in ("edge-iid", "edge-noniid")
        for pair in pairs
        if not (quick and (layout, *pair) == ("edge-noniid", 60, 1))
    ]
    kinds += [Setting("unequal", 6, 10, 0, equal=equal) for equal in (False, True)]
    return [replace(kind, seed=seed) for kind in kinds for seed in seeds]


def tier_figures(found: Mapping[Setting, Outcome]) -> dict[str, Any]:
    """What the trainings of `tier_settings` say.

    Returns:
        `weighted_minus_equal_points`, `cloud_round_ratio_iid` and `cloud_round_ratio_noniid`, each with `_se`, and
        `tiers` with one object per setting.
    """
    kinds: dict[str, list[Outcome]] = {}
    for setting, outcome in found.items():
        kinds.setdefault(setting.name, []).append(outcome)
    weighted, equal = (
        [100 * outcome.final for outcome in kinds[f"unequal (6,10){rule}"]] for rule in ("", " equal weights")
    )
    figures: dict[str, Any] = {}
    key = "weighted_minus_equal_points"
    figures[key], figures[f"{key}_se"] = mean_and_error(np.subtract(weighted, equal))
    for layout, key in (("edge-iid", "cloud_round_ratio_iid"), ("edge-noniid", "cloud_round_ratio_noniid")):
        fedavg = kinds.get(f"{layout} (60,1)", kinds["edge-iid (60,1)"])
        seldom, often = ([one.rounds_to() for one in outcomes] for outcomes in (fedavg, kinds[f"{layout} (6,10)"]))
        figures[key], figures[f"{key}_se"] = ratio_and_error(seldom, often)
    figures["tiers"] = {name: _told(outcomes) for name, outcomes in kinds.items()}
    return figures


def _told(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    divergence = [float(np.mean(outcome.divergence)) for outcome in outcomes if outcome.divergence]
    return {
        "accuracy_after_1200_steps": [outcome.final for outcome in outcomes],
        "cloud_rounds_to_85": [outcome.rounds_to() for outcome in outcomes],
        "reached_85": [max(outcome.accuracy) >= TARGET for outcome in outcomes],
        "mean_divergence": divergence,
    }
