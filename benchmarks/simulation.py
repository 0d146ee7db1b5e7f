"""What a simulation itself costs: `LocalGrid` beside Flower's own simulation on Ray, with clients that do nothing.

    python -m benchmarks.simulation [--quick] [--json]

Both sides run the same ClientApp and the same measuring code on the same processor cores, one after the other.
docs/benchmarks.md says what each figure means and what it does not.
"""

from __future__ import annotations

import argparse
import itertools
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from flower_edge.errors import LaunchError

from .harness.children import available_cpus
from .harness.printing import benchmark_parser, print_json, print_table, progress, versions
from .simulation_sides import Case, Figures, measure_local, measure_ray

__all__ = ["FULL_ONLY", "QUICK", "RATIOS", "Ratio", "main", "ratios", "verdicts"]

#: Measured rounds of each kind. Few where one takes long: Ray needs half a minute for a round of 100 x 10 M.
QUICK: Final = (Case(10, 60_000, rounds=7), Case(10, 10_000_000, rounds=5), Case(100, 60_000, rounds=7))
FULL_ONLY: Final = (Case(100, 10_000_000, rounds=3), Case(1000, 60_000, rounds=3))

_CPUS: Final = 2
_TIMEOUT_S: Final = 1800.0


@dataclass(frozen=True)
class Ratio:
    """One figure of Ray's over the same of LocalGrid's.

    Args:
        key: its name in the JSON object.
        case: the case it is taken from.
        figure: the figure's field in `Figures`.
        target: what it should be at least.
        meaning: what is compared, in words.
    """

    key: str
    case: str
    figure: str
    target: float
    meaning: str


RATIOS: Final = (
    Ratio("message_overhead_ratio_100", "100x60k", "message_s", 20.0, "seconds per round of messages alone"),
    Ratio("round_ratio_10m_10", "10x10M", "round_s", 5.0, "seconds per FedAvg round"),
    Ratio("memory_ratio_10m_100", "100x10M", "peak_bytes", 10.0, "peak memory"),
)


def ratios(local: Mapping[str, Figures], ray: Mapping[str, Figures]) -> dict[str, float]:
    """Those of `RATIOS` whose case was measured, by key."""
    return {
        ratio.key: getattr(ray[ratio.case], ratio.figure) / getattr(local[ratio.case], ratio.figure)
        for ratio in RATIOS
        if ratio.case in local and ratio.case in ray
    }


def verdicts(found: Mapping[str, float]) -> list[str]:
    """One line per ratio: what it is, its target, and plainly whether it was reached or missed.

    >>> print(*verdicts({"round_ratio_10m_10": 4.0}), sep="\\n")
    message_overhead_ratio_100: not measured (needs 100x60k)
    round_ratio_10m_10 = 4.0 (seconds per FedAvg round at 10x10M; target at least 5): MISSED
    memory_ratio_10m_100: not measured (needs 100x10M)
    """
    lines = []
    for ratio in RATIOS:
        if ratio.key in found:
            verdict = "reached" if found[ratio.key] >= ratio.target else "MISSED"
            what = f"{ratio.meaning} at {ratio.case}; target at least {ratio.target:g}"
            lines.append(f"{ratio.key} = {found[ratio.key]:.1f} ({what}): {verdict}")
        else:
            lines.append(f"{ratio.key}: not measured (needs {ratio.case})")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 also when a target is missed, 1 when a side could not be measured."""
    options = _parser().parse_args(arguments)
    cases = _chosen(options.only, options.rounds) or [*QUICK, *(() if options.quick else FULL_ONLY)]
    cpus = min(_CPUS, available_cpus())
    begin_s = time.monotonic()
    try:
        local, ray = _measure(cases, cpus)
    except LaunchError as error:
        progress(f"error: {error}")
        return 1
    except KeyboardInterrupt as interrupt:
        progress("interrupted; everything that was started is stopped")
        return 128 + int(interrupt.args[0] if interrupt.args else signal.SIGINT)
    found = ratios(local, ray)
    if options.json:
        print_json(
            {
                **found,
                "targets": {ratio.key: ratio.target for ratio in RATIOS},
                "local": {name: asdict(figures) for name, figures in local.items()},
                "ray": {name: asdict(figures) for name, figures in ray.items()},
                "start_s": {"local": _start_s(local), "ray": _start_s(ray)},
                "took_s": time.monotonic() - begin_s,
                "cpus": cpus,
                "quick": bool(options.quick),
                "versions": versions("flower-edge", "flwr", "ray", "numpy"),
            }
        )
        return 0
    _print_table(cases, local, ray, cpus)
    print(*verdicts(found), sep="\n")
    print(f"took {time.monotonic() - begin_s:.0f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = benchmark_parser(
        "simulation",
        "What a simulation itself costs: LocalGrid beside Flower's Ray simulation, clients that do nothing.",
    )
    parser.add_argument(
        "--only",
        action="append",
        type=_case,
        default=[],
        metavar="NODESxPARAMETERS",
        help="measure this instead, such as 10x60k or 4x1M; may be given again",
    )
    parser.add_argument("--rounds", type=_at_least_1, default=3, help="measured rounds with --only (default 3)")
    return parser


def _case(text: str) -> Case:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)([kM])", text)
    if match is None or int(match[1]) < 2:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 2 nodes or more and parameters in k or M, such as 10x60k")
    return Case(int(match[1]), int(match[2]) * {"k": 1000, "M": 1_000_000}[match[3]], rounds=1)


def _at_least_1(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, 1 or more")
    return int(text)


def _chosen(only: Sequence[Case], rounds: int) -> list[Case]:
    return [Case(case.nodes, case.parameters, rounds) for case in dict.fromkeys(only)]


def _measure(cases: Sequence[Case], cpus: int) -> tuple[dict[str, Figures], dict[str, Figures]]:
    local: dict[str, Figures] = {}
    ray: dict[str, Figures] = {}
    ordered = sorted(cases, key=lambda case: (case.nodes, case.parameters))
    with tempfile.TemporaryDirectory(prefix="fe-benchmark-") as name:
        folder = Path(name)
        for _, group in itertools.groupby(ordered, key=lambda case: case.nodes):
            same_nodes = list(group)
            for case in same_nodes:
                progress(f"{case.name} on LocalGrid ...")
                local[case.name] = measure_local(case, cpus=cpus, folder=folder, timeout_s=_TIMEOUT_S)
                progress(f"    {_said(local[case.name])}")
            progress(f"{', '.join(case.name for case in same_nodes)} on Ray, one `flwr run` ...")
            measured = measure_ray(same_nodes, cpus=cpus, folder=folder, timeout_s=_TIMEOUT_S)
            for case, figures in zip(same_nodes, measured, strict=True):
                ray[case.name] = figures
                progress(f"    {case.name}: {_said(figures)}")
    return local, ray


def _start_s(figures: Mapping[str, Figures]) -> float:
    return statistics.median(one.start_s for one in figures.values())


def _said(figures: Figures) -> str:
    return f"messages {_ms(figures.message_s)}, FedAvg round {_ms(figures.round_s)}, {_mb(figures.peak_bytes)}"


def _print_table(cases: Sequence[Case], local: Mapping[str, Figures], ray: Mapping[str, Figures], cpus: int) -> None:
    rows = []
    for case in cases:
        ours, theirs = local[case.name], ray[case.name]
        for what, figure, said in (
            ("messages", "message_s", _ms),
            ("FedAvg round", "round_s", _ms),
            ("peak memory", "peak_bytes", _mb),
        ):
            one, other = getattr(ours, figure), getattr(theirs, figure)
            rows.append([f"{case.name} {what}", said(one), said(other), f"{other / one:.1f}"])
    print_table(f"clients that give back what they get, {cpus} cores", ["", "LocalGrid", "Ray", "ratio"], rows)
    print(f"until the first round: LocalGrid {_start_s(local):.1f} s, Ray {_start_s(ray):.1f} s")


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.1f} ms"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
