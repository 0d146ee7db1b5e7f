"""Ready-made strategies for people who want one name. Compositions of what is elsewhere; nothing here has a logic.

To change a part, write the composition that the class names in its first line, with another part in its place.
"""

from __future__ import annotations

from typing import Any

from flwr.serverapp.strategy import FedAvg

from .coverage.coverage import Coverage
from .coverage.covered import Covered
from .hierarchy.cells import Cells
from .hierarchy.hierarchical import Hierarchical
from .layered import Layered

__all__ = ["CoverageFedAvg", "HierarchicalFedAvg"]


class HierarchicalFedAvg(Hierarchical):
    """`Hierarchical(edge=lambda cell: FedAvg(**fedavg_options), cells=cells, edge_rounds=…, seed=…)`.

    Args:
        cells: which nodes belong to which edge: `blocks(5)`, `by_property("cell")`, or a function of your own.
        edge_rounds: rounds of every edge per round of the centre.
        seed: see `Hierarchical`.
        fedavg_options: of Flower's `FedAvg`, the same at every edge.

    >>> from .hierarchy.cells import blocks
    >>> HierarchicalFedAvg(blocks(2), edge_rounds=3, fraction_train=0.5).edge_rounds
    3
    """

    def __init__(self, cells: Cells, edge_rounds: int = 1, seed: int | None = None, **fedavg_options: Any) -> None:
        FedAvg(**fedavg_options)  # refuses what it does not know, now and not in the first round
        super().__init__(lambda cell: FedAvg(**fedavg_options), cells=cells, edge_rounds=edge_rounds, seed=seed)


class CoverageFedAvg(Hierarchical):
    """`Hierarchical(edge=lambda cell: Layered(FedAvg(**fedavg_options), Covered(coverage)), cells=coverage, …)`.

    Args:
        coverage: which terminals each edge reaches now.
        edge_rounds: rounds of every edge per round of the centre.
        seed: see `Hierarchical`.
        idle_s: what a round in which no edge has enough terminals lets pass; `None` raises `RoundFailed` instead.
        fedavg_options: of Flower's `FedAvg`, the same at every edge. An edge with fewer terminals than its minimums
            (2, where nothing else is said) is skipped.

    What happens to a terminal that leaves in mid-training is decided on the Grid:
    `SteppedGrid(clock, 10, decide=MidRound(coverage))`.
    """

    def __init__(
        self,
        coverage: Coverage,
        edge_rounds: int = 1,
        seed: int | None = None,
        idle_s: float | None = None,
        **fedavg_options: Any,
    ) -> None:
        super().__init__(
            lambda cell: Layered(FedAvg(**fedavg_options), Covered(coverage)),
            cells=coverage,
            edge_rounds=edge_rounds,
            seed=seed,
            idle_s=idle_s,
        )
