"""How soon the model is good where devices are unequal: a size for each class of devices, against one size for all.

Five classes of devices, each with half the speed of the one before, and the pictures, model and recipe of
`provision_task`, IID. Virtual time on a `VirtualClock`: FLOPs as the model list counts them, over the device's FLOP/s,
and what travels over the link. Measured is the time at which the test accuracy first is 95 %: of the whole model where
sizes differ, of the size itself where all have it. Testing costs no virtual time. Nothing here trains.
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

from flower_edge.rounds import Round
from flower_edge.runtime import LocalGrid, VirtualClock
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.generators import derive_seed
from flower_edge.strategies import Layer, Layered, SubModels, with_statistics
from flower_edge.strategies.provision.by_load import ByLoad
from flower_edge.strategies.provision.choosing import Terminal
from flower_edge.submodels.choices import prefix
from flower_edge.submodels.groups import index_of
from flower_edge.submodels.step_times import StepTimes
from flower_edge.updates.places import brackets
from flower_edge.wire import arrays_of, record_of

from .harness.figures import mean_and_error, ratio_and_error
from .provision_task import (
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

__all__ = ["LINK", "SPEEDS", "TARGET", "TimeJob", "TimeRun", "assigned_sizes", "run_time", "time_figures", "time_jobs"]

#: Of each class of devices, over that of the first, which has `FLOPS_PER_S`.
SPEEDS: Final = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)
FLOPS_PER_S: Final = 1e10
LINK: Final = Link(up_bps=10e6, down_bps=50e6, latency_s=0.02)
TARGET: Final = 95.0
MOST_ROUNDS: Final = 40
#: Of each terminal.
_PICTURES: Final = 400
RECIPE: Final = Recipe(falls=False)


@dataclass(frozen=True)
class TimeJob:
    """One run: the size of each class of devices, the quickest first."""

    sizes: str
    seed: int
    most_rounds: int = MOST_ROUNDS
    target: float = TARGET
    recipe: Recipe = RECIPE

    def __str__(self) -> str:
        return f"{'-'.join(self.sizes)}, seed {self.seed}"


@dataclass(frozen=True)
class TimeRun:
    """What a run came to.

    Attributes:
        time_s: virtual, at which the target was reached, or the run ended.
        reached: whether it was.
        rounds: until then.
        accuracies: per cent, before the first round and after each.
    """

    time_s: float
    reached: bool
    rounds: int
    accuracies: tuple[float, ...]


def assigned_sizes(deadline: Literal["fastest", "median"] = "fastest") -> str:
    """What `ByLoad` gives each class of devices: none takes longer than the quickest, or the middle one, for `a`.

    Pictures are alike everywhere, and for that case the library's words are `fastest`; its default is `median`.

    >>> assigned_sizes(), assigned_sizes("median")
    ('abbcc', 'aaabb')
    """
    listed = models()
    times = StepTimes(batch=RECIPE.batch)
    for place, speed in enumerate(SPEEDS):
        for one in listed:
            times = times.noted(str(place), one.name, one.train_flops * RECIPE.batch / (FLOPS_PER_S * speed))
    link = Terminal(up_bps=LINK.up_bps, down_bps=LINK.down_bps)
    terminals = {str(place): link for place in range(len(SPEEDS))}
    given = ByLoad(deadline, steps=_PICTURES // RECIPE.batch).decide(listed, times, terminals)
    return "".join(given[str(place)].variant for place in range(len(SPEEDS)))


class _Watch(Layer[None]):
    """Ends a run at its target."""

    def __init__(self, target: float) -> None:
        self.target = target
        self.accuracies: list[float] = []
        self.time_s: list[float] = []

    def stop(self, state: None, round: Round) -> str | None:
        return "target reached" if self.accuracies[-1] >= self.target else None


def run_time(job: TimeJob, pictures: Pictures | None = None) -> TimeRun:
    """Train until the target, or for `most_rounds`.

    Args:
        job: the run.
        pictures: others than those of the job's seed, IID.

    Raises:
        DataError: MNIST's files are missing or damaged.
    """
    torch.set_num_threads(1)
    pictures, watch, channels = pictures or deal("iid", job.seed), _Watch(job.target), groups()
    random.seed(derive_seed(job.seed, "sampling"))
    rates = [RATES[size] for size in job.sizes]
    # One size for all is a model by itself; where sizes differ, somebody has all of it.
    index = index_of(channels, prefix(channels, max(rates)))
    devices = [Device(flops_per_s=FLOPS_PER_S * SPEEDS[place % len(SPEEDS)]) for place in range(TERMINALS)]
    with LocalGrid(terminal_app(pictures, job.recipe, job.seed, job.most_rounds), TERMINALS) as local:
        clock = VirtualClock(local, devices, [LINK] * TERMINALS, seed=job.seed)

        def central(number: int, arrays: ArrayRecord) -> MetricRecord:
            given = arrays_of(arrays)
            own = record_of({name: array[brackets(array.shape, index[name])] for name, array in given.items()})
            watch.accuracies.append(accuracy_of(with_statistics(local, own), pictures))
            watch.time_s.append(clock.now_s)
            return MetricRecord({"accuracy": watch.accuracies[-1]})

        strategy = SubModels(
            FedAvg(fraction_evaluate=0.0), channels, assign={str(n): rates[n % len(rates)] for n in range(TERMINALS)}
        )
        Layered(strategy, watch).start(clock, first_model(job.seed), num_rounds=job.most_rounds, evaluate_fn=central)
    reached = watch.accuracies[-1] >= job.target
    return TimeRun(watch.time_s[-1], reached, len(watch.accuracies) - 1, tuple(watch.accuracies))


# -- figures ---------------------------------------------------------------------------------------------------------


def time_jobs(seeds: Sequence[int], quick: bool) -> list[TimeJob]:
    """Sizes by class and one size for all, the longest first."""
    singles = [size * len(SPEEDS) for size in RATES]
    return [
        TimeJob(sizes, seed) for sizes in (*singles, assigned_sizes(), *([] if quick else ["abcde"])) for seed in seeds
    ]


def time_figures(runs: Mapping[TimeJob, TimeRun]) -> dict[str, Any]:
    """Ratios of mean times over the seeds; the best single size is the one that reaches the target soonest in all."""
    rows: dict[str, dict[str, Any]] = {}
    times: dict[str, list[float]] = {}
    for sizes in dict.fromkeys(job.sizes for job in runs):
        mine = [run for job, run in runs.items() if job.sizes == sizes]
        times[sizes] = [run.time_s for run in mine]
        mean, error = mean_and_error(times[sizes])
        rows[sizes] = {
            "time_s": mean,
            "time_s_se": error,
            "rounds": float(np.mean([run.rounds for run in mine])),
            "round_s": sum(times[sizes]) / max(1, sum(run.rounds for run in mine)),
            "not_reached": sum(not run.reached for run in mine),
            "last_accuracy": float(np.mean([run.accuracies[-1] for run in mine])),
        }
    assigned = assigned_sizes()
    found: dict[str, Any] = {"time": {"assigned": assigned, "sizes": rows}}
    singles = [sizes for sizes in rows if len(set(sizes)) == 1 and not rows[sizes]["not_reached"]]
    if assigned not in rows or rows[assigned]["not_reached"] or not singles:
        return found
    best = min(singles, key=lambda sizes: float(rows[sizes]["time_s"]))
    found["time"]["best_single"] = best
    for key, other in (("assigned_time_ratio", "a" * len(SPEEDS)), ("assigned_over_best_single_ratio", best)):
        if other in singles:
            found[key], found[f"{key}_se"] = ratio_and_error(times[assigned], times[other])
    return found
