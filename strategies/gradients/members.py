"""`Members`: who takes part in a gradient exchange, and how far each of them is. Nothing here sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flwr.serverapp import Grid

from flower_edge.errors import ProtocolError

from ..gossip.environment import numbered

__all__ = ["Member", "Members"]


@dataclass
class Member:
    """One node.

    Attributes:
        version: how many updates its model has seen, as it confirmed last; -1 where that is not known.
        heard: 1 + the step of its last gradient that was used, 0 for none.
        fresh: whether its codec begins anew.
    """

    version: int = -1
    heard: int = 0
    fresh: bool = True


@dataclass
class Members:
    """All that were ever there, by their numbers.

    Attributes:
        numbers: by node id: its `partition-id`, or a number once given.
        known: what is known of each, by number.
    """

    numbers: dict[int, int] = field(default_factory=dict)
    known: dict[int, Member] = field(default_factory=dict)

    def present(self, grid: Grid) -> dict[int, int]:
        """Node ids of those that are on the Grid, by number, in the order of the numbers.

        Raises:
            ProtocolError: nobody is.
        """
        there = list(grid.get_node_ids())
        if not there:
            raise ProtocolError(
                "no node is on the grid; start the ClientApps, and wait for them: GridProxy(grid, expected_nodes=8)"
            )
        if any(node not in self.numbers for node in there):
            self.numbers |= numbered(grid, there, None, self.numbers)
        found = {self.numbers[node]: node for node in there}
        for number in found:
            self.known.setdefault(number, Member())
        return dict(sorted(found.items()))

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "numbers": [[node, number] for node, number in self.numbers.items()],
            "known": {str(number): asdict(member) for number, member in self.known.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Members:
        """Inverse of `state_dict`."""
        return cls(
            {int(node): int(number) for node, number in state["numbers"]},
            {int(number): Member(**member) for number, member in state["known"].items()},
        )
