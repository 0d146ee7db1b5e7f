"""Fewer bits and fewer channels, step by step: what the `Controller` brings both connections to at one point.

Of classification accuracy, on validation: the floor. The fringe is two layers deep, so the last block before and the
first behind each cut may learn, without labels; all else is frozen. What is reported of the test part was chosen by
nobody. Every iteration is watched byte for byte, see `fringe_proof`. Nothing here sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from flower_edge.data.clutter import ClutterParts
from flower_edge.fringe import Controller, Goals, Iteration, Pipeline, Recipe, evaluation, fringe
from flower_edge.fringe.policy import LargestFirst

from .fringe_base import base_model, on_machines
from .fringe_proof import Watch, pipeline_bytes
from .fringe_task import LINKS, parts
from .harness.printing import progress

__all__ = ["DEPTH", "GOALS", "HEALING", "SAMPLES", "PruneJob", "parameters", "pruned", "run_prune"]

#: 98 % of the bytes, and 16.5 ms of the 80.6 on the links; one point of validation.
GOALS: Final = Goals(drop=0.01, bandwidth="98%", latency_s="16.5 ms")
#: Layers of the fringe at each side: the two convolutions of a block.
DEPTH: Final = 2
#: Pictures of the training part that healing sees, without labels.
SAMPLES: Final = 4_000
#: Bits that numbers may have: two cost more than as many bytes in channels do.
BITS: Final = (16, 8, 4)
#: Epochs at one connection; where they do not hold the floor, of all fringes together, with pictures that are moved.
HEALING: Final = Recipe(
    epochs=4,
    held_out=0.05,
    bfloat16=True,
    together=Recipe(epochs=8, lr=2e-3, held_out=0.05, features=10.0, shift=3, bfloat16=True),
)


@dataclass(frozen=True)
class PruneJob:
    """One run.

    Attributes:
        seed: of healing.
        base_seed: of pictures and base model.
        folder: of kept models, see `fringe_base.cache_folder`.
        most: iterations; None: as many as it takes.
    """

    seed: int = 0
    base_seed: int = 0
    folder: str | None = None
    most: int | None = None

    def __str__(self) -> str:
        return f"pruning, seed {self.seed}"


def run_prune(job: PruneJob) -> dict[str, Any]:
    """The figures of one run, as plain values."""
    torch.set_num_threads(1)
    base = base_model(job.base_seed, job.folder)
    whole, data = on_machines(base.model), parts(job.base_seed)
    found, _ = pruned(
        whole, data, GOALS, seed=job.seed, most=job.most, told=lambda line: progress(f"{job}: {line}")
    )  # fmt: skip
    return {"seed": job.seed, "base_seed": job.base_seed, **found}


def pruned(
    whole: Pipeline,
    data: ClutterParts,
    goals: Goals,
    *,
    seed: int = 0,
    healing: Recipe = HEALING,
    samples: int = SAMPLES,
    most: int | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, Any], Pipeline]:
    """Compress until the goals are met, the floor is reached or there were enough iterations.

    Args:
        whole: before any compression.
        data: whose training part is learnt from, whose validation part decides, whose test part is reported.
        goals: with the floor.
        seed: of healing.
        healing: recipe.
        samples: of the training part.
        most: iterations; None: as many as it takes.
        told: what came of each iteration.

    Returns:
        Plain values, and the pipeline that it ended with.
    """
    begun_s, layers = time.perf_counter(), fringe(whole, DEPTH)
    validation = evaluation(torch.from_numpy(data.validation.x), data.validation.y)
    test = evaluation(torch.from_numpy(data.test.x), data.test.y)

    def iterated(one: Iteration) -> None:
        kept[controller.version.number] = watch.iteration(controller.pipeline, one.accepted)
        what = "accepted" if one.accepted else "rolled back"
        told(
            f"{one.number}: {one.method} to {one.amount} at {one.connection}: {what}, {one.why}, {one.seconds_s:.0f} s"
        )

    controller = Controller(
        whole, layers, goals, validation, torch.from_numpy(data.train.x[:samples]), LINKS,
        methods=("quantisation", "pruning"), healing=seeded(healing, seed), policy=LargestFirst(bits_first=True),
        bits=BITS, on_iteration=iterated,
    )  # fmt: skip
    watch = Watch(controller.pipeline, layers.frozen(whole))
    kept = {0: pipeline_bytes(controller.pipeline)}
    status = controller.run(most)
    took_s, last = time.perf_counter() - begun_s, controller.version
    made, saved = controller.pipeline, controller.saving().total
    before, after = test(whole), test(made)
    # There and back again: every version of the run is what it was.
    for number in (*sorted(kept), last.number):
        controller.roll_back(number)
        watch.gone_back(controller.pipeline, kept[number])
    return {
        "status": status,
        "sent_bytes": list(last.sizes_bytes),
        "channels": [wire.specs[0].shape[0] for wire in made.wires],
        "bits": [wire.forms[0].bits for wire in made.wires],
        "bandwidth_reduction": saved.bandwidth_reduction,
        "latency_reduction": saved.latency_reduction,
        "validation_percent": [100 * controller.versions[0].score, 100 * last.score],
        "test_percent": [100 * before, 100 * after],
        "parameters": [parameters(whole), parameters(made)],
        "iterations": len(controller.iterations),
        "rolled_back": sum(not one.accepted for one in controller.iterations),
        "checked": watch.checked,
        "rollbacks_checked": watch.rolled_back,
        "frozen_equal": watch.frozen_equal and len({one.frozen_digest for one in controller.iterations}) <= 1,
        "rollback_equal": watch.rollback_equal,
        "seconds_s": took_s,
        "steps": [_said(one) for one in controller.iterations],
    }, made


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with another seed, also of what it tries together."""
    together = None if recipe.together is None else replace(recipe.together, seed=seed)
    return replace(recipe, seed=seed, together=together)


def parameters(pipeline: Pipeline) -> int:
    """Of all parts, in numbers."""
    return sum(one.numel() for part in pipeline.parts for one in part.module.parameters())


def _said(one: Iteration) -> str:
    what = "accepted" if one.accepted else "rolled back"
    return f"{one.method} to {one.amount} at connection {one.connection} {what}"
