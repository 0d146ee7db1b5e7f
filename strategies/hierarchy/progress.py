"""Where a run of `Hierarchical` is: κ2 now, the version of the model, which edges are at work. Values; nothing acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord

from flower_edge.monitoring.attendance import Attendance

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
        attended: in how many rounds each edge was asked and counted, and why it last did not count, by cell.
        under_way: what each edge under way is doing, by cell.
        versions: the models of those versions.
    """

    edge_rounds: int
    lowest: float | None = None
    version: int = 0
    done: int = 0
    done_by_cell: dict[str, int] = field(default_factory=dict)
    attended: dict[str, Attendance] = field(default_factory=dict)
    under_way: dict[str, UnderWay] = field(default_factory=dict)
    versions: dict[int, ArrayRecord] = field(default_factory=dict)

    def attend(self, cell: str, *, counted: bool, why: str) -> None:
        """An edge was asked in a round."""
        before = self.attended.get(cell) or Attendance(cell, 0, 0)
        why = before.why if counted else why
        self.attended[cell] = Attendance(cell, before.asked + 1, before.counted + counted, why)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs. Edges under way are not part of it."""
        return {
            "edge_rounds": self.edge_rounds,
            "lowest": self.lowest,
            "version": self.version,
            "done": self.done,
            "done_by_cell": dict(self.done_by_cell),
            "attended": {cell: [one.asked, one.counted, one.why] for cell, one in self.attended.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.edge_rounds, self.lowest = state["edge_rounds"], state["lowest"]
        self.version, self.done = state["version"], state["done"]
        self.done_by_cell = dict(state["done_by_cell"])
        self.attended = {cell: Attendance(cell, *numbers) for cell, numbers in state.get("attended", {}).items()}
        self.under_way, self.versions = {}, {}
