"""Who works: those that are likely to keep their connection to the edge server, as measured.

[1] ¶35: the server collects data on the devices it is in touch with and selects a subset as workers. Nothing here
trains, or knows of links between workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.serverapp import Grid

from flower_edge.errors import ConfigError, NotEnoughNodes
from flower_edge.runtime.queries import AVAILABLE, ask_nodes

__all__ = ["MostStable"]


@dataclass(frozen=True)
class MostStable:
    """Asks every node a few times and takes those that answer most reliably.

    Nodes answer with `flower_edge.clients.answer_availability` (an answer of any content counts).

    Args:
        count: how many workers.
        probes: how often each node is asked.
        least: share of the questions that a worker must have answered.
        timeout_s: the most an answer may take.
        every_s: pause between two probes; a connection that drops now and then is seen only over some time.
        sleep: waits the pause.

    Raises:
        ConfigError: a number out of range.
    """

    count: int
    probes: int = 5
    least: float = 0.6
    timeout_s: float = 30.0
    every_s: float = 0.0
    sleep: Callable[[float], object] = time.sleep

    def __post_init__(self) -> None:
        if self.count < 1 or self.probes < 1:
            raise ConfigError(f"MostStable(count={self.count}, probes={self.probes}): expected 1 or more of both")
        if not 0 <= self.least <= 1 or self.timeout_s <= 0 or self.every_s < 0:
            raise ConfigError(
                f"MostStable(least={self.least}, timeout_s={self.timeout_s}, every_s={self.every_s}): expected a share "
                "from 0 to 1, more than 0 s, and 0 s or more"
            )

    def __call__(self, grid: Grid, nodes: Sequence[int]) -> list[int]:
        """The workers among `nodes`, in their order.

        Raises:
            NotEnoughNodes: fewer than `count` answered well enough; tells how well each did.
        """
        answered = self.measure(grid, nodes)
        good = [node for node in nodes if answered[node] >= max(1, self.least * self.probes)]
        if len(good) < self.count:
            told = ", ".join(f"{node}: {count}" for node, count in answered.items())
            raise NotEnoughNodes(
                f"{len(good)} of {len(nodes)} nodes answered at least {self.least:.0%} of {self.probes} probes, "
                f"{self.count} workers are wanted (answers by node: {told}); put answer_availability(app) into the "
                "ClientApp, or ask for fewer"
            )
        place = {node: k for k, node in enumerate(nodes)}
        best = sorted(good, key=lambda node: (-answered[node], place[node]))
        return sorted(best[: self.count], key=place.__getitem__)

    def measure(self, grid: Grid, nodes: Sequence[int]) -> dict[int, int]:
        """How many of the probes each node answered."""
        answered = dict.fromkeys(nodes, 0)
        for probe in range(self.probes):
            if probe and self.every_s:
                self.sleep(self.every_s)
            for node in ask_nodes(grid, nodes, AVAILABLE, timeout_s=self.timeout_s):
                answered[node] += 1
        return answered
