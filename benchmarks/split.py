"""What dividing a model between devices and the cloud gains, costs and keeps: every figure from the library's own path.

    python -m benchmarks.split [--quick] [--json] [--only PART]

Five parts: exactness (divided against whole, to the last bit), planning (spread, modelled clock, regret, reservations),
codecs (accuracy and traffic with few bits at the cut), leakage (what cuts give away, for information) and stream (a
batch over the TLS stream against Flower's messages, in a real deployment). Everything but stream depends on nothing but
the seeds. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .harness.children import available_cpus
from .harness.parts import WORKERS, run_parts
from .harness.printing import benchmark_parser, print_table, progress
from .harness.targets import Figure
from .harness.workers import run_jobs
from .split_exactness import FederationJob, cut_jobs, exactness_figures, run_cuts, run_federation
from .split_leakage import leakage_figures
from .split_planning import planning_figures, reservation_figures
from .split_regret import WORLDS, regret_figures, run_regret
from .split_stream import FIGURES as STREAM_FIGURES
from .split_stream import measure as measure_stream
from .split_task import MERGE_EVERY, profile
from .split_training import FULL, QUICK, SEEDS, run_training, training_figures, training_jobs

__all__ = ["FIGURES", "PARTS", "main"]

PARTS: Final = ("exactness", "planning", "codecs", "leakage", "stream")

FIGURES: Final = (
    Figure(
        "exactness_max_diff",
        "exactness",
        "greatest difference of divided and whole training",
        most=0.0,
        reference="0",
        decimals=1,
    ),
    Figure(
        "device_spread_ratio",
        "planning",
        "slowest less quickest device's step: one cut for all over planned ones",
        least=20.0,
        reference="3312 / 168 ms = 19.7",
        decimals=1,
    ),
    Figure(
        "device_spread_ratio_budgets",
        "planning",
        "the same with T_train and T_trans given",
        reference="19.7",
        decimals=1,
    ),
    Figure("cut_regret", "planning", "planned step over the best of all choices, worst world", most=1.05, decimals=4),
    Figure("cut_regret_mean", "planning", "the same, mean of the worlds", decimals=4),
    Figure(
        "time_ratio_vs_fedavg",
        "planning",
        "modelled clock of 60 rounds over that of whole models",
        most=0.05,
        reference="62 / 2073 s = 0.030, cloud and halves left out",
        decimals=4,
    ),
    Figure(
        "time_ratio_vs_best_fixed",
        "planning",
        "the same over the best cut that is the same for all, for good",
        decimals=3,
    ),
    Figure(
        "time_ratio_where_bytes_bind", "planning", "quick devices on 1 Mbit/s, divided all the same: over whole models"
    ),
    Figure(
        "reservation_violation_rate",
        "planning",
        "late of 1,000 transfers, rate x U(0.7, 1)",
        most=0.01,
        decimals=4,
    ),
    Figure(
        "quantised_gap_points",
        "codecs",
        "4-bit tensors, 8-bit gradients: points under float32",
        most=2.0,
        reference="2.0, one seed",
    ),
    Figure("quantised_traffic_ratio", "codecs", "float32 over its bytes, both ways", reference="6.8", decimals=1),
    *STREAM_FIGURES,
)


@dataclass(frozen=True)
class _Call:
    """One job for a process: a function of this package, and what it is called with."""

    function: Callable[[Any], Any]
    job: Any
    name: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also when a target is missed, 1 when a part could not be measured."""
    options = _parser().parse_args(arguments)
    parts = [part for part in PARTS if part in (options.only or PARTS)]
    return run_parts(options, parts, FIGURES, _measure, _print, ("flower-edge", "flwr", "numpy", "torch", "grpcio"))


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser("split", "What dividing a model between devices and the cloud gains, costs and keeps.")
    parser.add_argument(
        "--only", action="append", choices=PARTS, default=[], help="measure this part; may be given again"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="the first N seeds instead of all, to try something out")
    return parser


# -- the parts -------------------------------------------------------------------------------------------------------


def _done(call: _Call) -> Any:
    """One job, in whatever process, with one thread: what must agree to the last bit is summed in one order."""
    import torch

    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    return call.function(call.job)


def _run(function: Callable[[Any], Any], jobs: Mapping[str, Any]) -> list[Any]:
    calls = [_Call(function, job, name) for name, job in jobs.items()]
    return run_jobs(_done, calls, workers=min(WORKERS, available_cpus()), name=lambda call: call.name)


def _measure(parts: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    seeds = SEEDS[: options.seeds]
    if "exactness" in parts:
        figures |= _measure_exactness(options.quick)
    if "planning" in parts:
        progress("planning: 60 rounds of every planner ...")
        figures |= planning_figures(profile(), seeds) | reservation_figures(profile(), seeds)
        progress(f"planning: {WORLDS} worlds, every choice tried ...")
        worlds = {f"worlds {at} to {at + 49}": range(at, at + 50) for at in range(0, WORLDS, 50)}
        figures |= regret_figures([ratio for found in _run(run_regret, worlds) for ratio in found])
    if "codecs" in parts:
        jobs = training_jobs(QUICK if options.quick else FULL, seeds)
        progress(f"codecs: {len(jobs)} runs of 60 rounds ...")
        results = _run(run_training, {f"{job.codecs}, seed {job.seed}": job for job in jobs})
        figures |= training_figures(dict(zip(jobs, results, strict=True)))
    if "leakage" in parts:
        progress("leakage ...")
        figures |= leakage_figures()
    if "stream" in parts:
        progress("stream: a deployment of its own, alone on the machine ...")
        figures |= measure_stream(options.quick)
    return figures


def _measure_exactness(quick: bool) -> dict[str, Any]:
    jobs = cut_jobs()
    progress(f"exactness: {len(jobs)} cuts and variants, and federations ...")
    quarters = {f"quarter {at + 1} of the cuts": jobs[at::4] for at in range(4)}
    apart = [value for found in _run(run_cuts, quarters) for value in found]
    rounds = (2 if quick else 4) * MERGE_EVERY
    federations = [FederationJob(rounds, seed) for seed in ((0, 1) if quick else range(5))]
    told = _run(run_federation, {f"{rounds} rounds of a federation, seed {job.seed}": job for job in federations})
    return exactness_figures(
        dict(zip(jobs, [apart[_place(at, len(jobs))] for at in range(len(jobs))], strict=True)), told
    )


def _place(at: int, count: int) -> int:
    """Where job `at` is when quarters follow one another."""
    return sum(len(range(quarter, count, 4)) for quarter in range(at % 4)) + at // 4


# -- tables ----------------------------------------------------------------------------------------------------------


def _print(found: Mapping[str, Any]) -> None:
    if "exactness" in found:
        print_table(
            "greatest difference",
            ["what", "cases", "difference"],
            [[name, str(of["cases"]), f"{of['max_diff']:g}"] for name, of in found["exactness"].items()],
        )
    if "planners" in found:
        rows = _rows(found["planners"], (("spread_ms", 0), ("step_ms", 0), ("clock_s", 1), ("traffic_mb", 0)))
        print_table("60 rounds, modelled", ["planner", "apart ms", "slowest step ms", "clock s", "MB"], rows)
        rows = [
            [name, f"{of['divided_over_whole']:.2f}", f"{of['planned_over_whole']:.2f}", "yes" if of["worth"] else "no"]
            for name, of in found["where_it_does_not_pay"].items()
        ]
        print_table("time over whole models", ["where", "divided by all", "as planned", "divided?"], rows)
    if "codecs" in found:
        columns = (("accuracy", 2), ("accuracy_se", 2), ("gap_points", 2), ("gap_points_se", 2), ("traffic_mb", 0))
        rows = _rows(found["codecs"], columns)
        print_table("bits of tensors/gradients", ["bits", "%", "±", "points under float32", "±", "MB"], rows)
    if "leakage" in found:
        members = list(found["leakage"]["trained"])
        rows = [[name, *(f"{of[member]:.2f}" for member in members)] for name, of in found["leakage"].items()]
        print_table("distance correlation with the pictures", ["model", *members], rows)


def _rows(told: Mapping[str, Mapping[str, float]], columns: Sequence[tuple[str, int]]) -> list[list[str]]:
    return [[name, *(f"{of[key]:,.{decimals}f}" for key, decimals in columns)] for name, of in told.items()]


if __name__ == "__main__":
    sys.exit(main())
