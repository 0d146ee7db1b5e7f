"""A round of gradient exchanges on the round loop that all strategies share. Nothing here exchanges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid

from ..loop import FlatWork, RoundReport

if TYPE_CHECKING:
    from .exchange import GradientExchange

__all__ = ["GradientWork"]


@dataclass(frozen=True)
class GradientWork(FlatWork):
    """A flat strategy's round, with what happened in it."""

    strategy: GradientExchange

    def train(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """One round."""
        report = super().train(grid, number, arrays, config, timeout_s)
        report.events.extend(self.strategy.events())
        return report
