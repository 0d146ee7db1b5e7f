"""One controller with one seed in one set-up: what its control costs and, where asked, what is learned under it.

A trial is a value that can be written and read again, so that a sweep goes on where it stopped. Nothing here prints,
draws or compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..control.named import make_controller
from ..control.simulate import simulate
from ..errors import ConfigError
from ..store.json_file import from_json_value, read_json, write_json
from ..topology.set_ups import SET_UPS, set_up
from .gossip_learning import Learned, learn, task_named

__all__ = ["Plan", "Trial", "read_trial", "run_trial", "trial_path", "write_plan", "write_trial"]

Floats = npt.NDArray[np.float64]
_CURVES = ("f_s", "optimum_s", "true_s", "floor_s", "links", "sigma2")


@dataclass(frozen=True)
class Plan:
    """What all trials of a sweep have in common.

    Attributes:
        set_up: radio and devices, a name of `topology.set_ups`.
        nodes: how many.
        rounds: of control, and of learning.
        task: what is learned, a name of `gossip_learning.TASKS`; "none": control only.
    """

    set_up: str = "nlos"
    nodes: int = 15
    rounds: int = 150
    task: str = "digits"

    def __post_init__(self) -> None:
        if self.set_up not in SET_UPS:
            raise ConfigError(f"set-up {self.set_up!r}: expected one of {', '.join(SET_UPS)}")
        if self.task != "none":
            task_named(self.task)
        for name, least in (("nodes", 2), ("rounds", 1)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name} = {value}: expected {least} or more")


@dataclass(frozen=True, eq=False)
class Trial:
    """What one controller did with one seed.

    Attributes:
        controller, seed: which.
        f_s, optimum_s: the objective of [1] and the least possible in the same round, float64 [rounds].
        true_s, floor_s: true time of the round and its largest P, float64 [rounds].
        links: in use, float64 [rounds].
        sigma2: second singular value of W, float64 [rounds].
        learned: accuracies over rounds and virtual time; None where nothing was trained.
    """

    controller: str
    seed: int
    f_s: Floats
    optimum_s: Floats
    true_s: Floats
    floor_s: Floats
    links: Floats
    sigma2: Floats
    learned: Learned | None = None


def run_trial(plan: Plan, controller: str, seed: int, *, path: str | None = None) -> Trial:
    """Run one trial; the same arguments give the same numbers. `path` is where MNIST lies."""
    world, chosen = set_up(plan.set_up, seed, plan.nodes), make_controller(controller, seed=seed)
    trace = simulate(chosen, world, plan.rounds, sigma2=True)
    # A comparator that knows the future cannot be run, so nothing is learned under it.
    learned = None
    if plan.task != "none" and not chosen.clairvoyant:
        learned = learn(chosen, world, plan.rounds, seed=seed, task=task_named(plan.task), path=path)
    curves = {name: np.asarray(getattr(trace, name), np.float64) for name in _CURVES}
    return Trial(controller, seed, learned=learned, **curves)


def trial_path(folder: Path, controller: str, seed: int) -> Path:
    """Where the trial lies in the folder of a sweep."""
    return folder / "trials" / f"{controller}-{seed}.json"


def write_trial(folder: Path, trial: Trial) -> None:
    """Write a trial, whole or not at all."""
    path = trial_path(folder, trial.controller, trial.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"controller": trial.controller, "seed": trial.seed}
    document |= {name: getattr(trial, name).tolist() for name in _CURVES}
    learned = trial.learned
    document["learned"] = None if learned is None else {k: v.tolist() for k, v in vars(learned).items()}
    write_json(path, document)


def read_trial(folder: Path, controller: str, seed: int) -> Trial | None:
    """A trial that was written, None if it was not.

    Raises:
        DataError: the file is damaged.
    """
    path = trial_path(folder, controller, seed)
    if not path.is_file():
        return None
    document = read_json(path)
    learned = document["learned"]
    return Trial(
        document["controller"],
        document["seed"],
        **{name: _array(document[name]) for name in _CURVES},
        learned=None if learned is None else Learned(**{name: _array(values) for name, values in learned.items()}),
    )


def write_plan(folder: Path, plan: Plan) -> None:
    """Put the plan into the folder, or find it there.

    Raises:
        ConfigError: the folder holds the trials of another plan; they cannot be compared.
    """
    path = folder / "sweep.json"
    if path.is_file():
        found: Mapping[str, Any] = read_json(path)
        if found != asdict(plan):
            other = ", ".join(f"{k} {found.get(k)!r} (now {v!r})" for k, v in asdict(plan).items() if found.get(k) != v)
            raise ConfigError(f"{folder} holds a sweep with {other}; give another folder with --out")
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(plan))


def _array(values: Any) -> Floats:
    """A list as written, also where JSON has no such number."""
    return np.array([from_json_value(value) for value in values], np.float64)
