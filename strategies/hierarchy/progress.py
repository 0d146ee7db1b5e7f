"""Where a run of `Hierarchical` is: κ2 now, the version of the model, which edges are at work. Values; nothing acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord

__all__ = ["Progress", "UnderWay"]


@dataclass(frozen=True)
class UnderWay:
    """An edge at work: the version it began from, its address, and the real time at which it was asked."""

    version: int
    node: int
    begun_s: float


@dataclass
class Progress:
    """Where a run of `Hierarchical` is.

    Attributes:
        edge_rounds: κ2 now.
        lowest: the divergence `LowerEdgeRounds` compares with.
        version: how many models the centre has merged.
        done: edge rounds so far; where the centre does not wait, by cell.
        under_way: what each edge under way is doing, by cell.
        versions: the models of those versions.
    """

    edge_rounds: int
    lowest: float | None = None
    version: int = 0
    done: int = 0
    done_by_cell: dict[str, int] = field(default_factory=dict)
    under_way: dict[str, UnderWay] = field(default_factory=dict)
    versions: dict[int, ArrayRecord] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs. Edges under way are not part of it."""
        return {
            "edge_rounds": self.edge_rounds,
            "lowest": self.lowest,
            "version": self.version,
            "done": self.done,
            "done_by_cell": dict(self.done_by_cell),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.edge_rounds, self.lowest = state["edge_rounds"], state["lowest"]
        self.version, self.done = state["version"], state["done"]
        self.done_by_cell = dict(state["done_by_cell"])
        self.under_way, self.versions = {}, {}
