"""Who is there for a round of pieces: terminals are asked what they have, and told apart from those that cannot help.

Nothing here seats or trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import getLogger

from flwr.serverapp import Grid

from flower_edge.rounds import Round
from flower_edge.runtime.pieces.messages import QUERY, PieceOffered
from flower_edge.runtime.splitting.messages import Asked
from flower_edge.splitting.budgets import History
from flower_edge.splitting.capacity import Capacity
from flower_edge.splitting.chain import Machine
from flower_edge.splitting.order import ArchitectureSpec

from ..gossip.environment import numbered
from ..hierarchy.cells import Cells
from ..splitting.enrolment import ask, capacity_of
from .records import PieceRecords
from .seating import Terminal

__all__ = ["Roll"]

log = getLogger("flwr.edge")


@dataclass
class Roll:
    """Of a run.

    Attributes:
        assumed: what a terminal has left where nobody has measured it.
        edges: which terminals belong to which edge; None: there are none.
        numbers: of every node that was ever there, by node id.
        known: names of edges that were ever there.
    """

    assumed: Capacity
    edges: Cells | None
    numbers: dict[int, int] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    def call(
        self, grid: Grid, round: int, architecture: ArchitectureSpec, records: PieceRecords, timeout_s: float
    ) -> tuple[list[Terminal], list[str] | None]:
        """Terminals that can train a piece now, in the order of their numbers, and the names of the edges.

        Args:
            grid: where they are.
            round: that comes.
            architecture: with its digest; who built another model takes no part.
            records: are told who does not take part, and why; what was measured before counts where nothing is offered.
            timeout_s: the most to wait for answers.
        """
        cells: Mapping[str, list[int]] | None = None
        if self.edges is not None:
            cells = {cell: list(nodes) for cell, nodes in self.edges(grid, Round(round)).items()}
            self.known |= set(cells)
        edge_of = {node: cell for cell, nodes in (cells or {}).items() for node in nodes}
        there = list(grid.get_node_ids())
        if any(node not in self.numbers for node in there):
            self.numbers |= numbered(grid, there, None, self.numbers)
        nodes = dict(sorted((self.numbers[node], node) for node in there if cells is None or node in edge_of))
        asked = Asked(least_samples=1, architecture=architecture, round=round)
        answers = ask(grid, nodes, asked, timeout_s, kind=QUERY, answer=PieceOffered)
        found = []
        for number, node in nodes.items():
            offered = answers.get(number)
            if not isinstance(offered, PieceOffered):
                why = "does not answer query.pieces; is its app made with pieces_client?"
            elif offered.digest != architecture.digest:
                why = offered.why or (
                    f"built a model with digest {offered.digest[:12]}, this run's is {architecture.digest[:12]}; give "
                    "pieces_client the same models=, and install the same flower-edge and torch on both sides"
                )
            else:
                capacity, _ = capacity_of(offered, records.histories.get(number, History()), self.assumed)
                machine = Machine(capacity.flops_per_s, capacity.memory_bytes, f"terminal {number}")
                edge = edge_of.get(node, "")
                found.append(Terminal(number, node, machine, offered.samples, offered.segments, edge))
                continue
            log.warning("\tround %d: terminal %d takes no part: it %s", round, number, why)
            records.tell("absent", f"round {round}: terminal {number} takes no part: it {why}", str(number))
        return found, None if cells is None else list(cells)
