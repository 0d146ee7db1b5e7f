"""What fringe compression saves and keeps, on the clutter pictures and while serving.

    python -m benchmarks.fringe [--quick] [--json] [--only PART] [--seeds N] [--base-seed N] [--folder FOLDER]

Three parts. prune: the progressive controller with fewer bits and fewer channels, one point of validation allowed.
distil: an encoder and a decoder at both cuts, 660 bytes together, beside sending the input as a JPEG. serving: real
processes over delayed links, see `fringe_serving`. The first two depend on nothing but the seeds, on one machine. The
short form reads the base model where it is kept, and has one seed of each. docs/benchmarks.md says what each figure
means.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from flower_edge.data.dataset import Dataset

from .fringe_base import Base, base_model
from .fringe_distil import DistilJob, run_distil
from .fringe_jpeg import jpeg_rows
from .fringe_prune import PruneJob, run_prune
from .fringe_task import ACCEPTED_PERCENT, best_reduction, link_seconds, parts, plain_bytes
from .harness.children import available_cpus
from .harness.figures import mean_and_error
from .harness.parts import WORKERS, run_parts
from .harness.printing import benchmark_parser, print_table, progress
from .harness.targets import Figure
from .harness.workers import run_jobs

__all__ = ["FIGURES", "PARTS", "distil_figures", "main", "prune_figures"]

PARTS: Final = ("prune", "distil", "serving")
#: Seeds of healing and of pairs in the short form and in the whole one.
_SEEDS: Final = (1, 3)
#: Iterations of pruning at most, in the same two: those that fail take longest.
_MOST: Final = (8, 16)

FIGURES: Final = (
    Figure(
        "prune_bandwidth_reduction",
        "prune",
        "share of the bytes that pruning and fewer bits save at one point of validation, the least of the runs",
        least=0.98,
        reference="0.974; BottleFit 0.77 at 0.6 points, another task",
        decimals=4,
    ),
    Figure(
        "prune_latency_reduction",
        "prune",
        "share of the time on the links that they save, modelled, the least of the runs",
        least=0.795,
        reference="0.794; 0.814 is the most",
        decimals=3,
    ),
    Figure(
        "distil_bandwidth_reduction",
        "distil",
        "share of the bytes that pairs save",
        least=0.993,
        reference="0.991; BottleNet++ 0.984 (64x) at 2 points, another task",
        decimals=4,
    ),
    Figure("distil_points", "distil", "points of the test part that this costs, mean", most=0.4),
    Figure(
        "beats_jpeg_points",
        "distil",
        "test points of the pairs over those of a usual JPEG of quality 50, at fewer bytes",
        least=5.0,
        reference="5",
    ),
    Figure("beats_best_jpeg_points", "distil", "the same over the best JPEG of as many bytes"),
    Figure("frozen_equal", "prune", "frozen arrays are the same bytes after each iteration and epoch", 1.0, decimals=0),
    Figure("rollback_equal", "prune", "what is rolled back is the same bytes again, every time", 1.0, decimals=0),
    Figure("swap_lost", "serving", "requests without an answer during swaps", most=0.0),
    Figure("swap_mixed", "serving", "answers that are not those of the version they name", most=0.0),
    Figure("swap_p99_ratio", "serving", "99th percentile of latency during swaps over steady", most=1.2),
    Figure(
        "latency_model_error", "serving", "|measured - modelled| over measured latency, unloaded", most=0.1, decimals=3
    ),
    Figure("pipeline_speedup", "serving", "median latency before over after, real processes", least=4.0),
)


@dataclass(frozen=True)
class _Call:
    """One job for a process: a function of this package, and what it is called with."""

    part: str
    function: Callable[[Any], dict[str, Any]]
    job: PruneJob | DistilJob


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also when a target is missed, 1 when a part could not be measured."""
    options = _parser().parse_args(arguments)
    chosen = [part for part in PARTS if part in (options.only or PARTS)]
    return run_parts(options, chosen, FIGURES, _measure, _print, ("flower-edge", "numpy", "torch", "Pillow"))


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser("fringe", "What fringe compression saves and keeps, and the same while serving.")
    parser.add_argument(
        "--only", action="append", choices=PARTS, default=[], help="measure this part; may be given again"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="N seeds in every part, to try something out")
    parser.add_argument("--base-seed", type=int, default=0, metavar="N", help="of pictures and base model; 0")
    parser.add_argument("--folder", help="of kept models; by default FLOWER_EDGE_CACHE or ~/.cache/flower-edge")
    return parser


def _measure(chosen: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if {"prune", "distil"} & set(chosen):
        if options.quick:
            found |= _trained(chosen, options, options.folder)
        else:  # the base model is a part of what is measured
            with tempfile.TemporaryDirectory(prefix="fringe-base-") as folder:
                found |= _trained(chosen, options, folder)
    if "serving" in chosen:
        from .fringe_serving import measure  # it needs what nothing else here needs

        progress("serving ...")
        found |= measure(options.quick)
    return found


def _trained(chosen: Sequence[str], options: argparse.Namespace, folder: str | None) -> dict[str, Any]:
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    progress("base model ...")
    base = base_model(options.base_seed, folder)
    if not base.accepted:
        low, high = ACCEPTED_PERCENT
        progress(f"base model: {base.test_percent:.2f} % on test, where {low:g} to {high:g} is what the task is for")
    seeds = range(options.seeds or _SEEDS[not options.quick])
    calls: list[_Call] = []
    if "prune" in chosen:
        most = _MOST[not options.quick]
        calls += [_Call("prune", run_prune, PruneJob(seed, options.base_seed, folder, most)) for seed in seeds]
    if "distil" in chosen:
        calls += [_Call("distil", run_distil, DistilJob(seed, options.base_seed, folder)) for seed in seeds]
    progress(f"{', '.join(part for part in chosen if part != 'serving')}: {len(calls)} runs ...")
    done = run_jobs(_done, calls, workers=min(WORKERS, available_cpus()), name=_named)
    of = {part: [row for call, row in zip(calls, done, strict=True) if call.part == part] for part in chosen}
    found = _base_figures(base, options.base_seed)
    if of.get("prune"):
        found |= {"prune": of["prune"]} | prune_figures(of["prune"])
    if of.get("distil"):
        found |= {"distil": of["distil"]} | distil_figures(base, parts(options.base_seed).test, of["distil"])
    rows = [row for part in of.values() for row in part]
    return found | {"frozen_equal": all(row["frozen_equal"] for row in rows)}


def _done(call: _Call) -> dict[str, Any]:
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    return call.function(call.job)


def _named(call: _Call) -> str:
    return str(call.job)


# -- figures ---------------------------------------------------------------------------------------------------------


def _base_figures(base: Base, seed: int) -> dict[str, Any]:
    return {
        "base_seed": seed,
        "base_test_percent": base.test_percent,
        "base_validation_percent": base.validation_percent,
        "base_accepted": base.accepted,
        "base_digest": base.digest,
        "W_bytes": list(plain_bytes()),
        "T_s": link_seconds(plain_bytes()),
        "best_latency_reduction": best_reduction(),
    }


def prune_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of all runs together."""
    return {
        "prune_bandwidth_reduction": min(row["bandwidth_reduction"] for row in rows),
        "prune_latency_reduction": min(row["latency_reduction"] for row in rows),
        "rollback_equal": all(row["rollback_equal"] for row in rows),
    }


def distil_figures(base: Base, test: Dataset, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of all runs together, beside JPEGs of the test pictures."""
    points, error = mean_and_error([row["points"] for row in rows])
    percent, _ = mean_and_error([row["test_percent"][1] for row in rows])
    jpegs = jpeg_rows(base.model, test, rows[0]["sent_bytes"][0])
    found = {
        "distil_bandwidth_reduction": min(row["bandwidth_reduction"] for row in rows),
        "distil_latency_reduction": min(row["latency_reduction"] for row in rows),
        "distil_points": points,
        "beats_jpeg_points": percent - jpegs["usual"]["test_percent"],
        "beats_best_jpeg_points": percent - jpegs["best"]["test_percent"],
        "jpeg": jpegs,
    }
    return found | ({"distil_points_se": error} if len(rows) > 1 else {})


# -- tables ----------------------------------------------------------------------------------------------------------


def _print(found: Mapping[str, Any]) -> None:
    if "base_digest" in found:
        print(
            f"base model, seed {found['base_seed']}: validation {found['base_validation_percent']:.2f} %, "
            f"test {found['base_test_percent']:.2f} %{'' if found['base_accepted'] else ', which is NOT accepted'}"
        )
        print(
            f"W = {found['W_bytes']} B, T = {1e3 * found['T_s']:.2f} ms; at most {found['best_latency_reduction']:.1%}"
        )
    columns = ("run", "bytes", "Eq. 1 %", "Eq. 2 %", "validation", "test", "parameters", "s")
    rows = [_row(part, one) for part in ("prune", "distil") for one in found.get(part, ())]
    if rows:
        print_table("compressed", columns, rows)
    for name, row in found.get("jpeg", {}).items():
        print(f"JPEG, {name}: quality {row['quality']}, {row['bytes']:.0f} B, {row['test_percent']:.2f} % of the test")


def _row(part: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    def change(key: str, form: str) -> str:
        return " -> ".join(format(value, form) for value in one[key])

    return (
        f"{part}, seed {one['seed']}",
        " + ".join(f"{size:,}" for size in one["sent_bytes"]),
        f"{100 * one['bandwidth_reduction']:.2f}",
        f"{100 * one['latency_reduction']:.1f}",
        change("validation_percent", ".2f"),
        change("test_percent", ".2f"),
        change("parameters", ","),
        f"{one['seconds_s']:.0f}",
    )


if __name__ == "__main__":
    sys.exit(main())
