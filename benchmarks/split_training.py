"""What fewer bits at the cut cost in accuracy, and save in traffic: real training, every frame through its real bytes.

A run is 60 rounds of four devices; each has its own copy of the whole model between merges, as in `Split`. Every batch
of every device crosses the cut, the same one in all runs: nobody keeps the whole model, which would hide what a codec
does. Without a codec that is federated averaging of whole models, bit for bit (`benchmarks.split_exactness`). A run's
accuracy is the mean over its last three merges.
Nothing here plans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from flower_edge.models import evaluate, make_model, set_arrays
from flower_edge.splitting.codec_pairs import codecs_named
from flower_edge.splitting.order import OptimiserSpec, WorkOrder

from .harness.figures import mean_and_error
from .split_conversation import converse
from .split_task import (
    BATCH,
    DEVICES,
    FIXED_AFTER,
    MERGE_EVERY,
    OPTIMISER,
    ROUNDS,
    SPEC,
    STEPS,
    Arrays,
    cut_after,
    federation,
    first_model,
    profile,
)

__all__ = ["CODECS", "FULL", "QUICK", "Learned", "TrainingJob", "run_training", "training_figures", "training_jobs"]

#: Bits of tensors and of gradients, and the library's names of codecs for them.
CODECS: Final[Mapping[str, str]] = {
    "float32": "none",
    "4/8": "int4/int8",
    "8/8": "int8",
    "2/8": "int2/int8",
    "4/4": "int4",
}
QUICK: Final = ("float32", "4/8")
FULL: Final = tuple(CODECS)
SEEDS: Final = tuple(range(5))
#: Merges whose accuracies a run is told by.
LAST: Final = 3


@dataclass(frozen=True)
class TrainingJob:
    """One run."""

    codecs: str
    seed: int


@dataclass(frozen=True)
class Learned:
    """What came of it: accuracy after each merge, and bits of all frames both ways."""

    accuracy: tuple[float, ...]
    bits: int

    @property
    def percent(self) -> float:
        """Of the last merges."""
        return 100.0 * float(np.mean(self.accuracy[-LAST:]))


def training_jobs(codecs: Sequence[str], seeds: Sequence[int]) -> list[TrainingJob]:
    """All runs."""
    return [TrainingJob(name, seed) for seed in seeds for name in codecs]


def run_training(job: TrainingJob) -> Learned:
    """Learn, and look at the accuracy after every merge."""
    data, whole = federation(job.seed), first_model(job.seed)
    codecs = codecs_named(CODECS[job.codecs])
    cut = cut_after(profile(), FIXED_AFTER)
    samples = np.array([len(y) for y in data.y], dtype=np.float64)
    accuracies, bits = [], 0
    for merge in range(ROUNDS // MERGE_EVERY):
        first = merge * MERGE_EVERY * STEPS
        ended: list[Arrays] = []
        for number in range(DEVICES):
            order = WorkOrder(
                round=merge + 1,
                number=number,
                architecture=SPEC,
                # Law of `Split`: rounds between two merges are one long one.
                cut=cut,
                first_step=first,
                steps=MERGE_EVERY * STEPS,
                batch_size=BATCH,
                seed=job.seed,
                optimiser=_optimiser(merge),
                up=None if codecs.up is None else dict(codecs.up),
                down=None if codecs.down is None else dict(codecs.down),
            )
            done = converse(order, data.x[number], data.y[number], whole, {})
            ended.append(done.arrays)
            bits += done.up_bits + done.down_bits
        whole = _merged(ended, samples)
        accuracies.append(_accuracy(whole, job.seed))
    return Learned(tuple(accuracies), bits)


def _optimiser(merge: int) -> OptimiserSpec:
    """Steps that shrink to nothing: with steps of one size a merged model's accuracy jumps by ten points to the end."""
    left = 1.0 - merge * MERGE_EVERY / ROUNDS
    return OPTIMISER.model_copy(update={"lr": OPTIMISER.lr * left})


def _merged(models: Sequence[Arrays], samples: Any) -> Arrays:
    share = samples / samples.sum()
    found = {}
    for name, array in models[0].items():
        mean = sum(part * model[name].astype(np.float64) for part, model in zip(share, models, strict=True))
        found[name] = np.asarray(mean).astype(array.dtype) if array.dtype.kind == "f" else np.rint(mean).astype(int)
    return found


def _accuracy(arrays: Arrays, seed: int) -> float:
    data = federation(seed)
    model = make_model(SPEC.name, input_shape=SPEC.input_shape, num_classes=SPEC.num_classes, seed=seed)
    set_arrays(model, arrays)
    return evaluate(model, data.test_x, data.test_y, batch_size=360).accuracy


def training_figures(results: Mapping[TrainingJob, Learned]) -> dict[str, Any]:
    """Points lost and traffic saved by each pair of codecs, seed by seed against float32."""
    plain = {job.seed: run for job, run in results.items() if job.codecs == "float32"}
    told: dict[str, Any] = {}
    for name in dict.fromkeys(job.codecs for job in results):
        runs = {job.seed: run for job, run in results.items() if job.codecs == name}
        gap, error = mean_and_error([plain[seed].percent - run.percent for seed, run in runs.items()])
        mean, mean_se = mean_and_error([run.percent for run in runs.values()])
        told[name] = {
            "accuracy": mean,
            "accuracy_se": mean_se,
            "at_the_end": 100.0 * float(np.mean([run.accuracy[-1] for run in runs.values()])),
            "gap_points": gap,
            "gap_points_se": error,
            "traffic_mb": float(np.mean([run.bits for run in runs.values()])) / 8e6,
            "traffic_ratio": sum(plain[seed].bits for seed in runs) / sum(run.bits for run in runs.values()),
        }
    return {
        "quantised_gap_points": told["4/8"]["gap_points"],
        "quantised_gap_points_se": told["4/8"]["gap_points_se"],
        "quantised_traffic_ratio": told["4/8"]["traffic_ratio"],
        "codecs": told,
    }
