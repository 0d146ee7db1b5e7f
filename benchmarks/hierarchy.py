"""What tiers, coverage and selection bring and cost: every figure from the library's own path.

    python -m benchmarks.hierarchy [--quick] [--json] [--only PART]

Four parts: tiers (sample weights, HierFAVG), selection, mobility, planning. Accuracies and virtual times depend on
nothing but the seeds; only planning measures this machine. docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import logging
import signal
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Final

from flower_edge.errors import EdgeError

from .harness.children import available_cpus
from .harness.printing import benchmark_parser, print_json, print_table, progress, versions
from .harness.workers import run_jobs
from .hierarchy_data import images
from .hierarchy_mobility import MobilitySetting, mobility_figures, mobility_settings, run_seed
from .hierarchy_planning import measure_planning
from .hierarchy_selection import measure_selection
from .hierarchy_tiers import Setting, run_setting, tier_figures, tier_settings

__all__ = ["FIGURES", "PARTS", "Figure", "main", "verdicts"]

PARTS: Final = ("tiers", "selection", "mobility", "planning")
_WORKERS: Final = 2


@dataclass(frozen=True)
class Figure:
    """One figure and what it should be.

    Args:
        key: its name in the JSON object.
        part: the part that measures it.
        meaning: what it is, in words.
        least, most: what it should be at least or at most; a figure without either is there to compare with.
    """

    key: str
    part: str
    meaning: str
    least: float | None = None
    most: float | None = None

    @property
    def target(self) -> str:
        """In words; empty without one."""
        if self.least is not None:
            return f"at least {self.least:g}"
        return "" if self.most is None else f"at most {self.most:g}"

    def reached(self, value: float) -> bool:
        """Whether a value is as it should be."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


FIGURES: Final = (
    Figure(
        "weighted_minus_equal_points", "tiers", "points of accuracy that weighing edges by samples brings", least=15.0
    ),
    Figure("cloud_round_ratio_iid", "tiers", "cloud rounds to 85 %, (60,1) over (6,10), edge-IID", least=3.5),
    Figure("cloud_round_ratio_noniid", "tiers", "the same, edge-non-IID"),
    Figure("best_selection_time_ratio", "selection", "time to 80 % of the best selector over random, uneven", most=0.6),
    Figure("homogeneous_worst_time_ratio", "selection", "the same of the worst default where all are equal", most=1.05),
    Figure("handover_gap_points", "mobility", "points of accuracy lost by moving, handover on", most=1.0),
    Figure("no_handover_gap_points", "mobility", "the same, handover off"),
    Figure("plan_100k_s", "planning", "seconds to plan a round of 100,000 terminals in 1,000 cells", most=1.0),
    Figure("plan_100k_cpu_s", "planning", "seconds of processor time in it"),
    Figure("plan_100k_rss_mb", "planning", "MB of memory it takes", most=1000.0),
)


def verdicts(found: Mapping[str, Any]) -> list[str]:
    """One line per figure: what it is, its target, and plainly whether it was reached or missed.

    >>> found = {"handover_gap_points": 0.52, "handover_gap_points_se": 0.3, "plan_100k_s": 2.0}
    >>> [line for line in verdicts(found) if "not measured" not in line][0]
    'handover_gap_points = 0.52 ± 0.30 (points of accuracy lost by moving, handover on; target at most 1): reached'
    >>> [line.rsplit(" ", 1)[1] for line in verdicts(found) if "not measured" not in line]
    ['reached', 'MISSED']
    """
    lines = []
    for figure in FIGURES:
        value, error = found.get(figure.key), found.get(f"{figure.key}_se")
        if value is None:
            lines.append(f"{figure.key}: not measured (part {figure.part})")
            continue
        said = f"{figure.key} = {value:.2f}" + ("" if error is None else f" ± {error:.2f}")
        if not figure.target:
            lines.append(f"{said} ({figure.meaning})")
            continue
        verdict = "reached" if figure.reached(value) else "MISSED"
        lines.append(f"{said} ({figure.meaning}; target {figure.target}): {verdict}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also when a target is missed, 1 when a part could not be measured."""
    options = _parser().parse_args(arguments)
    parts = [part for part in PARTS if part in (options.only or PARTS)]
    begin_s = time.monotonic()
    try:
        found = _measure(parts, quick=options.quick)
    except (EdgeError, BrokenProcessPool) as error:
        progress(f"error: {error}")
        return 1
    except KeyboardInterrupt as interrupt:
        progress("interrupted; everything that was started is stopped")
        return 128 + int(interrupt.args[0] if interrupt.args else signal.SIGINT)
    if options.json:
        print_json(
            {
                **found,
                "targets": {
                    figure.key: figure.most if figure.least is None else figure.least
                    for figure in FIGURES
                    if figure.target
                },
                "parts": parts,
                "took_s": time.monotonic() - begin_s,
                "cpus": min(_WORKERS, available_cpus()),
                "quick": bool(options.quick),
                "versions": versions("flower-edge", "flwr", "numpy"),
            }
        )
        return 0
    if "tiers" in found:
        _print_tiers(found["tiers"])
    if "selection" in found:
        _print_selection(found["selection"])
    if "mobility" in found:
        _print_mobility(found["mobility"])
    if "plan_growth" in found:
        _print_planning(found["plan_growth"])
    print(*verdicts(found), sep="\n")
    print(f"took {time.monotonic() - begin_s:.0f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser("hierarchy", "What tiers, coverage and selection bring and cost.")
    parser.add_argument(
        "--only", action="append", choices=PARTS, default=[], help="measure this part; may be given again"
    )
    return parser


# -- the parts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Selection:
    quick: bool

    def measured(self) -> dict[str, Any]:
        return dict(measure_selection(self.quick, progress))


_Job = Setting | MobilitySetting | _Selection


def _done(job: _Job) -> Any:
    """One job, in whatever process."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    if isinstance(job, _Selection):
        return job.measured()
    return run_setting(job) if isinstance(job, Setting) else run_seed(job)


def _named(job: _Job) -> str:
    if isinstance(job, _Selection):
        return "selection"
    return f"tiers: {job.name}, seed {job.seed}" if isinstance(job, Setting) else f"mobility: seed {job.seed}"


def _measure(parts: Sequence[str], *, quick: bool) -> dict[str, Any]:
    tiers = tier_settings(quick=quick) if "tiers" in parts else []
    mobility = mobility_settings(quick=quick) if "mobility" in parts else []
    # The longest first, so that no worker is left alone with it.
    jobs: list[_Job] = [*([_Selection(quick)] if "selection" in parts else []), *mobility, *tiers]
    figures: dict[str, Any] = {}
    if jobs:
        images()  # a folder without the data is told now, and not by the first of many processes
        progress(f"{', '.join(part for part in parts if part != 'planning')}: {len(jobs)} jobs ...")
        results = run_jobs(_done, jobs, workers=min(_WORKERS, available_cpus()), name=_named)
        done = dict(zip(jobs, results, strict=True))
        if tiers:
            figures |= tier_figures({setting: done[setting] for setting in tiers})
        if "selection" in parts:
            figures |= done[_Selection(quick)]
        if mobility:
            figures |= mobility_figures({setting: done[setting] for setting in mobility})
    if "planning" in parts:
        progress("planning, alone on the machine ...")
        figures |= measure_planning()
    return figures


# -- tables ----------------------------------------------------------------------------------------------------------


def _print_tiers(tiers: Mapping[str, Any]) -> None:
    rows = [
        [
            name,
            " ".join(
                str(count) if reached else f">{count - 1}"
                for count, reached in zip(told["cloud_rounds_to_85"], told["reached_85"], strict=True)
            ),
            f"{100 * statistics.mean(told['accuracy_after_1200_steps']):.1f}",
            f"{statistics.mean(told['mean_divergence']):.3f}" if told["mean_divergence"] else "-",
        ]
        for name, told in tiers.items()
    ]
    head = ["layout (κ1,κ2)", "to 85 %", "% in the end", "divergence"]
    print_table("cloud rounds to 85 % by seed; means of accuracy and divergence", head, rows)


def _print_selection(selection: Mapping[str, Any]) -> None:
    late = selection["late_accuracy"]
    rows = [
        [
            name,
            f"{told['time_s']:.1f} s",
            f"{told['time_ratio']:.2f} ± {told['time_ratio_se']:.2f}",
            f"{equal['time_ratio']:.2f} ± {equal['time_ratio_se']:.2f}",
            f"{100 * late[name]['accuracy']:.1f}",
        ]
        for name, told in selection["heterogeneous"].items()
        if (equal := selection["homogeneous"][name])
    ]
    head = ["selector", "to 80 %", "over random", "all equal", "% late"]
    print_table("virtual time to 80 %, devices uneven; over random's; the same, all equal", head, rows)
    for line in selection["loses"]:
        print(f"behind: {line}")


def _print_mobility(mobility: Mapping[str, Any]) -> None:
    rows = [
        [
            arm,
            f"{statistics.mean(told['accuracy_percent']):.1f}",
            f"{statistics.mean(told['cloud_rounds']):.1f}",
            f"{statistics.mean(happened.get('exited', 0) for happened in told['happened']):.1f}",
            f"{told['steps_lost_percent']:.1f}",
        ]
        for arm, told in mobility.items()
        if isinstance(told, Mapping) and "accuracy_percent" in told
    ]
    head = ["terminals", "% accuracy", "cloud rounds", "exits in training", "% steps lost"]
    print_table("by the same virtual time, means over seeds", head, rows)


def _print_planning(growth: Mapping[str, Any]) -> None:
    rows = [
        [
            f"{plan['nodes']:,}",
            *(f"{1000 * plan[name]:,.0f} ms" for name in ("round_s", "cpu_s", "cells_s", "edges_s", "delivered_s")),
            f"{plan['moved']:,.0f}",
            f"{plan['peak_bytes'] / 1e6:,.0f} MB",
        ]
        for plan in growth.values()
        if isinstance(plan, Mapping)
    ]
    head = ["planning", "a round", "CPU", "centre", "edges", "with orders", "moved", "memory"]
    print_table("terminals, 100 in a cell", head, rows)


if __name__ == "__main__":
    sys.exit(main())
