"""How near automatic control comes to trying everything: every cut, depth and set of methods, really compressed.

    python -m benchmarks.fringe_automatic [--quick] [--json]

A convolutional network for scikit-learn's digits (8x8, split 60/20/20) on two machines. For each cut, each depth of the
fringe (1, 2) and each set of methods a controller compresses until its floor, one point of validation accuracy below
the uncompressed model. What an inference takes then follows from bytes, link and compute, in several worlds: so one
search serves all links. Rules choose without having seen any of it; what is learned has seen the same search on models
of other seeds. Compute is modelled from FLOPs, so that nothing here depends on a clock; coding is left out.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from statistics import fmean, median
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from sklearn import datasets, model_selection
from torch import nn
from torch.nn import functional

from flower_edge.fringe import Controller, Goals, Link, Recipe, distribute, evaluation, fringe
from flower_edge.fringe.automatic_choice import METHOD_SETS
from flower_edge.fringe.automatic_learned import LearnedPlan, PlanRow
from flower_edge.fringe.automatic_torch import automatic, model_costs
from flower_edge.fringe.automatic_values import Chosen, Given, ModelCosts, Reach
from flower_edge.fringe.distil_recipe import DistilRecipe
from flower_edge.fringe.links import inference
from flower_edge.splitting.cutting_torch import CutModel

from .harness.printing import benchmark_parser, print_json, print_table, progress

__all__ = ["WORLDS", "Config", "Ended", "Task", "World", "compare", "main", "search", "task"]

DROP: Final = 0.01
DEPTHS: Final = (1, 2)
METHODS: Final = METHOD_SETS[1:]
MACHINES: Final = ("camera", "cloud")
HEALING: Final = Recipe(epochs=2)
DISTILLING: Final = DistilRecipe(regress_epochs=8, distil_epochs=4, regress_lr=1e-2)


class World(NamedTuple):
    """A link, and seconds that the whole model takes on either machine."""

    link: Link
    camera_s: float
    cloud_s: float


#: Slow, middling and fast links; a camera that hardly needs help, and two that do.
WORLDS: Final = tuple(
    World(link, camera_s, camera_s / 20)
    for link, camera_s in product((Link(2e5, 0.010), Link(1e6, 0.005), Link(1e7, 0.002)), (0.002, 0.02, 0.1))
)


class Config(NamedTuple):
    """What is chosen: units before the cut, depth, methods."""

    position: int
    depth: int
    methods: tuple[str, ...]


class Ended(NamedTuple):
    """Where a controller ended: bytes, iterations, and test accuracy."""

    size_bytes: int
    trials: int
    test: float


class Task(NamedTuple):
    """A trained model with its data and costs."""

    cut_model: CutModel
    costs: ModelCosts
    learn: torch.Tensor
    labels: torch.Tensor
    validation: tuple[torch.Tensor, torch.Tensor]
    test: tuple[torch.Tensor, torch.Tensor]


def task(seed: int) -> Task:
    """Split and train by a seed."""
    x, y = datasets.load_digits(return_X_y=True)
    x = (x.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    x_learn, x_rest, y_learn, y_rest = model_selection.train_test_split(
        x, y, train_size=0.6, random_state=seed, stratify=y
    )
    x_val, x_test, y_val, y_test = model_selection.train_test_split(
        x_rest, y_rest, train_size=0.5, random_state=seed, stratify=y_rest
    )
    learn, labels, *rest = (torch.from_numpy(one) for one in (x_learn, y_learn, x_val, y_val, x_test, y_test))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, stride=2), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(12):
            for some in torch.randperm(len(learn)).split(64):
                optimiser.zero_grad()
                functional.cross_entropy(model(learn[some]), labels[some]).backward()
                optimiser.step()
    cut_model = CutModel.of(model.eval(), learn[:4])
    costs = model_costs(cut_model, learn[:4], repeats=1)
    flops = [unit.forward_flops for unit in cut_model.profile().units]
    still = tuple(replace(place, code_s=(0.0, 0.0), pair_s=(0.0, 0.0)) for place in costs.places)
    costs = replace(costs.timed([one / sum(flops) for one in flops]), places=still)
    return Task(cut_model, costs, learn, labels, (rest[0], rest[1]), (rest[2], rest[3]))


def search(given: Task, depths: Sequence[int] = DEPTHS) -> dict[Config, Ended]:
    """Compress at every cut, with every depth and every set of methods, until the floor."""
    found = {}
    tested = evaluation(*given.test)
    for place, depth, methods in product(given.costs.places, depths, METHODS):
        pipeline = distribute(given.cut_model, given.learn[:4], MACHINES, [place.position])
        # More than there is, so that all end at their floor.
        goals = Goals(drop=DROP, bandwidth=place.size_bytes / 24.1)
        controller = Controller(
            pipeline, fringe(pipeline, depth), goals, evaluation(*given.validation), given.learn[:400], [Link(1e6)],
            labels=given.labels[:400], methods=methods, healing=HEALING, distilling=DISTILLING,
        )  # fmt: skip
        controller.run()
        found[Config(place.position, depth, methods)] = Ended(
            controller.version.sizes_bytes[0], len(controller.iterations), tested(controller.pipeline)
        )
        progress(f"{place.name}, depth {depth}, {'+'.join(methods)}: {found[Config(place.position, depth, methods)]}")
    return found


def rows(given: Task, found: dict[Config, Ended]) -> list[PlanRow]:
    """What there is to learn from a search."""
    places = {place.position: place for place in given.costs.places}
    return [
        PlanRow.of(
            places[one.position], given.costs.share(places[one.position]), one.methods, one.depth, DROP,
            size_bytes=ended.size_bytes, trials=ended.trials,
        )
        for one, ended in found.items()
    ]  # fmt: skip


def seconds(given: Task, world: World, position: int, size_bytes: float) -> float:
    """Of an inference."""
    share = sum(given.costs.unit_s[:position])
    return inference([size_bytes], [world.link], [share * world.camera_s, (1 - share) * world.cloud_s]).latency_s


def chosen(given: Task, world: World, reach: Reach | None, depths: Sequence[int]) -> Chosen:
    """By rules, or by what was learned."""
    return automatic(
        given.cut_model, given.learn[:4], MACHINES, [world.link], Goals(drop=DROP, latency_s=1.0),
        speeds={"camera": 1 / world.camera_s, "cloud": 1 / world.cloud_s}, costs=given.costs, learned=reach,
        given=Given(depth=dict.fromkeys(MACHINES, depths[0])) if len(depths) == 1 else None, to_floor=True,
    )  # fmt: skip


def compare(
    given: Task,
    found: dict[Config, Ended],
    plan: LearnedPlan,
    worlds: Sequence[World] = WORLDS,
    depths: Sequence[int] = DEPTHS,
) -> list[dict[str, Any]]:
    """In each world what everything tried, rules and what was learned come to."""
    told = []
    places = {place.position: place for place in given.costs.places}
    for world in worlds:
        every = {one: seconds(given, world, one.position, ended.size_bytes) for one, ended in found.items()}
        best = min(every, key=lambda one: (every[one], found[one].trials))
        row: dict[str, Any] = {
            "goodput_bps": world.link.goodput_bps, "camera_s": world.camera_s, "median_s": median(every.values()),
            "exhaustive": _told(places[best.position].name, best, every[best], found[best]),
            "exhaustive_trials": sum(ended.trials for ended in found.values()),
        }  # fmt: skip
        for name, reach in (("rules", None), ("learned", plan)):
            made = chosen(given, world, reach, depths)
            if made.methods:
                one = Config(made.positions[0], made.depth["camera"], made.methods)
                ended, taken = found[one], every[one]
            else:
                one = Config(made.positions[0], 1, ())
                ended = Ended(made.before_bytes[0], 0, math.nan)
                taken = seconds(given, world, one.position, ended.size_bytes)
            row[name] = _told(made.cuts[0], one, taken, ended) | {"over_best": taken / every[best]}
        told.append(row)
    return told


def _told(name: str, one: Config, taken_s: float, ended: Ended) -> dict[str, Any]:
    return {
        "cut": name, "depth": one.depth, "methods": "+".join(one.methods) or "none", "latency_s": taken_s,
        "size_bytes": ended.size_bytes, "trials": ended.trials, "test": ended.test,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, choose, compare."""
    parser = benchmark_parser("fringe_automatic", __doc__ or "")
    options = parser.parse_args(arguments)
    logging.getLogger("flower_edge").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    learned_from, tried_on = ((10,), (0,)) if options.quick else ((10, 11), (0, 1, 2))
    depths = DEPTHS[:1] if options.quick else DEPTHS
    recorded = []
    for seed in learned_from:
        one = task(seed)
        recorded += rows(one, search(one, depths))
    plan = LearnedPlan.fit(recorded)
    told = []
    for seed in tried_on:
        one = task(seed)
        told += [{"seed": seed, **row} for row in compare(one, search(one, depths), plan, depths=depths)]
    result = {"rows": told, "plan_spread_octaves": plan.spread, "plan_rows": plan.rows}
    for name in ("rules", "learned"):
        over = [row[name]["over_best"] for row in told]
        result[f"{name}_over_best_mean"], result[f"{name}_over_best_worst"] = fmean(over), max(over)
        result[f"{name}_trials"] = fmean(row[name]["trials"] for row in told)
    result["median_over_best_mean"] = fmean(row["median_s"] / row["exhaustive"]["latency_s"] for row in told)
    result["exhaustive_trials"] = fmean(row["exhaustive_trials"] for row in told)
    if options.json:
        print_json(result)
        return 0
    columns = ("seed", "Mbit/s, ms", "exhaustive", "rules", "learned")
    title = "ms of an inference, bytes, cut/depth, methods (quantisation, pruning, distillation)"
    print_table(title, columns, [_line(row) for row in told])
    for name, value in result.items():
        if name != "rows":
            print(f"{name}: {value:.3f}")
    return 0


def _line(row: dict[str, Any]) -> list[str]:
    cells = [str(row["seed"]), f"{row['goodput_bps'] / 1e6:g}, {1e3 * row['camera_s']:.0f}"]
    for name in ("exhaustive", "rules", "learned"):
        one = row[name]
        methods = "".join(method[0] for method in one["methods"].split("+"))
        cells.append(f"{1e3 * one['latency_s']:.2f} {one['size_bytes']} {one['cut']}/{one['depth']} {methods}")
    return cells


if __name__ == "__main__":
    sys.exit(main())
