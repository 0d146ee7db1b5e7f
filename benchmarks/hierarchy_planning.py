"""What planning a round costs with very many registered terminals: who is where, who has moved, who takes part.

One planning round is, through the library's own entry points:

    coverage    `Coverage` looks where every terminal is (random waypoint) and which edge reaches it
    handover    what the layers of an edge know of a terminal that left goes to its new edge
    selection   at every edge `Selected` applies its rule to what terminals have told, scores them, and chooses

No message is sent and no model is trained. What terminals tell (battery, load, speed, uplink) and what replies taught
(loss, samples, duration) is there when the measurement begins, at the edge that reaches the terminal. This module is
also the `main` of the process that is measured, so that its memory is its own.
"""

from __future__ import annotations

import json
import math
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from flower_edge.coverage import ByPosition, RandomWaypoint, Regions
from flower_edge.rounds import Round
from flower_edge.runtime.wrapped_grid import WrappedGrid, announce
from flower_edge.selection import Experience, Oort, Pipeline
from flower_edge.strategies.coverage import Coverage
from flower_edge.strategies.layered import Layered
from flower_edge.strategies.selected import Selected

from .harness.children import run_measured
from .harness.printing import progress

__all__ = ["SIZES", "Plan", "measure_planning", "plan_rounds"]

#: Registered terminals; a cell for every hundred of them.
SIZES: Final = (25_000, 50_000, 100_000)
PER_CELL: Final = 100
#: A cell is about so wide; terminals walk, and stand now and then.
CELL_M: Final = 500.0
SPEED_MPS: Final = (0.5, 2.0)
PAUSE_S: Final = (0.0, 120.0)
ROUND_S: Final = 10.0
CHOSEN_PER_CELL: Final = 10
RULE: Final = "battery >= 0.3 and load < 0.8"
_ROOT: Final = Path(__file__).resolve().parents[1]
_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True)
class Plan:
    """What planning cost.

    Args:
        nodes, cells: how many.
        round_s: median seconds of a planning round.
        rounds_s: the rounds behind it.
        cpu_s: median seconds of processor time, which other programs on the same cores do not lengthen as much.
        coverage_s, handover_s, selection_s: medians of its parts.
        peak_bytes: the most memory the process ever held.
        moved: terminals that changed the edge, per round.
        chosen: terminals chosen, per round.
    """

    nodes: int
    cells: int
    round_s: float
    rounds_s: Sequence[float]
    cpu_s: float
    coverage_s: float
    handover_s: float
    selection_s: float
    peak_bytes: int
    moved: float
    chosen: float


class Registered(Grid):
    """A Grid that knows its nodes and what time it is, and sends nothing: what is planned on."""

    def __init__(self, nodes: int) -> None:
        self.nodes = list(range(nodes))
        self.now_s = 0.0

    def set_run(self, run: Any) -> None:
        """There is no run."""

    @property
    def run(self) -> Any:
        """There is no run."""
        return None

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message, as any Grid makes it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All of them."""
        return self.nodes

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Planning sends nothing."""
        raise AssertionError("planning sends nothing")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Planning sends nothing, so nothing comes back."""
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Planning sends nothing."""
        raise AssertionError("planning sends nothing")


class Shown(WrappedGrid):
    """The members of a cell, as the coverage has just found them."""

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self.nodes: list[int] = []

    def get_node_ids(self) -> Iterable[int]:
        """The members."""
        return self.nodes


class Planner:
    """A federation of that many terminals, before anybody trains."""

    def __init__(self, nodes: int, seed: int = 0) -> None:
        self.grid = Registered(nodes)
        cells = max(nodes // PER_CELL, 1)
        side_m = CELL_M * math.sqrt(cells)
        mobility = RandomWaypoint(nodes, (side_m, side_m), SPEED_MPS, PAUSE_S, seed)
        located = ByPosition(mobility, Regions.grid(cells, (side_m, side_m), margin_m=20.0))
        self.coverage = Coverage(located, key_of=lambda node: node)
        pipeline = Pipeline(CHOSEN_PER_CELL, eligible=RULE, score=Oort())
        layered = {
            cell: Layered(
                FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1),
                Selected(pipeline, seed=seed, conditions="none"),
            )
            for cell in located.cells
        }
        self.shown = {cell: Shown(self.grid) for cell in located.cells}
        self.edges = {cell: layered[cell].session(self.shown[cell])[1] for cell in located.cells}
        self.number = 0
        rng = np.random.default_rng(seed)
        told = {
            "battery": rng.uniform(size=nodes),
            "load": rng.uniform(size=nodes),
            "step_s": 0.01 * np.exp(rng.standard_normal(nodes)),
            "up_bps": 10 ** rng.uniform(6, 7.3, size=nodes),
        }
        learned = {
            "loss": rng.uniform(0.1, 2.3, size=nodes),
            "num_examples": rng.integers(20, 200, size=nodes).astype(float),
            "duration_s": rng.uniform(1, 30, size=nodes),
            "last_asked": np.ones(nodes),
            "last_round": np.ones(nodes),
            "picks": np.ones(nodes),
        }
        for cell, members in self.coverage(self.grid, Round(1)).items():
            ids = np.sort(np.array(members, np.int64))
            state = self.edges[cell].states[0]
            self.edges[cell].states[0] = replace(state, told=_known(told, ids), learned=_known(learned, ids), number=2)

    def plan(self) -> tuple[float, float, float, float, int, int]:
        """One round: seconds for coverage, handover, selection; processor seconds; terminals moved and chosen."""
        self.number += 1
        self.grid.now_s = self.number * ROUND_S
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        members = self.coverage(self.grid, Round(self.number))
        self.coverage.events()
        looked_s = time.perf_counter()
        moved = self.coverage.handed_over()
        for handover in moved:
            source, target = self.edges[handover.source], self.edges[handover.target]
            target.take_over(handover.node_id, source.hand_over(handover.node_id))
        handed_s = time.perf_counter()
        chosen = 0
        for cell, edge in self.edges.items():
            self.shown[cell].nodes = members[cell]
            announce(edge, Round(self.number, 1, cell))
            chosen += len(list(edge.get_node_ids()))
        end_s, cpu_s = time.perf_counter(), time.process_time() - begin_cpu_s
        return looked_s - begin_s, handed_s - looked_s, end_s - handed_s, cpu_s, len(moved), chosen


def _known(columns: dict[str, NDArray[Any]], ids: NDArray[np.int64]) -> Experience:
    return Experience(ids, {name: values[ids] for name, values in columns.items()})


def plan_rounds(nodes: int, rounds: int = 7) -> Plan:
    """Plan rounds in this process; the first is not counted."""
    planner = Planner(nodes)
    planner.plan()
    found = [planner.plan() for _ in range(rounds)]
    coverage_s, handover_s, selection_s, cpu_s, moved, chosen = zip(*found, strict=True)
    rounds_s = [sum(one[:3]) for one in found]
    return Plan(
        nodes=nodes,
        cells=len(planner.edges),
        round_s=statistics.median(rounds_s),
        rounds_s=rounds_s,
        cpu_s=statistics.median(cpu_s),
        coverage_s=statistics.median(coverage_s),
        handover_s=statistics.median(handover_s),
        selection_s=statistics.median(selection_s),
        peak_bytes=_peak_bytes(),
        moved=statistics.mean(moved),
        chosen=statistics.mean(chosen),
    )


def _peak_bytes() -> int:
    """The most memory this process ever held. On Linux `getrusage` also counts what its parent held when it forked."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text("utf-8"))
        if found is not None:
            return 1024 * int(found[1])
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest


def measure_planning(sizes: Sequence[int] = SIZES, *, rounds: int = 7) -> dict[str, Any]:
    """Plan in a process of its own for each size.

    Args:
        sizes: registered terminals; the last one is that of the figures.
        rounds: measured ones.

    Returns:
        `plan_100k_s` and `plan_100k_rss_mb`, of the last size, and `plan_growth`, with one object per size and the
        exponent with which seconds grow with terminals from the first size to the last.

    Raises:
        LaunchError: a process failed.
    """
    plans: dict[int, Plan] = {}
    with tempfile.TemporaryDirectory(prefix="fe-benchmark-") as name:
        for nodes in sizes:
            report = Path(name) / f"{nodes}.json"
            run_measured(
                [sys.executable, "-m", "benchmarks.hierarchy_planning", str(nodes), str(rounds), report],
                log=Path(name) / f"{nodes}.log",
                cwd=_ROOT,
                timeout_s=_TIMEOUT_S,
            )
            plans[nodes] = Plan(**json.loads(report.read_text("utf-8")))
            progress(f"    {nodes:,} terminals: {plans[nodes].round_s:.2f} s a round")
    first, last = plans[sizes[0]], plans[sizes[-1]]
    growth: dict[str, Any] = {str(nodes): asdict(plan) for nodes, plan in plans.items()}
    if last.nodes > first.nodes:
        growth["exponent"] = math.log(last.round_s / first.round_s) / math.log(last.nodes / first.nodes)
    return {"plan_100k_s": last.round_s, "plan_100k_rss_mb": last.peak_bytes / 1e6, "plan_growth": growth}


def main(arguments: Sequence[str]) -> int:
    """Plan and leave the figures in a file: number of terminals, number of rounds, the file."""
    nodes, rounds, report = arguments
    Path(report).write_text(json.dumps(asdict(plan_rounds(int(nodes), int(rounds)))), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
