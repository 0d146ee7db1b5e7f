"""What mixing five widths costs in accuracy, at equal epochs: HeteroFL's question on a small CNN, through the library.

All runs of a seed have the same pictures, first model and batches; they differ in which size a terminal is given.
Sizes are the terminals' own for the whole run (`fixed`) or are dealt anew in each round, four terminals to a size
(`dealt`), which is what the published figures are of. Nothing here trains.

Source: Diao, Ding, Tarokh, "HeteroFL", ICLR 2021; Flower's reproduction of it for the reference.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg

from flower_edge.runtime import LocalGrid
from flower_edge.runtime.generators import derive_seed
from flower_edge.strategies import SubModels, with_statistics

from .harness.figures import mean_and_error
from .provision_task import (
    CLASS_ROWS,
    RATES,
    TERMINALS,
    Pictures,
    Recipe,
    accuracy_of,
    deal,
    first_model,
    groups,
    models,
    terminal_app,
)

__all__ = ["HOW", "RECIPES", "ROUNDS", "WidthJob", "WidthRun", "run_width", "size_of", "width_figures", "width_jobs"]

ROUNDS: Final = 40
SPLITS: Final[tuple[Literal["iid", "two-class"], ...]] = ("iid", "two-class")
#: How the mix of the figures gets its sizes, as in the published ones; the other way is beside it in the whole form.
HOW: Final[Literal["fixed", "dealt"]] = "dealt"
#: The accuracy of a run is the mean of so many last rounds.
LAST: Final = 5
#: The same for every size. Chosen on seed 100, which is not measured; docs/benchmarks.md has what else was tried.
RECIPES: Final[Mapping[str, Recipe]] = {"iid": Recipe(), "two-class": Recipe(others=0.8)}


@dataclass(frozen=True)
class WidthJob:
    """One run.

    Attributes:
        split: of the pictures.
        sizes: classes that there are, each with as many terminals as any other.
        seed: of everything.
        how: sizes are the terminals' own, or dealt anew in each round.
        rounds: of FedAvg with all terminals.
        recipe: another than that of `RECIPES`, to try something out.
    """

    split: Literal["iid", "two-class"]
    sizes: str
    seed: int
    how: Literal["fixed", "dealt"] = "fixed"
    rounds: int = ROUNDS
    recipe: Recipe | None = None

    def __str__(self) -> str:
        return f"{self.split}, {'-'.join(self.sizes)}, {self.how}, seed {self.seed}"


@dataclass(frozen=True)
class WidthRun:
    """What a run came to.

    Attributes:
        accuracy: per cent of the test pictures, mean of the last rounds.
        accuracies: of those rounds.
        fraction: parameters that a terminal trains in the mean, over those of the whole model.
    """

    accuracy: float
    accuracies: tuple[float, ...]
    fraction: float


def size_of(job: WidthJob, place: int, round: int) -> str:
    """The size class of a terminal in a round."""
    if job.how == "dealt":
        order = np.random.default_rng(derive_seed(job.seed, "sizes", round)).permutation(TERMINALS)
        place = int(order[place])
    return job.sizes[place % len(job.sizes)]


def run_width(job: WidthJob, pictures: Pictures | None = None) -> WidthRun:
    """Train once, and test the whole model after each of the last rounds.

    Args:
        job: the run.
        pictures: others than those of the job's split and seed.

    Raises:
        DataError: MNIST's files are missing or damaged.
    """
    torch.set_num_threads(1)
    pictures, recipe = pictures or deal(job.split, job.seed), job.recipe or RECIPES[job.split]
    random.seed(derive_seed(job.seed, "sampling"))
    accuracies: list[float] = []
    with LocalGrid(terminal_app(pictures, recipe, job.seed, job.rounds), TERMINALS) as grid:

        def central(number: int, arrays: ArrayRecord) -> MetricRecord:
            if number > job.rounds - LAST:
                accuracies.append(accuracy_of(with_statistics(grid, arrays), pictures))
            return MetricRecord()

        strategy = SubModels(
            FedAvg(fraction_evaluate=0.0),
            groups(),
            class_rows=CLASS_ROWS if recipe.by_class else (),
            assign=lambda round, key, row: RATES[size_of(job, int(key), round)],
        )
        strategy.start(grid, first_model(job.seed), num_rounds=job.rounds, evaluate_fn=central)
    parameters = [models()[size].parameters for size in job.sizes]
    fraction = float(np.mean(parameters)) / models()["a"].parameters
    return WidthRun(float(np.mean(accuracies)), tuple(accuracies), fraction)


# -- figures ---------------------------------------------------------------------------------------------------------


def width_jobs(seeds: Sequence[int], quick: bool, rounds: int = ROUNDS) -> list[WidthJob]:
    """What is measured, the longest first: all at `a` and the mix of five; in the whole form smaller mixes, too."""
    kinds: list[tuple[str, Literal["fixed", "dealt"]]] = [("a", "fixed"), ("abcde", HOW)]
    if not quick:
        kinds += [("abcde", "dealt" if HOW == "fixed" else "fixed"), ("ae", HOW), ("e", "fixed")]
    return [WidthJob(split, sizes, seed, how, rounds) for sizes, how in kinds for split in SPLITS for seed in seeds]


def width_figures(runs: Mapping[WidthJob, WidthRun]) -> dict[str, Any]:
    """Points that each mix is behind all at `a`, seed by seed; of the mix of five, the figures."""
    whole = {(job.split, job.seed): run.accuracy for job, run in runs.items() if job.sizes == "a"}
    rows = []
    for split, sizes, how in dict.fromkeys((job.split, job.sizes, job.how) for job in runs):
        mine = {job.seed: run for job, run in runs.items() if (job.split, job.sizes, job.how) == (split, sizes, how)}
        gap, gap_se = mean_and_error([whole[split, seed] - run.accuracy for seed, run in mine.items()])
        accuracy, accuracy_se = mean_and_error([run.accuracy for run in mine.values()])
        row = {"split": split, "sizes": sizes, "how": how, "accuracy": accuracy, "accuracy_se": accuracy_se}
        fraction = float(np.mean([run.fraction for run in mine.values()]))
        rows.append({**row, "gap_points": gap, "gap_points_se": gap_se, "param_fraction": fraction, "seeds": len(mine)})
    found: dict[str, Any] = {"width": rows, "mean_param_fraction": 1.0}
    for row in rows:
        if row["sizes"] == "abcde" and row["how"] == HOW:
            key = "iid" if row["split"] == "iid" else "noniid"
            found[f"{key}_gap_points"], found[f"{key}_gap_points_se"] = row["gap_points"], row["gap_points_se"]
            found["mean_param_fraction"] = row["param_fraction"]
    return found
