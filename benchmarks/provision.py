"""What models of several sizes, hyperparameter reports and shared data bring: every figure from the library's own path.

    python -m benchmarks.provision [--quick] [--json] [--only PART] [--seeds N]

Four parts: width (five widths in one model against the whole one for all, MNIST's 10,000, IID and two classes a
terminal), time (virtual time to 95 % where devices are unequal), hyper (reports from a learning rate that is ten times
off) and sharing (five per cent of the data in common, one class a terminal). Everything depends on nothing but the
seeds. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .harness.children import available_cpus
from .harness.figures import mean_and_error
from .harness.parts import WORKERS, run_parts
from .harness.printing import benchmark_parser, print_table, progress
from .harness.targets import Figure
from .harness.workers import run_jobs
from .hierarchy_data import data_folder
from .provision_sharing import sharing_figures
from .provision_time import run_time, time_figures, time_jobs
from .provision_tuning import BAD_STARTS, hyper_gain_points
from .provision_width import run_width, width_figures, width_jobs

__all__ = ["FIGURES", "PARTS", "main"]

PARTS: Final = ("width", "time", "hyper", "sharing")
#: Seeds in the short form and in the whole one.
_SEEDS: Final[Mapping[str, tuple[int, int]]] = {"width": (1, 3), "time": (1, 3), "hyper": (5, 5), "sharing": (3, 3)}

FIGURES: Final = (
    Figure(
        "iid_gap_points",
        "width",
        "points that five widths are behind the whole model for all, IID",
        most=1.0,
        reference="0.24 in Flower's reproduction of HeteroFL",
    ),
    Figure("noniid_gap_points", "width", "the same, two classes a terminal", most=2.5, reference="0.37 there"),
    Figure(
        "mean_param_fraction",
        "width",
        "parameters a terminal trains in the mean, over the whole model's",
        most=0.3,
        reference="0.27 there",
        decimals=3,
    ),
    Figure(
        "assigned_time_ratio",
        "time",
        "virtual time to 95 %, a size for each class of devices over the whole model for all",
        most=0.5,
        decimals=3,
    ),
    Figure(
        "assigned_over_best_single_ratio", "time", "the same over the best single size that reaches 95 %", decimals=3
    ),
    Figure(
        "hyper_gain_points", "hyper", "points that reports gain from a learning rate ten times too small", least=0.0
    ),
    Figure("sharing_gain_points", "sharing", "points that 5 % of the data in common bring", least=7.0, reference="8.1"),
)


@dataclass(frozen=True)
class _Call:
    """One job for a process: a function of this package, and what it is called with."""

    part: str
    function: Callable[[Any], Any]
    job: Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also when a target is missed, 1 when a part could not be measured."""
    options = _parser().parse_args(arguments)
    parts = [part for part in PARTS if part in (options.only or PARTS)]
    return run_parts(options, parts, FIGURES, _measure, _print, ("flower-edge", "flwr", "numpy", "torch"))


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser("provision", "What sizes of a model, hyperparameter reports and shared data bring.")
    parser.add_argument(
        "--only", action="append", choices=PARTS, default=[], help="measure this part; may be given again"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="N seeds in every part, to try something out")
    return parser


# -- the parts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Hyper:
    """Reports against none, from one start on one seed."""

    start: str
    seed: int

    def __str__(self) -> str:
        return f"learning rate too {self.start}, seed {self.seed}"


@dataclass(frozen=True)
class _Sharing:
    """Shares of the data on one seed."""

    shares: tuple[float, ...]
    seed: int

    def __str__(self) -> str:
        return f"{', '.join(f'{share:.1%}' for share in self.shares)} shared, seed {self.seed}"


def _run_hyper(job: _Hyper) -> float:
    # A learning rate that is far too large loses the model in the first round, reports or not, where nothing looks.
    return hyper_gain_points(BAD_STARTS[job.start], [job.seed], gated=job.start == "high")


def _run_sharing(job: _Sharing) -> dict[str, float]:
    return sharing_figures(data_folder(), [job.seed], job.shares)


def _done(call: _Call) -> tuple[Any, float]:
    """One job, in whatever process, and the seconds of a processor that it took."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    begin_s = time.process_time()
    result = call.function(call.job)
    return result, time.process_time() - begin_s


def _named(call: _Call) -> str:
    return f"{call.part}: {call.job}"


def _calls(parts: Sequence[str], options: argparse.Namespace) -> list[_Call]:
    calls: list[_Call] = []
    if "width" in parts:
        calls += [_Call("width", run_width, job) for job in width_jobs(_seeds("width", options), options.quick)]
    if "time" in parts:
        calls += [_Call("time", run_time, job) for job in time_jobs(_seeds("time", options), options.quick)]
    if "sharing" in parts:
        shares = (0.0, 0.05) if options.quick else (0.0, 0.01, 0.025, 0.05)
        calls += [_Call("sharing", _run_sharing, _Sharing(shares, seed)) for seed in _seeds("sharing", options)]
    if "hyper" in parts:
        starts = ["low"] if options.quick else list(BAD_STARTS)
        jobs = [_Hyper(start, seed) for start in starts for seed in _seeds("hyper", options)]
        calls += [_Call("hyper", _run_hyper, job) for job in jobs]
    return calls


def _seeds(part: str, options: argparse.Namespace) -> range:
    short, whole = _SEEDS[part]
    return range(options.seeds or (short if options.quick else whole))


def _measure(parts: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    if {"width", "time", "sharing"} & set(parts):
        data_folder()  # a folder without the data is told now
    calls = _calls(parts, options)
    # All parts in one row: at its end, nobody waits for the last run of each.
    progress(f"{', '.join(parts)}: {len(calls)} runs ...")
    done = run_jobs(_done, calls, workers=min(WORKERS, available_cpus()), name=_named)
    of: dict[str, dict[Any, Any]] = {part: {} for part in parts}
    cpu_s = dict.fromkeys(parts, 0.0)
    for call, (result, seconds) in zip(calls, done, strict=True):
        of[call.part][call.job] = result
        cpu_s[call.part] += seconds
    figures: dict[str, Any] = {"cpu_s_by_part": cpu_s}
    if "width" in parts:
        figures |= width_figures(of["width"])
    if "time" in parts:
        figures |= time_figures(of["time"])
    if "hyper" in parts:
        figures |= _hyper_figures(of["hyper"])
    if "sharing" in parts:
        figures |= _sharing_figures(of["sharing"])
    return figures


def _hyper_figures(gains: Mapping[_Hyper, float]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for start in dict.fromkeys(job.start for job in gains):
        key = "hyper_gain_points" if start == "low" else f"hyper_gain_points_{start}"
        mine = [gain for job, gain in gains.items() if job.start == start]
        found[key], found[f"{key}_se"] = mean_and_error(mine)
    return found


def _sharing_figures(runs: Mapping[_Sharing, Mapping[str, float]]) -> dict[str, Any]:
    columns = {key: [run[key] for run in runs.values()] for key in next(iter(runs.values()))}
    found: dict[str, Any] = {key: mean_and_error(values)[0] for key, values in columns.items()}
    found["sharing_gain_points_se"] = mean_and_error(columns["sharing_gain_points"])[1]
    found["sharing_gain_points_least"] = min(columns["sharing_gain_points_least"])
    return found


# -- tables ----------------------------------------------------------------------------------------------------------


def _print(found: Mapping[str, Any]) -> None:
    if "width" in found:
        rows = [
            [
                f"{row['split']}, {'-'.join(row['sizes'])}, {row['how']}",
                f"{row['accuracy']:.2f} ± {row['accuracy_se']:.2f}",
                f"{row['gap_points']:.2f} ± {row['gap_points_se']:.2f}",
                f"{row['param_fraction']:.3f}",
            ]
            for row in found["width"]
        ]
        print_table("accuracy of the whole model", ["run", "%", "behind all-a", "parameters"], rows)
    if "time" in found:
        rows = [
            [
                "-".join(sizes) + (" (assigned)" if sizes == found["time"]["assigned"] else ""),
                f"{of['time_s']:.1f} ± {of['time_s_se']:.1f}" if not of["not_reached"] else "not reached",
                f"{of['rounds']:.1f}",
                f"{of['round_s']:.2f}",
                f"{of['last_accuracy']:.1f}",
            ]
            for sizes, of in found["time"]["sizes"].items()
        ]
        print_table("virtual time to 95 %", ["sizes, quickest first", "s", "rounds", "s a round", "last %"], rows)


if __name__ == "__main__":
    sys.exit(main())
