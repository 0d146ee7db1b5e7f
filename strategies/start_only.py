"""`StartOnly`: a strategy that brings its own loop, and refuses to be driven by somebody else's.

Flower's wrappers call `configure_train` of the strategy inside them. A strategy that works at the Grid, which only its
`start` can wrap, would silently do nothing there; so these hooks raise, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import NestingError

__all__ = ["StartOnly"]


class StartOnly(Strategy):
    """Base of strategies that only their own `start` can run."""

    #: What is wrong about a wrapper around this class, and what to write instead.
    right_nesting: ClassVar[str]

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Refused."""
        raise NestingError(self.right_nesting)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Refused."""
        raise NestingError(self.right_nesting)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Refused."""
        raise NestingError(self.right_nesting)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Refused."""
        raise NestingError(self.right_nesting)
