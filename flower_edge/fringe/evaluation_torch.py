"""What a pipeline scores on samples, and how long its machines compute. Nothing here decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import FringeError
from .metrics import Metric, metric_named
from .pipeline_torch import Pipeline

__all__ = ["evaluation", "stage_seconds"]

#: Samples that are run at once.
_BATCH = 256


def evaluation(
    x: torch.Tensor, y: npt.ArrayLike | torch.Tensor, metric: Metric | str = "accuracy"
) -> Callable[[Pipeline], float]:
    """A function of a pipeline: the metric of its outputs for x, through its wires.

    Args:
        x: inputs [samples, ...].
        y: labels of the same.
        metric: a name of `METRICS`, or one of your own.

    Raises:
        FringeError: no samples, or not as many labels; no such metric.
    """
    judge = metric_named(metric)
    labels = y.cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
    if len(x) != len(labels) or not len(x):
        raise FringeError(f"{len(x)} inputs and {len(labels)} labels; expected one of each, and one at least")

    def scored(pipeline: Pipeline) -> float:
        outputs = [pipeline.run(x[at : at + _BATCH]).cpu().numpy() for at in range(0, len(x), _BATCH)]
        return float(judge.of(np.concatenate(outputs), labels))

    return scored


def stage_seconds(
    pipeline: Pipeline,
    x: torch.Tensor,
    *,
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, ...]:
    """Seconds that each machine takes for one inference: to decode what it is sent, to compute, and to encode.

    Measured in this process, one machine after the other; the median of the repeats, after one that is not counted.

    Args:
        pipeline: compressed or not.
        x: one input or a few [batch, ...]; all are run at once, as one inference.
        repeats: 1 or more.
        clock: seconds.

    Raises:
        FringeError: fewer repeats than one.
    """
    if repeats < 1:
        raise FringeError(f"repeats = {repeats}: expected 1 or more")
    taken: list[list[float]] = [[] for _ in pipeline.parts]
    for _ in range(repeats + 1):
        data: Any = None
        for number, part in enumerate(pipeline.parts):
            begun = clock()
            arrays = [x.cpu().numpy()] if number == 0 else pipeline.wires[number - 1].decode(data)
            made = part.step(arrays)
            if number < len(pipeline.wires):
                data = pipeline.wires[number].encode(made)
            taken[number].append(clock() - begun)
    return tuple(median(seconds[1:]) for seconds in taken)
