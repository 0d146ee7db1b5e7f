"""`Round`: which round this is, for everybody who is told. Nothing here counts or decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Kind", "Round"]

Kind = Literal["train", "evaluate", "query"]


@dataclass(frozen=True)
class Round:
    """One exchange of messages, at the centre or inside a cell.

    Attributes:
        cloud: the round at the centre, from 1; 0 before the first.
        edge: the edge round inside that cloud round, from 1; 0 where the centre itself is talking.
        cell: name of the cell; empty where there is only one federation.
        kind: what the messages ask for.

    >>> str(Round(cloud=3, edge=2, cell="edge-1", kind="train"))
    'round 3.2, cell edge-1, train'
    """

    cloud: int
    edge: int = 0
    cell: str = ""
    kind: Kind = "train"

    def __str__(self) -> str:
        number = f"{self.cloud}.{self.edge}" if self.edge else f"{self.cloud}"
        return ", ".join(part for part in (f"round {number}", self.cell and f"cell {self.cell}", self.kind) if part)
