"""`Known`: what selections know of terminals, laid out for whoever decides about terminals besides them.

A desk between two parts of one process: an edge's selection lays out what it knows after every change, and a rule on a
substitute reads it. What lies on it belongs to the selections, whose states are checkpointed and laid out again; the
desk neither learns nor asks, and keeps nothing of its own.

[4] ¶29 and ¶36: who takes the place of a terminal has to satisfy the standard that was set for those chosen.
"""

from __future__ import annotations

import numpy as np

from .estimates import Job, known_of
from .experience import Experience

__all__ = ["Known"]


class Known:
    """What each edge knows of its terminals, in the columns that a pipeline chooses by. One for every run.

    >>> known = Known()
    >>> known.lay_out("west", Experience(), Experience().noted("battery", {7: 0.9}), Job())
    >>> known(7), known(8), known.of(7, "east")
    ({'battery': 0.9, 'picks': 0.0}, {}, {})
    """

    def __init__(self) -> None:
        self._edges: dict[str, tuple[Experience, Experience, Job]] = {}

    def lay_out(self, cell: str, learned: Experience, told: Experience, job: Job) -> None:
        """What the edge of a cell knows now, in place of what it knew before; `""` is a federation without edges."""
        self._edges[cell] = learned, told, job

    def __call__(self, node: int) -> dict[str, float | str]:
        """What is known of a node at whichever edge knows it: one at most, where what is known is handed over.

        Where edges hand nothing over and several know the node it is the first of them by name; `of` asks one edge.
        Empty where nobody knows it.
        """
        return next((row for cell in sorted(self._edges) if (row := self.of(node, cell))), {})

    def of(self, node: int, cell: str) -> dict[str, float | str]:
        """What the edge of this cell knows of a node (`""` where there are no edges); empty for a stranger."""
        learned, told, job = self._edges.get(cell, (Experience(), Experience(), Job()))
        if node not in learned and node not in told:
            return {}
        return known_of(np.array([node], np.uint64), learned, told, job).row(0)

    def __repr__(self) -> str:
        return f"Known({', '.join(sorted(self._edges))})"
