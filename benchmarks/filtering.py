"""What gate, filter and rewards keep, refuse and cost: every figure from the library's own path.

    python -m benchmarks.filtering [--quick] [--json] [--only PART] [--attack A --aggregator B --fraction F]

Four parts: cells (attacks on aggregators, with the gate and without), refusals (honest terminals with one-sided data),
rewards (credits against exact Shapley values, free-riders) and cost (gate and cheap tests on ten million numbers).
Everything but cost depends on nothing but the seeds. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .filtering_attacks import ATTACKS, HARDER
from .filtering_cells import AGGREGATORS, Cell, run_cell
from .filtering_correlation import correlation_figures, free_rider_figures, rewarding_jobs, run_rewarding
from .filtering_cost import cost_figures
from .filtering_matrix import cell_figures, chosen, matrix, quick_matrix
from .filtering_refusals import refusal_cells, refusal_figures
from .harness.children import available_cpus
from .harness.parts import WORKERS, run_parts
from .harness.printing import benchmark_parser, print_table, progress
from .harness.targets import Figure
from .harness.workers import run_jobs

__all__ = ["FIGURES", "PARTS", "main"]

PARTS: Final = ("cells", "refusals", "rewards", "cost")
#: Draws of the data, in the short form and in the whole one.
_SEEDS: Final[Mapping[str, tuple[int, int]]] = {"cells": (2, 3), "refusals": (4, 10), "rewards": (5, 5)}

FIGURES: Final = (
    Figure(
        "worst_loss_20_points",
        "cells",
        "points lost with gate and filter at 20 % attackers, worst cell",
        most=2.0,
        reference="alone: see without_gate_20_points",
    ),
    Figure(
        "attacks_within_5_at_40",
        "cells",
        "of 12 attacks at 40 %, those that cost at most 5 points on every aggregator (full form)",
        least=10,
        decimals=0,
    ),
    Figure(
        "false_refusal_rate", "refusals", "honest replies refused, Dirichlet(0.1), no attack", most=0.03, decimals=4
    ),
    Figure("strict_refusal_rate", "refusals", "the same, each reply as accurate as its base", decimals=3),
    Figure("reward_rank_correlation", "rewards", "Spearman of credits and exact Shapley values", least=0.9, decimals=3),
    Figure("free_rider_share", "rewards", "a free-rider's credits over an honest node's", most=0.02, decimals=4),
    Figure("free_rider_share_little_noise", "rewards", "the same, a little noise on the model as it came", decimals=3),
    Figure("free_rider_share_last_step", "rewards", "the same, the last global step once more", decimals=3),
    Figure("gate_cost_ratio", "cost", "gate, finite, norm and cosine per reply over x.max()", most=6.0),
)


@dataclass(frozen=True)
class _Call:
    """One job for a process: a function of this package, and what it is called with."""

    function: Callable[[Any], Any]
    job: Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also when a target is missed, 1 when a part could not be measured."""
    options = _parser().parse_args(arguments)
    parts = [part for part in PARTS if part in (options.only or PARTS)]
    return run_parts(options, parts, FIGURES, _measure, _print, ("flower-edge", "flwr", "numpy", "byzfl"))


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser("filtering", "What gate, filter and rewards keep, refuse and cost.")
    parser.add_argument(
        "--only", action="append", choices=PARTS, default=[], help="measure this part; may be given again"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="N seeds in every part, to try something out")
    group = parser.add_argument_group("some cells only, for --only cells; each may be given again")
    group.add_argument("--attack", action="append", choices=[*ATTACKS, *HARDER], default=[])
    group.add_argument("--aggregator", action="append", choices=list(AGGREGATORS), default=[])
    group.add_argument("--fraction", action="append", choices=(0.2, 0.4), type=float, default=[])
    return parser


# -- the parts -------------------------------------------------------------------------------------------------------


def _done(call: _Call) -> Any:
    """One job, in whatever process."""
    # Every refused reply is a warning, and here they are what is looked for.
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    logging.getLogger("flower_edge").setLevel(logging.CRITICAL)
    # Flower's Bulyan collects garbage for every reply, which is half a second where torch is imported.
    gc.freeze()
    return call.function(call.job)


def _run(function: Callable[[Any], Any], jobs: Sequence[Any]) -> dict[Any, Any]:
    calls = [_Call(function, job) for job in jobs]
    results = run_jobs(_done, calls, workers=min(WORKERS, available_cpus()), name=_named)
    return dict(zip(jobs, results, strict=True))


def _named(call: _Call) -> str:
    return str(call.job)


def _measure(parts: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if "cells" in parts:
        cells = _cells(options)
        progress(f"cells: {len(cells)} runs of 30 rounds ...")
        figures |= cell_figures(_run(run_cell, cells))
    if "refusals" in parts:
        cells = refusal_cells(_seeds("refusals", options))
        progress(f"refusals: {len(cells)} runs of 30 rounds ...")
        figures |= refusal_figures(_run(run_cell, cells))
    if "rewards" in parts:
        jobs = rewarding_jobs(_seeds("rewards", options))
        progress(f"rewards: {len(jobs)} runs of 10 rounds ...")
        paid = _run(run_rewarding, jobs)
        figures |= correlation_figures(paid) | free_rider_figures(paid)
    if "cost" in parts:
        progress("cost: twenty replies of ten million numbers, alone on the machine ...")
        figures |= cost_figures(repetitions=5 if options.quick else 15)
    return figures


def _seeds(part: str, options: argparse.Namespace) -> range:
    short, whole = _SEEDS[part]
    return range(options.seeds or (short if options.quick else whole))


def _cells(options: argparse.Namespace) -> list[Cell]:
    seeds = _seeds("cells", options)
    if options.attack or options.aggregator or options.fraction:
        return chosen(options.attack, options.aggregator, options.fraction, seeds)
    return quick_matrix(seeds) if options.quick else matrix(seeds)


# -- tables ----------------------------------------------------------------------------------------------------------


def _print(found: Mapping[str, Any]) -> None:
    if "cells" in found:
        _print_cells(found["cells"])
    if "refusals" in found:
        rows = [
            [form, f"{of['rate']:.2%}", f"{of['points_lost']:+.2f}", str(of["runs_ended_early"])]
            for form, of in found["refusals"].items()
        ]
        print_table("honest replies refused", ["form", "rate", "points lost", "runs ended early"], rows)
    if "correlations" in found:
        told = {name: of for name, of in found["correlations"].items() if "mean" in of}
        rows = [[name, f"{of['mean']:.3f}", f"{of['se']:.3f}"] for name, of in told.items()]
        print_table("Spearman of credits and exact Shapley values", ["credits by, Shapley on", "mean", "±"], rows)
    if "gate_cost" in found:
        of = found["gate_cost"]
        rows = [[name, f"{ms:.2f}", f"{of['over_x_max'][name]:.2f}"] for name, ms in of["ms_per_reply"].items()]
        print_table("per reply", ["what", "ms", "over x.max()"], rows)
        print_table("held-out evaluation", ["what", "value"], [[k, f"{v:.2e}"] for k, v in found["held_out"].items()])


def _print_cells(cells: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        [
            f"{row['attack']}, {row['percent']} %",
            str(row["aggregator"]),
            *(f"{row[key]:.1f}" for key in ("attack_free", "loss_without_gate", "loss", "loss_se")),
            *(f"{row[key]:.0%}" for key in ("attackers_refused", "honest_refused")),
        ]
        for row in cells
    ]
    columns = ["attack", "aggregator", "attack-free", "lost alone", "lost", "±", "attackers refused", "honest"]
    print_table("accuracy, points", columns, rows)


if __name__ == "__main__":
    sys.exit(main())
