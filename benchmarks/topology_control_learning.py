"""What controllers bring in learning: virtual time until the mean accuracy of the devices is 90 %, against EQUAL.

Real ClientApps with the gossip mod under the `Gossip` strategy, on the clock of the modelled world; a packet weighs
what LeNet weighs, whatever is trained. Two tasks: digits (8 x 8, a small MLP) in every set-up, and [1] ¶49's own, LeNet
on MNIST's 10,000 test images. All controllers meet the same data, first models, batches and worlds.

EQUAL's weights are 1 / N in every round, whatever the radio: what it learns does not depend on the set-up, only how
long its rounds take does. So it is trained once per seed, and the same rounds are timed in each set-up. Everybody else
is trained with the controls it chose there.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from flower_edge.cli.gossip_learning import TASKS, learn, seconds_to
from flower_edge.control.baselines import Equal
from flower_edge.control.controller import Controller
from flower_edge.control.simulate import simulate
from flower_edge.errors import ConfigError
from flower_edge.topology.set_ups import SET_UPS, set_up

from .harness.figures import mean_and_error, ratio_and_error
from .topology_control_candidates import CANDIDATES

__all__ = [
    "ACCURACY",
    "COMPARED",
    "LENET_CONTROLLERS",
    "QUICK_ELSEWHERE",
    "QUICK_SEEDS",
    "LearningJob",
    "Lesson",
    "digits_figures",
    "equal_jobs",
    "lenet_figures",
    "lenet_jobs",
    "other_jobs",
    "run_lesson",
]

ACCURACY: Final = 0.9
WORST: Final = 0.8
QUICK_SEEDS: Final = tuple(range(4))
SEEDS: Final = tuple(range(8))
#: In every set-up; in the short form with the first seeds only where no figure of its own is told.
EVERYWHERE: Final = "auto"
QUICK_ELSEWHERE: Final = 2
#: Where the full form compares more controllers.
COMPARED_IN: Final = ("nlos", "macro")
COMPARED: Final = (
    "OGD row",
    "DCENT",
    "DCENT pruned",
    "DCENT+",
    "all links, min-max",
    "sparse 4",
    "time optimal",
    "one peer, exponential",
    "one peer, base 2",
    "MATCHA",
)
LENET_SEEDS: Final = tuple(range(3))
LENET_ROUNDS: Final = 150
LENET_CONTROLLERS: Final = ("NoComm", "EQUAL", "DCENT", "DCENT pruned", "one peer, base 2", "time optimal", EVERYWHERE)
_FIRST_ROUNDS: Final = 150
#: The figures without a barrier: packets may be so many rounds old, the fewest there are.
STALENESS: Final = 1
TOLERANT: Final = f"{EVERYWHERE}, stale {STALENESS}"


@dataclass(frozen=True)
class LearningJob:
    """One controller that learns in one world.

    Attributes:
        name: of `CANDIDATES`.
        set_up, seed: the world; the seed is that of data, first model and batches, too.
        task: of `gossip_learning.TASKS`.
        rounds: at first; twice as many if 90 % was not reached.
        longer: False leaves it at those rounds.
        path: where MNIST lies.
        staleness: rounds by which a packet may be older than with a barrier.
    """

    name: str
    set_up: str
    seed: int
    task: str = "digits"
    rounds: int = _FIRST_ROUNDS
    longer: bool = True
    path: str | None = None
    staleness: int = 0

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.name}, stale {self.staleness}" if self.staleness else self.name

    def controller(self) -> Controller:
        """A new one."""
        return CANDIDATES[self.name]()


@dataclass(frozen=True)
class Lesson:
    """What came of it.

    Attributes:
        rounds, time_s: until the mean accuracy was 90 %; infinite if it never was.
        worst_rounds, worst_s: until the worst device's was 80 %.
        rounds_run: how many there were.
        final, final_worst: accuracies after them, mean and of the worst device.
        round_s: mean true time of the rounds.
        equal_s: what EQUAL needs for `rounds` rounds in each set-up; of EQUAL only.
        equal_worst_s: the same for `worst_rounds`.
    """

    rounds: float
    time_s: float
    worst_rounds: float
    worst_s: float
    rounds_run: int
    final: float
    final_worst: float
    round_s: float
    equal_s: Mapping[str, float]
    equal_worst_s: Mapping[str, float]


def run_lesson(job: LearningJob) -> Lesson:
    """Train under a controller until it is good enough, or for as long as it may."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    world = set_up(job.set_up, job.seed)
    task = TASKS[job.task]
    # The same arguments give the same rounds: the longer run begins with the shorter one.
    for rounds in (job.rounds, 2 * job.rounds) if job.longer else (job.rounds,):
        learned = learn(
            job.controller(), world, rounds, seed=job.seed, task=task, path=job.path, staleness=job.staleness
        )
        if np.isfinite(seconds_to(learned, ACCURACY)[0]):
            break
    number, time_s = (_never(x) for x in seconds_to(learned, ACCURACY))
    worst_number, worst_s = (_never(x) for x in seconds_to(learned, WORST, worst=True))
    everywhere = SET_UPS if job.name == "EQUAL" else ()
    return Lesson(
        rounds=number,
        time_s=time_s,
        worst_rounds=worst_number,
        worst_s=worst_s,
        rounds_run=rounds,
        final=float(learned.mean[-1]),
        final_worst=float(learned.worst[-1]),
        round_s=float(learned.virtual_s[-1] / learned.rounds[-1]),
        equal_s={where: _equal_s(where, job.seed, number) for where in everywhere},
        equal_worst_s={where: _equal_s(where, job.seed, worst_number) for where in everywhere},
    )


def _never(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _equal_s(where: str, seed: int, rounds: float) -> float:
    """True time of EQUAL's first rounds in a set-up."""
    if not math.isfinite(rounds):
        return math.inf
    world = set_up(where, seed)
    trace = simulate(Equal(), world, int(rounds))
    if not (trace.links == world.topology.links).all():
        raise ConfigError(f"{where}, seed {seed}: not all links carry data; EQUAL has to be trained there by itself")
    return float(trace.true_s.sum())


# -- digits ----------------------------------------------------------------------------------------------------------


def equal_jobs(seeds: Sequence[int], rounds: int = _FIRST_ROUNDS) -> list[LearningJob]:
    """EQUAL, once per seed."""
    return [LearningJob("EQUAL", "nlos", seed, rounds=rounds) for seed in seeds]


def other_jobs(
    equal: Mapping[int, Lesson],
    set_ups: Sequence[str] = SET_UPS,
    *,
    compare: Sequence[str] = (),
    elsewhere: int | None = None,
) -> list[LearningJob]:
    """The others, for as many rounds as they will need if their rounds are worth 9/10 of EQUAL's.

    Args:
        equal: EQUAL's lesson by seed.
        set_ups: where `EVERYWHERE` runs.
        compare: further controllers in `COMPARED_IN`.
        elsewhere: with how many seeds it runs in other set-ups than those; with all if None.
    """
    jobs = []
    for count, (seed, lesson) in enumerate(equal.items()):
        rounds = lesson.rounds_run if math.isinf(lesson.rounds) else 3 * math.ceil(lesson.rounds / 0.9 / 3)
        here = [where for where in set_ups if where in COMPARED_IN or elsewhere is None or count < elsewhere]
        jobs += [LearningJob(EVERYWHERE, where, seed, rounds=rounds) for where in here]
        longer = 3 * math.ceil(rounds / 0.8 / 3)
        jobs += [
            LearningJob(EVERYWHERE, where, seed, rounds=longer, staleness=STALENESS)
            for where in here
            if where in COMPARED_IN
        ]
        jobs += [LearningJob(name, where, seed, rounds=rounds) for where in COMPARED_IN for name in compare]
    return jobs


def digits_figures(results: Mapping[LearningJob, Lesson]) -> dict[str, Any]:
    """Speed-ups, each with its standard error over seeds, and what is behind them."""
    equal = {job.seed: lesson for job, lesson in results.items() if job.name == "EQUAL"}
    others: dict[str, dict[str, dict[int, Lesson]]] = {}
    for job, lesson in results.items():
        if job.name != "EQUAL":
            others.setdefault(job.set_up, {}).setdefault(job.label, {})[job.seed] = lesson
    auto = {where: _speedup(equal, of[EVERYWHERE], where) for where, of in others.items() if EVERYWHERE in of}
    figures: dict[str, Any] = {}
    for where in COMPARED_IN:
        if where in auto:
            key = f"time_to_90_speedup_{where}"
            figures[key], figures[f"{key}_se"] = _speedup(equal, others[where][TOLERANT], where)
            figures[f"{key}_barrier"], figures[f"{key}_barrier_se"] = auto[where]
    least = min(auto, key=lambda where: auto[where][0])
    figures["auto_min_speedup"], figures["auto_min_speedup_se"] = auto[least]
    figures["learning"] = {
        "auto_min_at": least,
        "equal_rounds": [_plain(lesson.rounds) for lesson in equal.values()],
        "set_ups": {
            where: {"EQUAL": _told_equal(equal, where)}
            | {name: _told(equal, lessons, where) for name, lessons in of.items()}
            for where, of in others.items()
        },
    }
    return figures


def _speedup(equal: Mapping[int, Lesson], lessons: Mapping[int, Lesson], where: str) -> tuple[float, float]:
    """EQUAL's mean time over that of the lessons, over the same seeds; 0 where one of them never got there."""
    if any(math.isinf(lesson.time_s) for lesson in (*lessons.values(), *(equal[seed] for seed in lessons))):
        return 0.0, 0.0
    return ratio_and_error([equal[s].equal_s[where] for s in lessons], [lesson.time_s for lesson in lessons.values()])


def _told(equal: Mapping[int, Lesson], lessons: Mapping[int, Lesson], where: str) -> dict[str, Any]:
    told = _summary(list(lessons.values()), [lesson.time_s for lesson in lessons.values()])
    told["speedup"], told["speedup_se"] = _speedup(equal, lessons, where)
    if all(math.isfinite(lesson.time_s) for lesson in lessons.values()):
        told["speedup_by_seed"] = [equal[seed].equal_s[where] / lesson.time_s for seed, lesson in lessons.items()]
    worst = [lesson.worst_s for lesson in lessons.values()]
    before = [equal[seed].equal_worst_s[where] for seed in lessons]
    if np.isfinite([*worst, *before]).all():
        told["worst_speedup"], told["worst_speedup_se"] = ratio_and_error(before, worst)
    return told


def _told_equal(equal: Mapping[int, Lesson], where: str) -> dict[str, Any]:
    times_s = [lesson.equal_s[where] for lesson in equal.values()]
    told = _summary(list(equal.values()), times_s)
    if np.isfinite(times_s).all():
        told["round_s"] = float(np.mean([t / lesson.rounds for t, lesson in zip(times_s, equal.values(), strict=True)]))
    return told | {"speedup": 1.0}


def _summary(lessons: Sequence[Lesson], times_s: Sequence[float]) -> dict[str, Any]:
    """Means over seeds; None for what is infinite."""
    means = {
        "rounds": [lesson.rounds for lesson in lessons],
        "time_s": times_s,
        "round_s": [lesson.round_s for lesson in lessons],
        "final": [lesson.final for lesson in lessons],
        "final_worst": [lesson.final_worst for lesson in lessons],
    }
    return {name: _plain(mean_and_error(values)[0]) for name, values in means.items()}


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -- LeNet -----------------------------------------------------------------------------------------------------------


def lenet_jobs(path: str | None, seeds: Sequence[int] = LENET_SEEDS, rounds: int = LENET_ROUNDS) -> list[LearningJob]:
    """[1]'s own experiment, for its 150 rounds; the controller of the figures once more without a barrier."""
    barrier = LearningJob(EVERYWHERE, "nlos", 0, task="mnist", rounds=rounds, longer=False, path=path)
    kinds = [*(replace(barrier, name=name) for name in LENET_CONTROLLERS), replace(barrier, staleness=STALENESS)]
    return [replace(kind, seed=seed) for seed in seeds for kind in kinds]


def lenet_figures(results: Mapping[LearningJob, Lesson]) -> dict[str, Any]:
    """The speed-up of the same controller as on digits, and the accuracies of all."""
    equal = {job.seed: lesson for job, lesson in results.items() if job.name == "EQUAL"}
    by: dict[str, dict[int, Lesson]] = {}
    for job, lesson in results.items():
        by.setdefault(job.label, {})[job.seed] = lesson
    speedup, error = _speedup(equal, by[TOLERANT], "nlos")
    barrier, barrier_error = _speedup(equal, by[EVERYWHERE], "nlos")
    return {
        "lenet_time_to_90_speedup_nlos": speedup,
        "lenet_time_to_90_speedup_nlos_se": error,
        "lenet_time_to_90_speedup_nlos_barrier": barrier,
        "lenet_time_to_90_speedup_nlos_barrier_se": barrier_error,
        "lenet": {
            name: _told_equal(equal, "nlos") if name == "EQUAL" else _told(equal, lessons, "nlos")
            for name, lessons in by.items()
        },
    }
