"""A federation whose models depend on node, round and memory, and edges of it in threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy
from toy import toy_app

from flower_edge.clients import answer_properties
from flower_edge.errors import EdgeError
from flower_edge.runtime.bridge.caller import edge_status
from flower_edge.runtime.bridge.counting import stable_key
from flower_edge.runtime.bridge.host import EdgeHost, HostSettings
from flower_edge.runtime.bridge.messages import Status
from flower_edge.runtime.bridge.place import BridgePlace
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.local_grid import LocalGrid

TERMINALS = 6


def inner(cell: str) -> Strategy:
    """The strategy of every edge; it samples, so that seeds and orders matter."""
    return FedAvg(fraction_train=0.7, min_train_nodes=1, min_available_nodes=1, min_evaluate_nodes=1)


def terminal_app() -> ClientApp:
    """The toy, which tells its properties."""
    return answer_properties(toy_app())


def members(cell: int, cells: int = 2) -> list[dict[str, Any]]:
    """Node configs of a cell's terminals."""
    own = np.array_split(np.arange(TERMINALS), cells)[cell]
    return [{"partition-id": int(i), "num-partitions": TERMINALS} for i in own]


class RunningEdge:
    """An edge in a thread."""

    def __init__(self, host: EdgeHost, place: BridgePlace, grid: LocalGrid) -> None:
        self.host, self.place, self.grid = host, place, grid
        self.why: list[str] = []
        self.thread = threading.Thread(target=lambda: self.why.append(host.run()), daemon=True)

    def status(self) -> Status:
        """How things are at it."""
        return edge_status(self.place)

    def wait_until(self, holds: Callable[[Status], bool]) -> Status:
        """Until its status says so."""
        for _ in range(1200):
            try:
                if holds(now := self.status()):
                    return now
            except EdgeError:
                pass
            threading.Event().wait(0.05)
        raise AssertionError(f"{self.status()} after a minute")

    def end(self) -> None:
        """End it in good order; what it has said is on the disk before."""
        self.host.end()
        self.thread.join(60)
        assert not self.thread.is_alive()


@contextmanager
def edge_at(
    folder: Path,
    nodes: Sequence[dict[str, Any]],
    *,
    factory: Callable[[str], Strategy] = inner,
    settings: HostSettings | None = None,
    app: ClientApp | None = None,
    remembered: dict[str, Any] | None = None,
) -> Iterator[RunningEdge]:
    """An edge that listens in `folder`, its terminals on a `LocalGrid`, with what they remember of an earlier one."""
    with LocalGrid(app or terminal_app(), nodes) as grid:
        if remembered is not None:
            grid.load_state_dict(remembered)
        proxy = GridProxy(grid)
        place = BridgePlace(folder)
        quiet = HostSettings(alone_rounds=0)
        host = EdgeHost(place, factory, proxy, settings=settings or quiet, stable=stable_key(proxy))
        running = RunningEdge(host, place, grid)
        running.thread.start()
        running.wait_until(lambda status: True)
        try:
            yield running
        finally:
            if running.thread.is_alive():
                running.end()


@contextmanager
def two_edges(folder: Path, **options: Any) -> Iterator[list[RunningEdge]]:
    """Both edges of the federation, in `folder/edge-0` and `folder/edge-1`."""
    with ExitStack() as stack:
        yield [stack.enter_context(edge_at(folder / f"edge-{i}", members(i), **options)) for i in range(2)]


def edge_hosts(folder: Path) -> list[dict[str, Any]]:
    """Node configs of the SuperNodes of both edge hosts."""
    return [{"cell": f"edge-{i}", "bridge": str(folder / f"edge-{i}")} for i in range(2)]
