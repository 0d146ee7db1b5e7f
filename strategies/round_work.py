"""`Work`: what a round of the loop is made of, and `RoundReport`: what a phase of it brought. Nothing here runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import NobodyAdmitted
from flower_edge.events import Event
from flower_edge.monitoring.links import LinkTable
from flower_edge.rounds import Round

__all__ = ["RoundReport", "Work"]


@dataclass
class RoundReport:
    """What one phase of a round brought.

    Attributes:
        arrays: the model to go on with, `None` to keep the one before.
        metrics: aggregated metrics of the clients, if any.
        counts: numbers of nodes, messages, bits, recorded as they are.
        cells: the same for each cell.
        traffic: what layers inside the cells measured in this round so far, by cell.
        events: things worth telling.
        refused: why nothing of what came was merged, where every reply was refused.
        links: links between nodes as they are now, by cell, "" where there are no cells; empty where nobody knows any.
    """

    arrays: ArrayRecord | None = None
    metrics: MetricRecord | None = None
    counts: dict[str, float] = field(default_factory=dict)
    cells: dict[str, dict[str, float]] = field(default_factory=dict)
    traffic: dict[str, dict[str, float]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    refused: NobodyAdmitted | None = None
    links: Mapping[str, LinkTable] = field(default_factory=dict)


class Work(Protocol):
    """What a round is made of."""

    @property
    def strategy(self) -> Strategy:
        """Whose state a checkpoint holds, and whose summary is logged."""
        ...

    def train(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """Train once from `arrays`."""
        ...

    def adopted(self, before: ArrayRecord, after: ArrayRecord) -> None:
        """The layers have seen the merge: `after` goes on, which is `before` itself where they refused it."""
        ...

    def evaluate(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """Let the clients evaluate `arrays`."""
        ...

    def stop(self, round: Round) -> str | None:
        """A reason of its own to end the training after this round, or `None`."""
        ...
