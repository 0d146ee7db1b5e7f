"""`MovingWork`: what terminals that move have under way, and what an edge still has to get from them.

Handovers that nobody has fetched yet, updates that are to come later, and what was credited in this cycle. Terminals
are known by their index. Nothing here looks where anybody is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from .handover import Handover

__all__ = ["MovingWork"]


class MovingWork:
    """The ledger of one `Coverage`."""

    def __init__(self) -> None:
        self._handovers: list[Handover] = []
        self._cycles: dict[str, int] = {}
        self._credit: dict[int, tuple[str, int, float]] = {}
        self._detached: list[tuple[int, str, int]] = []

    def cycle(self, cell: str, cloud_round: int) -> None:
        """A cell is in this cloud round now."""
        self._cycles[cell] = cloud_round

    def credited(self, index: int, cell: str, cloud_round: int, examples: float) -> None:
        """An edge has merged a terminal's update; the last one of a cycle is the one that counts."""
        self._credit[index] = (cell, cloud_round, examples)

    def moved(self, index: int, node_id: int, source: str, target: str, time_s: float) -> Handover:
        """A terminal has changed the edge, idle as far as is known here."""
        cell, cloud_round, examples = self._credit.get(index, ("", 0, 0.0))
        credited = examples if cell == source and cloud_round == self._cycles.get(cell) else 0.0
        self._handovers.append(Handover(str(index), node_id, source, target, time_s, credited=credited))
        return self._handovers[-1]

    def carries(self, index: int, node_id: int, target: str, time_s: float, **work: Any) -> Handover:
        """It carries work of the cell named in `work["job"]`: its handover says so, a new one if that was fetched."""
        source = str(work["job"]).rpartition("/")[0]
        for at in range(len(self._handovers) - 1, -1, -1):
            if self._handovers[at].node_id == node_id and self._handovers[at].source == source:
                break
        else:
            self.moved(index, node_id, source, target, time_s)
            at = -1
        self._handovers[at] = replace(self._handovers[at], **work)
        return self._handovers[at]

    def fetch(self) -> list[Handover]:
        """Handovers since the last call, in the order of time."""
        fetched, self._handovers = self._handovers, []
        return fetched

    def detached(self, index: int, cell: str, server_round: int) -> None:
        """A terminal trains on out of reach; its update of that round of that cell is to come later."""
        self._detached.append((index, cell, server_round))

    def returned(self, index: int, cell: str, server_round: int) -> None:
        """That update has come."""
        self._detached = [entry for entry in self._detached if entry != (index, cell, server_round)]

    def give_up(self, cell: str, before_round: int) -> list[tuple[int, int]]:
        """What is still to come from a cell's rounds before this one is not waited for any more.

        Returns:
            The terminals and rounds it was to come from.
        """
        gone = [entry for entry in self._detached if entry[1] == cell and entry[2] < before_round]
        self._detached = [entry for entry in self._detached if entry not in gone]
        return [(index, server_round) for index, _, server_round in gone]

    def to_come(self, cell: str) -> set[int]:
        """Rounds of a cell from which updates are still to come."""
        return {server_round for _, of, server_round in self._detached if of == cell}

    def cells_of(self, index: int) -> set[str]:
        """Cells that still have to get an update from a terminal."""
        return {cell for row, cell, _ in self._detached if row == index}

    def state_dict(self) -> dict[str, Any]:
        """All of it, in plain values."""
        return {
            "handovers": [asdict(handover) for handover in self._handovers],
            "cycles": dict(self._cycles),
            "credit": [[index, *credit] for index, credit in self._credit.items()],
            "detached": [list(entry) for entry in self._detached],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._handovers = [Handover(**handover) for handover in state["handovers"]]
        self._cycles = dict(state["cycles"])
        self._credit = {index: (cell, cloud, examples) for index, cell, cloud, examples in state["credit"]}
        self._detached = [(int(index), str(cell), int(number)) for index, cell, number in state["detached"]]
