"""A round of split learning on the round loop that all strategies share. Nothing here trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid

from flower_edge.rounds import Round

from ..flat_work import FlatWork
from ..round_work import RoundReport

if TYPE_CHECKING:
    from .split import Split

__all__ = ["SplitWork"]


@dataclass(frozen=True)
class SplitWork(FlatWork):
    """A flat strategy's round, and an end when the model is good enough."""

    strategy: Split

    def evaluate(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """One evaluation by the clients, where the model is a new one."""
        report = super().evaluate(grid, number, arrays, config, timeout_s)
        self.strategy.scored(report.metrics)
        return report

    def stop(self, round: Round) -> str | None:
        """The accuracy that was asked for is reached."""
        return self.strategy.reached()
