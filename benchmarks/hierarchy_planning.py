"""What planning a round costs with very many registered terminals: who is where, who has moved, who takes part.

One planning round is what `CellTier` and its edges do before the messages of a round are made:

    cells   the centre: `CellTier.cells`. `Coverage` looks where every terminal is (random waypoint) and which edge
            reaches it; what the layers of an edge know of a terminal that left goes to its new edge; what happened
            is told
    edges   every edge, one after the other: the round is announced on its Grid, which looks up who is there, and it
            asks for its nodes. `Covered` narrows to its cell; `Selected` applies its rule to what terminals have told,
            scores them and chooses

That is measured by itself, and once more as `CellTier.deliver` does it, with the orders of the centre to its edges and
their answers around it. No message to a terminal is made and no model is trained. What terminals tell (battery, load,
speed, uplink) and what replies taught (loss, samples, duration) is there when the measurement begins, at the edge that
reaches the terminal. This module is also the `main` of the process that is measured, so that its memory is its own.
"""

from __future__ import annotations

import json
import logging
import math
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy
from numpy.typing import NDArray

from flower_edge.coverage import ByPosition, RandomWaypoint, Regions
from flower_edge.rounds import Round
from flower_edge.runtime.edge_messages import EDGE_RECORD, edge_order
from flower_edge.runtime.flower_private import drop_identity, ensure_identity
from flower_edge.runtime.wrapped_grid import announce
from flower_edge.selection import Experience, Oort, Pipeline
from flower_edge.strategies.coverage.coverage import Coverage
from flower_edge.strategies.coverage.covered import Covered
from flower_edge.strategies.hierarchy.cell_tier import CellTier
from flower_edge.strategies.layered import Layered, LayeredGrid
from flower_edge.strategies.selected import Selected
from flower_edge.wire import record_of

from .harness.children import run_measured
from .harness.printing import progress

__all__ = ["SIZES", "Plan", "Planner", "Registered", "measure_planning", "plan_rounds"]

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
        cells_s, edges_s: medians of its parts.
        delivered_s: median seconds of a round through `CellTier.deliver`.
        first_s: seconds of the first round, which makes the edges and is not among the others.
        peak_bytes: the most memory the process ever held.
        moved: terminals that changed the edge, per round.
        chosen: terminals chosen, per round.
    """

    nodes: int
    cells: int
    round_s: float
    rounds_s: Sequence[float]
    cpu_s: float
    cells_s: float
    edges_s: float
    delivered_s: float
    first_s: float
    peak_bytes: int
    moved: float
    chosen: float


class Registered(Grid):
    """A Grid that knows its nodes and what time it is, and sends nothing: what is planned on.

    Args:
        nodes: how many; their ids are drawn, as a SuperLink draws them, and their order is that of the terminals.
        seed: of the ids.
    """

    def __init__(self, nodes: int, seed: int = 0) -> None:
        # No two are the same: each has its place in the lower bits.
        drawn = np.random.default_rng(seed).integers(1, 2**41, size=nodes, dtype=np.uint64) << np.uint64(23)
        self.nodes: list[int] = (drawn + np.arange(nodes, dtype=np.uint64)).tolist()
        self.partition_of = {node: index for index, node in enumerate(self.nodes)}
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
        """All of them, listed anew, as a SuperLink lists them."""
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Planning sends nothing.

        Raises:
            AssertionError: something was to be sent.
        """
        if list(messages):
            raise AssertionError("planning sends nothing")
        return []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Planning sends nothing, so nothing comes back."""
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Planning sends nothing.

        Raises:
            AssertionError: something was to be sent.
        """
        self.push_messages(messages)
        return []


class Planned(FedAvg):
    """FedAvg up to its messages: it asks twice who is there, as FedAvg does, and takes all it is shown."""

    def __init__(self) -> None:
        super().__init__(min_train_nodes=1, min_available_nodes=1)
        self.shown: list[int] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Who would be sent a message; nobody is."""
        list(grid.get_node_ids())
        self.shown = list(grid.get_node_ids())
        return []


class Seen(Layered):
    """`Layered` that keeps its session, so that what is known beforehand can be put there."""

    strategy: Planned
    layered: LayeredGrid

    def session(self, grid: Grid) -> tuple[Strategy, LayeredGrid]:
        """As `Layered`."""
        strategy, self.layered = super().session(grid)
        return strategy, self.layered


class Planner:
    """A federation of that many terminals, before anybody trains.

    Args:
        nodes: terminals.
        seed: of everything that is drawn.
    """

    def __init__(self, nodes: int, seed: int = 0) -> None:
        self.grid = Registered(nodes, seed)
        cells = max(nodes // PER_CELL, 1)
        side_m = CELL_M * math.sqrt(cells)
        mobility = RandomWaypoint(nodes, (side_m, side_m), SPEED_MPS, PAUSE_S, seed)
        located = ByPosition(mobility, Regions.grid(cells, (side_m, side_m), margin_m=20.0))
        self.coverage = Coverage(located, key_of=self.grid.partition_of.__getitem__)
        pipeline = Pipeline(CHOSEN_PER_CELL, eligible=RULE, score=Oort())
        self.edges = {
            cell: Seen(Planned(), Covered(self.coverage), Selected(pipeline, seed=seed, conditions="none"))
            for cell in located.cells
        }
        self.tier = CellTier(self.edges.__getitem__, self.coverage)
        self.model = record_of({"w": np.zeros(1000, np.float32)})
        self.number = 0
        self.first_s = self._begin(seed)

    def _begin(self, seed: int) -> float:
        """Make the edges and tell them what they are to know; seconds of the first round, but for the telling."""
        self.tier.begin(recorded=False)
        nodes, rng = len(self.grid.nodes), np.random.default_rng(seed)
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
        begin_s = time.perf_counter()
        self._cells()
        looked_s = time.perf_counter()
        for cell, edge in self.edges.items():
            ids = np.sort(np.array(self.coverage.members(cell), np.uint64))
            rows = np.array([self.grid.partition_of[node] for node in ids.tolist()], np.int64)
            states = edge.layered.states
            states[1] = replace(states[1], told=_known(told, ids, rows), learned=_known(learned, ids, rows), number=1)
        told_s = time.perf_counter()
        self._edges()
        return looked_s - begin_s + time.perf_counter() - told_s

    def plan(self) -> tuple[float, float, float, int, int]:
        """One round: seconds of the centre, of the edges, of the processor; terminals handed over and chosen."""
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        self._cells()
        happened = self.tier.events()
        looked_s = time.perf_counter()
        chosen = self._edges()
        end_s, cpu_s = time.perf_counter(), time.process_time() - begin_cpu_s
        moved = sum(event.what == "handed-over" for event in happened)
        return looked_s - begin_s, end_s - looked_s, cpu_s, moved, chosen

    def deliver(self) -> float:
        """One round as the centre gives it; seconds.

        Raises:
            AssertionError: an edge could not plan.
        """
        begin_s = time.perf_counter()
        orders = [self._order(cell, address) for cell, address in self._cells().items()]
        replies = self.tier.deliver(self.grid, orders, _TIMEOUT_S)
        end_s = time.perf_counter()
        for reply in replies:
            if reply.has_error():
                raise AssertionError(f"an edge could not plan: {reply.error.reason}")
        return end_s - begin_s

    def _cells(self) -> Mapping[str, int]:
        self.number += 1
        self.grid.now_s = self.number * ROUND_S
        return self.tier.cells(self.grid, Round(self.number))

    def _edges(self) -> int:
        chosen = 0
        for cell, edge in self.edges.items():
            announce(edge.layered, Round(self.number, 1, cell))
            chosen += len(list(edge.layered.get_node_ids()))
        return chosen

    def _order(self, cell: str, address: int) -> Message:
        config = ConfigRecord({"server-round": self.number})
        order = edge_order(cell, self.number, self.number, 1, _TIMEOUT_S, None)
        return Message(RecordDict({"arrays": self.model, "config": config, EDGE_RECORD: order}), address, "train")


def _known(columns: dict[str, NDArray[Any]], ids: NDArray[np.uint64], rows: NDArray[np.int64]) -> Experience:
    return Experience(ids, {name: values[rows] for name, values in columns.items()})


def plan_rounds(nodes: int, rounds: int = 7) -> Plan:
    """Plan rounds in this process; the first two are not counted."""
    given = ensure_identity(1)  # as in a ServerApp, or no message could be made
    try:
        planner = Planner(nodes)
        planner.plan()
        found = [planner.plan() for _ in range(rounds)]
        delivered_s = [planner.deliver() for _ in range(rounds)]
    finally:
        if given:
            drop_identity()
    cells_s, edges_s, cpu_s, moved, chosen = zip(*found, strict=True)
    rounds_s = [sum(one[:2]) for one in found]
    return Plan(
        nodes=nodes,
        cells=len(planner.edges),
        round_s=statistics.median(rounds_s),
        rounds_s=rounds_s,
        cpu_s=statistics.median(cpu_s),
        cells_s=statistics.median(cells_s),
        edges_s=statistics.median(edges_s),
        delivered_s=statistics.median(delivered_s),
        first_s=planner.first_s,
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
        `plan_100k_s`, `plan_100k_cpu_s` and `plan_100k_rss_mb`, of the last size, and `plan_growth`, with one object
        per size and the exponent with which seconds grow with terminals from the first size to the last.

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
            progress(f"    {nodes:,} terminals: {plans[nodes].round_s:.2f} s a round, {plans[nodes].cpu_s:.2f} s CPU")
    first, last = plans[sizes[0]], plans[sizes[-1]]
    growth: dict[str, Any] = {str(nodes): asdict(plan) for nodes, plan in plans.items()}
    if last.nodes > first.nodes:
        growth["exponent"] = math.log(last.round_s / first.round_s) / math.log(last.nodes / first.nodes)
    return {
        "plan_100k_s": last.round_s,
        "plan_100k_cpu_s": last.cpu_s,
        "plan_100k_rss_mb": last.peak_bytes / 1e6,
        "plan_growth": growth,
    }


def main(arguments: Sequence[str]) -> int:
    """Plan and leave the figures in a file: number of terminals, number of rounds, the file."""
    nodes, rounds, report = arguments
    logging.getLogger("flwr").setLevel(logging.ERROR)
    Path(report).write_text(json.dumps(asdict(plan_rounds(int(nodes), int(rounds)))), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
