"""What gossip gains from a topology that follows the stragglers: every figure from the library's own path.

    python -m benchmarks.topology_control [--quick] [--json] [--only PART] [--mnist DIR]

Four parts: costs (controllers in modelled worlds, without learning), learning (digits, virtual time to 90 %), speed (a
round of control for up to 100,000 nodes, networkx beside it) and lenet ([1]'s own experiment, full form). Everything
but speed depends on nothing but the seeds. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from flower_edge.data import load_dataset
from flower_edge.topology.set_ups import SET_UPS

from .harness.children import available_cpus
from .harness.parts import WORKERS, run_parts
from .harness.printing import benchmark_parser, print_table, progress
from .harness.targets import Figure
from .harness.workers import run_jobs
from .topology_control_costs import ROUNDS, SEEDS, CostJob, cost_figures, cost_jobs, run_cost, tune_ogd
from .topology_control_learning import (
    COMPARED,
    LENET_ROUNDS,
    LENET_SEEDS,
    QUICK_ELSEWHERE,
    QUICK_SEEDS,
    LearningJob,
    digits_figures,
    equal_jobs,
    lenet_figures,
    lenet_jobs,
    other_jobs,
    run_lesson,
)
from .topology_control_learning import SEEDS as LEARNING_SEEDS
from .topology_control_speed import FULL_SIZES, QUICK_SIZES, measure_speed

__all__ = ["FIGURES", "PARTS", "main"]

PARTS: Final = ("costs", "learning", "speed", "lenet")

FIGURES: Final = (
    Figure("dcent_f_over_opt_nlos", "costs", "DCENT, all links: f over its optimum", most=1.75, reference="1.72"),
    Figure("dcent_regret_over_ogd_row", "costs", "DCENT's regret over OGD's", most=0.85, reference="0.82"),
    Figure(
        "literal_links_left", "costs", "links left of 210, literal reading", 94.0, 124.0, reference="109", decimals=0
    ),
    Figure("best_f_over_opt_nlos", "costs", "closed form: f over its optimum", most=1.55, reference="1.54", decimals=3),
    Figure(
        "best_f_over_opt_per_device",
        "costs",
        "the same, devices fast or slow for good",
        most=1.30,
        reference="1.29",
        decimals=3,
    ),
    Figure(
        "best_true_time_over_floor",
        "costs",
        "one peer: true time over the slowest node's",
        most=1.12,
        reference="1.10",
        decimals=3,
    ),
    Figure(
        "best_true_time_over_floor_sigma80",
        "costs",
        "the same where sigma2 <= 0.8",
        most=1.20,
        reference="1.18",
        decimals=3,
    ),
    Figure(
        "time_to_90_speedup_nlos",
        "learning",
        "EQUAL's time to 90 % over auto's, stale 1",
        least=12.0,
        reference="12.2, another task",
    ),
    Figure("time_to_90_speedup_macro", "learning", "the same in mild radio", least=1.10, reference="1.14"),
    Figure("auto_min_speedup", "learning", "the least of it in all set-ups, with a barrier", least=0.97),
    Figure("consensus_bias", "costs", "max |N pi - 1| of doubly stochastic controllers", most=1e-6),
    Figure("control_ms_10k", "speed", "ms per round of control, 10,000 nodes", most=8.0, reference="5.2"),
    Figure("networkx_ratio_10k", "speed", "networkx's time over it", least=150.0, reference="212", decimals=0),
    Figure("control_ms_100k", "speed", "ms, 100,000 nodes (full form)", most=120.0, reference="80", decimals=0),
    Figure("lenet_time_to_90_speedup_nlos", "lenet", "the same with LeNet on MNIST", least=15.0),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also when a target is missed, 1 when a part could not be measured."""
    options = _parser().parse_args(arguments)
    asked = options.only or (PARTS[:3] if options.quick or options.mnist is None else PARTS)
    parts = [part for part in PARTS if part in asked]
    return run_parts(options, parts, FIGURES, _measure, _print, ("flower-edge", "flwr", "numpy", "scipy", "networkx"))


def _print(found: Mapping[str, Any]) -> None:
    if "costs" in found:
        _print_costs(found["costs"])
    if "learning" in found:
        _print_learning(found["learning"])
    if "speed" in found:
        _print_speed(found["speed"])
    if "lenet" in found:
        _print_lessons("LeNet on MNIST-10k, nlos: means over seeds", found["lenet"])


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser("topology_control", "What gossip gains from a topology that follows the stragglers.")
    parser.add_argument(
        "--only", action="append", choices=PARTS, default=[], help="measure this part; may be given again"
    )
    parser.add_argument("--mnist", metavar="DIR", help="folder with MNIST's test files, for the part lenet (full form)")
    parser.add_argument("--seeds", type=int, metavar="N", help="the first N seeds instead of all, to try something out")
    return parser


# -- the parts -------------------------------------------------------------------------------------------------------


_Job = CostJob | LearningJob


def _done(job: _Job) -> Any:
    """One job, in whatever process."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    return run_cost(job) if isinstance(job, CostJob) else run_lesson(job)


def _named(job: _Job) -> str:
    name = job.label if isinstance(job, LearningJob) else job.name
    return f"{job.set_up}, {name}, seed {job.seed}"


def _run(jobs: Sequence[_Job]) -> dict[Any, Any]:
    results = run_jobs(_done, jobs, workers=min(WORKERS, available_cpus()), name=_named)
    return dict(zip(jobs, results, strict=True))


def _measure(parts: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if "lenet" in parts:
        load_dataset("mnist", path=options.mnist, size=28)  # a folder without the data is told now
    if "costs" in parts:
        progress("costs: OGD's steps ...")
        tuning = tune_ogd()
        jobs = cost_jobs(tuning, SEEDS[: options.seeds])
        progress(f"costs: {len(jobs)} runs of {ROUNDS} rounds of control ...")
        figures |= cost_figures(_run(jobs), tuning)
    if "learning" in parts:
        figures |= _measure_learning((QUICK_SEEDS if options.quick else LEARNING_SEEDS)[: options.seeds], options.quick)
    if "lenet" in parts:
        jobs_of_lenet = lenet_jobs(options.mnist, LENET_SEEDS[: options.seeds])
        progress(f"lenet: {len(jobs_of_lenet)} runs of {LENET_ROUNDS} rounds of gossip ...")
        figures |= lenet_figures(_run(jobs_of_lenet))
    if "speed" in parts:
        progress("speed, alone on the machine ...")
        figures |= measure_speed(QUICK_SIZES if options.quick else FULL_SIZES, progress)
    return figures


def _measure_learning(seeds: Sequence[int], quick: bool) -> dict[str, Any]:
    first = equal_jobs(seeds)
    progress(f"learning: EQUAL, {len(first)} seeds ...")
    results = _run(first)
    equal = {job.seed: lesson for job, lesson in results.items()}
    if quick:
        jobs = other_jobs(equal, SET_UPS, elsewhere=QUICK_ELSEWHERE)
    else:
        jobs = other_jobs(equal, SET_UPS, compare=COMPARED)
    progress(f"learning: {len(jobs)} runs of gossip ...")
    return digits_figures(results | _run(jobs))


# -- tables ----------------------------------------------------------------------------------------------------------


def _shown(value: float | None, decimals: int) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:,.{decimals}f}"


def _print_costs(costs: Mapping[str, Any]) -> None:
    columns = (
        ("f_over_opt", 2),
        ("regret_s", 1),
        ("true_over_floor", 2),
        ("links", 0),
        ("sigma2", 2),
        ("bias", 2),
    )
    head = ["f/OPT", "regret s", "T/floor", "links", "sigma2", "max |N pi-1|"]
    for where, of in costs["set_ups"].items():
        rows = [[name, *(_shown(told[key], decimals) for key, decimals in columns)] for name, told in of.items()]
        print_table(f"{where}: means over seeds", ["controller", *head], rows)
    best, links = costs["ogd_tuning"]["best"], costs["literal_links_by_cap"]
    print(
        f"OGD: steps {best['weight_step']:g} and {best['band_step']:g} found on seed {costs['ogd_tuning']['seed']}; "
        f"DCENT is held against '{costs['ogd_tuning']['held_against']}'"
    )
    print("literal, links left by cap: " + ", ".join(f"{cap}: {count:.0f}" for cap, count in links.items()))


def _print_learning(learning: Mapping[str, Any]) -> None:
    for where, of in learning["set_ups"].items():
        _print_lessons(f"{where}: digits, means over seeds", of)
    print(f"auto gains least in {learning['auto_min_at']}")


def _print_lessons(title: str, of: Mapping[str, Any]) -> None:
    columns = (("rounds", 0), ("time_s", 0), ("speedup", 2), ("worst_speedup", 2), ("round_s", 2))
    head = ["controller", "rounds to 90 %", "s", "speed-up", "worst's to 80 %", "s per round", "% in the end", "worst"]
    rows = [
        [
            name,
            *(_shown(told.get(key), decimals) for key, decimals in columns),
            _shown(100 * told["final"], 1),
            _shown(100 * told["final_worst"], 1),
        ]
        for name, told in of.items()
    ]
    print_table(title, head, rows)


def _print_speed(speed: Mapping[str, Any]) -> None:
    columns = ("step_ms", "connectivity_ms", "round_ms", "cpu_ms", "networkx_ms", "walked_ms")
    rows = [
        [f"{told['nodes']:,}", f"{told['links']:,}", *(_shown(told[name] or None, 2) for name in columns)]
        for told in speed.values()
        if isinstance(told, Mapping)
    ]
    head = ["nodes", "links", "step ms", "connected ms", "both", "CPU", "networkx", "walked"]
    print_table("a round of control", head, rows)
    if "growth" in speed:
        print(f"time grows with links to the power of {speed['growth']:.2f}")


if __name__ == "__main__":
    sys.exit(main())
