"""`PiecePlane`: how frames travel between the pieces of a chain, via the server. Which way they take changes no model.

A plane carries some chains to the end of their round, or to where a terminal of theirs is lost. It neither seats nor
merges: what becomes of a chain that lost a terminal is decided elsewhere, see `reseating`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt
from flwr.app import Message

from flower_edge.pieces.order import PieceOrder
from flower_edge.runtime.pieces.messages import PieceCall, PieceReport
from flower_edge.splitting.profile import ModelProfile

__all__ = ["Carried", "ChainTask", "MakeMessage", "PiecePlane", "PieceTask"]

Arrays = Mapping[str, npt.NDArray[Any]]
#: Messages of one exchange; replies come back, those that came.
Carried = Generator[list[Message], Sequence[Message], None]


@dataclass
class PieceTask:
    """One terminal's piece in one attempt at a round, and what became of it.

    Attributes:
        node: Flower's id of the terminal, in this run.
        number: its number.
        call: without what the plane adds.
        arrays, optimiser: what it begins from.
        head, head_optimiser: of the classifier behind it; empty where it has none.
        report: its last.
        done: it made all steps, and the four below are what it ended with.
        lost: why it cannot go on; empty where it can. Only of a terminal that is at fault itself: the others of its
            chain are neither lost nor done.
        up_bits, down_bits: of frames it sent and got, as counted at the server.
    """

    node: int
    number: int
    call: PieceCall
    arrays: Arrays
    optimiser: Arrays
    head: Arrays = field(default_factory=dict)
    head_optimiser: Arrays = field(default_factory=dict)
    report: PieceReport | None = None
    done: bool = False
    new_arrays: Arrays = field(default_factory=dict)
    new_optimiser: Arrays = field(default_factory=dict)
    new_head: Arrays = field(default_factory=dict)
    new_head_optimiser: Arrays = field(default_factory=dict)
    lost: str = ""
    up_bits: int = 0
    down_bits: int = 0

    @property
    def order(self) -> PieceOrder:
        """Of its piece."""
        return self.call.piece


@dataclass
class ChainTask:
    """One chain in one attempt at a round.

    Attributes:
        number: of the chain; of its data, that is.
        tasks: by place.
        profile: of the model, for coders.
    """

    number: int
    tasks: list[PieceTask]
    profile: ModelProfile

    @property
    def lost(self) -> list[int]:
        """Places whose terminals cannot go on."""
        return [place for place, task in enumerate(self.tasks) if task.lost]

    @property
    def done(self) -> bool:
        """Every piece is."""
        return all(task.done for task in self.tasks)


#: Makes a Flower message for a task from a call and further records, such as `begun(task)`.
MakeMessage = Callable[[PieceTask, PieceCall, Mapping[str, Any]], Message]


class PiecePlane(Protocol):
    """A way for frames."""

    #: `messages` or `stream`, as in `PieceCall.plane`.
    name: str

    def open(self) -> None:
        """Before the first round of a run."""
        ...

    def close(self) -> None:
        """After the last. Safe to call twice."""
        ...

    def carry(self, chains: Sequence[ChainTask], message: MakeMessage) -> Carried:
        """Carry the work of chains. When the generator ends, each is done, or has a place that is lost.

        Args:
            chains: beside one another; one that loses a terminal does not stop the others.
            message: see `MakeMessage`.
        """
        ...
