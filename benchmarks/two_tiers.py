"""A centre, edges and terminals as real processes on this machine, every part started by hand: SuperLinks and nodes.

For benchmarks and slow tests, on `split_deployment`. Nothing here measures or restarts.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from flower_edge.errors import EdgeError
from flower_edge.runtime.bridge.caller import edge_status
from flower_edge.runtime.bridge.messages import Status
from flower_edge.runtime.bridge.place import BridgePlace

from .split_deployment import CONNECTION, Deployment, deployment

__all__ = ["CENTRE_APP", "EDGE_APP", "TwoTiers", "config_text", "two_tiers"]

APPS: Final = Path(__file__).parent / "apps"
CENTRE_APP: Final = APPS / "tiers_centre"
EDGE_APP: Final = APPS / "tiers_edge"


def config_text(**values: bool | int | float | str) -> str:
    """As `flwr run --run-config` takes it: `config_text(edge_rounds=2)` is `edge-rounds=2`."""
    words = []
    for name, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else f"'{value}'" if isinstance(value, str) else str(value)
        words.append(f"{name.replace('_', '-')}={text}")
    return " ".join(words)


class TwoTiers:
    """A deployment whose first SuperLink is the centre's. Made by `two_tiers`."""

    def __init__(self, made: Deployment, terminals: Sequence[Sequence[int]], *, warm: bool, stock_poll: bool) -> None:
        self.made, self.terminals, self.warm, self.stock_poll = made, terminals, warm, stock_poll
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.superlinks: dict[str, subprocess.Popen[bytes]] = {}

    def place(self, edge: int) -> BridgePlace:
        """The bridge of an edge."""
        return BridgePlace(self.made.folder / f"bridge-{edge}")

    def status(self, edge: int) -> Status | None:
        """How an edge is, if it answers."""
        try:
            return edge_status(self.place(edge), within_s=2.0)
        except EdgeError:
            return None

    def start_superlinks(self, *, in_memory: bool = False) -> None:
        """Of the edges, their state in files unless it is to be in memory, as the centre's; all at once."""
        for edge in range(len(self.terminals)):
            name = f"edge-{edge}"
            database = None if in_memory else self.made.folder / f"{name}.db"
            self.superlinks[name] = self.made.add_superlink(name, database=database, wait=False)
        for edge in range(len(self.terminals)):
            self.made.wait_for(lambda name=f"edge-{edge}": self.made.healthy(name), 120.0, f"SuperLink {edge}")

    def start_terminal(self, partition: int, link: str, **more: Any) -> None:
        """A terminal's SuperNode at a SuperLink."""
        total = sum(map(len, self.terminals))
        config = config_text(partition_id=partition, num_partitions=total, **more)
        name = f"terminal-{partition}"
        self.nodes[name] = self.made.add_node(name, config, link=link, warm=self.warm)

    def start_host(self, edge: int, *, port: int | None = None) -> None:
        """An edge host's SuperNode at the centre; `port` where something is between."""
        config = config_text(cell=f"edge-{edge}", bridge=str(self.place(edge).folder))
        name = f"host-{edge}"
        self.nodes[name] = self.made.add_node(name, config, warm=self.warm, port=port)

    def start_edge(self, edge: int, **config: Any) -> None:
        """The run of an edge, on its SuperLink."""
        given = {
            "bridge": str(self.place(edge).folder), "terminals": len(self.terminals[edge]), "stock": self.stock_poll,
            "run_name": "tiers", **config,
        }  # fmt: skip
        self.made.run(EDGE_APP, config_text(**given), link=f"edge-{edge}")

    def wait_for_edges(self, seconds: float = 180.0) -> None:
        """Until all listen and have their terminals."""

        def ready(edge: int) -> bool:
            status = self.status(edge)
            return status is not None and status.state == "waiting" and status.terminals > 0

        for edge in range(len(self.terminals)):
            self.made.wait_for(lambda edge=edge: ready(edge), seconds, f"edge {edge}")

    def start_centre(self, report: Path, **config: Any) -> Path:
        """A run of the centre, which writes `report` after each round."""
        folder = report.with_suffix(".run")
        given = {"report": str(report), "folder": str(folder), "stock": self.stock_poll, "run_name": "tiers", **config}
        self.made.run(CENTRE_APP, config_text(**given), link=CONNECTION)
        return folder

    def report(self, path: Path) -> dict[str, Any]:
        """What a centre has written so far; nothing yet is `{}`."""
        return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}

    def wait_for_report(self, path: Path, seconds: float, rounds: int | None = None) -> dict[str, Any]:
        """What it wrote when it was done, or when so many rounds were."""

        def there() -> bool:
            told = self.report(path)
            return bool(told) and (bool(told["done"]) if rounds is None else told["rounds"] >= rounds)

        self.made.wait_for(there, seconds, f"{path.name} ({rounds or 'done'})")
        return self.report(path)


@contextmanager
def two_tiers(
    terminals: Sequence[Sequence[int]], *, warm: bool = True, stock_poll: bool = False, **edges: Any
) -> Iterator[TwoTiers]:
    """Everything started, the edges ready; the centre's run is left to start.

    Args:
        terminals: for each edge, the partitions of its terminals.
        warm: `flower-edge node` everywhere, else Flower's SuperNodes.
        stock_poll: look for replies as seldom as Flower does.
        edges: run config of the edges.

    Raises:
        LaunchError: something does not start.
    """
    with deployment([]) as made:
        tiers = TwoTiers(made, terminals, warm=warm, stock_poll=stock_poll)
        tiers.start_superlinks()
        for edge, partitions in enumerate(terminals):
            tiers.start_host(edge)
            for partition in partitions:
                tiers.start_terminal(partition, f"edge-{edge}")
        for edge in range(len(terminals)):
            tiers.start_edge(edge, **edges)
        tiers.wait_for_edges()
        yield tiers
