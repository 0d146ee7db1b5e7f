"""The two sides of `benchmarks.simulation`, each in a process tree of its own so that its memory is its own.

    local   one child process with a `LocalGrid`; one model size
    ray     one child process that launches `flwr run`; any number of model sizes on one federation

Run by `benchmarks.simulation`, which watches the memory; this module is also the children's `main`.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .harness.children import Measured, pin_to_cpus, run_measured

if TYPE_CHECKING:  # the process that watches needs no Flower
    from .apps.noop_federation.fe_noop_federation.rounds import SizeReport

__all__ = ["Case", "Figures", "measure_local", "measure_ray"]

_ROOT: Final = Path(__file__).resolve().parents[1]
_APP: Final = Path(__file__).resolve().parent / "apps" / "noop_federation"


@dataclass(frozen=True)
class Case:
    """One size of federation and model.

    >>> Case(100, 60_000, rounds=5).name
    '100x60k'
    """

    nodes: int
    parameters: int
    rounds: int

    @property
    def name(self) -> str:
        """Nodes x parameters, short."""
        millions, rest = divmod(self.parameters, 1_000_000)
        return f"{self.nodes}x{self.parameters // 1000}k" if rest else f"{self.nodes}x{millions}M"


@dataclass(frozen=True)
class Figures:
    """What was measured of one case on one side.

    Args:
        message_s: median seconds of a round of messages without aggregation.
        round_s: median seconds of a whole FedAvg round.
        peak_bytes: the most memory the process tree held.
        start_s: seconds from the start of the process to the start of the measurement, all nodes being there.
        message_rounds_s: the rounds behind `message_s`.
        fedavg_rounds_s: the rounds behind `round_s`.
    """

    message_s: float
    round_s: float
    peak_bytes: int
    start_s: float
    message_rounds_s: Sequence[float]
    fedavg_rounds_s: Sequence[float]

    @classmethod
    def of(cls, report: SizeReport, *, peak_bytes: int, start_s: float) -> Figures:
        """Medians of a report."""
        return cls(
            message_s=statistics.median(report["message_rounds_s"]),
            round_s=statistics.median(report["fedavg_rounds_s"]),
            peak_bytes=peak_bytes,
            start_s=start_s,
            message_rounds_s=report["message_rounds_s"],
            fedavg_rounds_s=report["fedavg_rounds_s"],
        )


def measure_local(case: Case, *, cpus: int, folder: Path, timeout_s: float) -> Figures:
    """Measure one case on a `LocalGrid` in a fresh process.

    Its memory is the larger of what was sampled and what the kernel noted as its highest: a sample may miss the peak
    of rounds that take milliseconds.

    Raises:
        LaunchError: the child failed or took longer than `timeout_s`.
    """
    report, measured = _measure("local", case.nodes, [case], cpus, folder, timeout_s)
    peak_bytes = max(measured.peak_bytes(), report["highest_bytes"])
    size: SizeReport = report["sizes"][0]
    return Figures.of(size, peak_bytes=peak_bytes, start_s=size["begin_s"] - measured.begin_s)


def measure_ray(cases: Sequence[Case], *, cpus: int, folder: Path, timeout_s: float) -> list[Figures]:
    """Measure cases of one number of nodes, smallest model first, in one `flwr run`.

    The process that launches `flwr run` is not counted in the memory, only what it starts.

    Raises:
        LaunchError: the run failed or took longer than `timeout_s`.
    """
    report, measured = _measure("ray", cases[0].nodes, cases, cpus, folder, timeout_s)
    sizes: list[SizeReport] = report["sizes"]
    start_s = sizes[0]["begin_s"] - measured.begin_s
    return [
        Figures.of(size, peak_bytes=measured.peak_bytes(size["begin_s"], size["end_s"]), start_s=start_s)
        for size in sizes
    ]


def _measure(
    side: str, nodes: int, cases: Sequence[Case], cpus: int, folder: Path, timeout_s: float
) -> tuple[dict[str, Any], Measured]:
    name = "-".join([side, *(case.name for case in cases)])
    report_path = folder / f"{name}.json"
    order = {
        "side": side,
        "nodes": nodes,
        "sizes": [[case.parameters, case.rounds] for case in cases],
        "cpus": cpus,
        "report": str(report_path),
        "runs": str(folder / "runs"),
    }
    measured = run_measured(
        [sys.executable, "-m", "benchmarks.simulation_sides", json.dumps(order)],
        log=folder / f"{name}.log",
        cwd=_ROOT,
        timeout_s=timeout_s,
        count_itself=side == "local",
    )
    report: dict[str, Any] = json.loads(report_path.read_text("utf-8"))
    return report, measured


# -- in the child ----------------------------------------------------------------------------------------------------


def _local(order: dict[str, Any]) -> int:
    from flower_edge.runtime import LocalGrid

    from .apps.noop_federation.fe_noop_federation.client_app import app
    from .apps.noop_federation.fe_noop_federation.rounds import measure_sizes

    with LocalGrid(app, nodes=order["nodes"], seed=0) as grid:
        sizes = measure_sizes(grid, order["nodes"], [(parameters, rounds) for parameters, rounds in order["sizes"]])
    Path(order["report"]).write_text(json.dumps({"sizes": sizes, "highest_bytes": _highest_bytes()}), "utf-8")
    return 0


def _ray(order: dict[str, Any]) -> int:
    from flower_edge.runtime.launching.launcher import launch

    logging.basicConfig()
    result = launch(
        _APP,
        run_config={
            "nodes": order["nodes"],
            "parameters": ",".join(str(parameters) for parameters, _ in order["sizes"]),
            "rounds": ",".join(str(rounds) for _, rounds in order["sizes"]),
            "report": order["report"],
        },
        num_supernodes=order["nodes"],
        client_cpus=1,
        total_cpus=order["cpus"],
        runs=order["runs"],
        on_line=lambda line: print(line, flush=True),
    )
    print(f"the run {result.status} {result.details}".rstrip(), flush=True)
    return result.exit_code


def _highest_bytes() -> int:
    """The most memory this process ever held, as the kernel noted it; 0 where it does not tell (not Linux)."""
    status = Path("/proc/self/status")
    lines = status.read_text("utf-8").splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _main(order: dict[str, Any]) -> int:
    pin_to_cpus(order["cpus"])
    return {"local": _local, "ray": _ray}[order["side"]](order)


if __name__ == "__main__":
    sys.exit(_main(json.loads(sys.argv[1])))
