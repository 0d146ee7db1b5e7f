"""`Plane`: how frames travel between devices and the cloud in a round. Which way they take changes no model.

A round of a plane is a generator: it yields the messages of one exchange after the other, each with whether it is the
last of the round, and is sent the replies. It fills in each task's outcome; it neither plans nor merges.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt
from flwr.app import Message

from flower_edge.runtime.splitting.messages import SplitOrder, SplitReport

if TYPE_CHECKING:
    from flower_edge.splitting.conversation_torch import CloudWork
    from flower_edge.splitting.frames import FrameCoder

__all__ = ["Exchanges", "Plane", "Task"]

Arrays = Mapping[str, npt.NDArray[Any]]
#: Messages, and whether they are the last of a round; replies come back.
Exchanges = Generator[tuple[list[Message], bool], Sequence[Message], None]


@dataclass
class Task:
    """One device's work in a round, and what became of it.

    Attributes:
        node: Flower's id of it, in this run.
        order: without what the plane adds.
        half, optimiser: what the device begins from.
        work: the cloud's end; `None` where the whole model is the device's.
        coder: of frames between the device and the cloud; `None` where there are none.
        report: the device's, when it is done.
        new_half, new_optimiser: what the device ended with.
        lost: why it is not done; what it did in this round does not count.
        reply: the device's last.
        measured: of the cloud's end, by name: `cloud_s` in which it computed, `up_bits` and `down_bits` of frames,
            `spared_bits` of the half, which the device had already.
        held_back: names of arrays that stay at the device when it is done, to be merged among devices.
    """

    node: int
    order: SplitOrder
    half: Arrays
    optimiser: Arrays
    work: CloudWork | None
    coder: FrameCoder | None = None
    report: SplitReport | None = None
    new_half: Arrays | None = None
    new_optimiser: Arrays | None = None
    lost: str = ""
    reply: Message | None = None
    measured: dict[str, float] = field(default_factory=dict)
    held_back: frozenset[str] = frozenset()

    def count(self, **amounts: float) -> None:
        """Add to what was measured."""
        for name, amount in amounts.items():
            self.measured[name] = self.measured.get(name, 0.0) + amount


class Plane(Protocol):
    """A way for frames."""

    #: `messages` or `stream`, as in `SplitOrder.plane`.
    name: str

    def open(self) -> None:
        """Before the first round of a run."""
        ...

    def close(self) -> None:
        """After the last. Safe to call twice."""
        ...

    def round(
        self,
        tasks: Mapping[int, Task],
        message: Callable[[Task, SplitOrder, Mapping[str, Any]], Message],
        shared: bool,
    ) -> Exchanges:
        """Carry the work of all tasks, by number; at least one exchange, whose messages may be none.

        Args:
            tasks: by number, in order. When the generator ends, each has its report and new half, or why it is lost.
            message: makes a Flower message for a task from an order and further records, such as `begun(task)`.
            shared: all tasks train one cloud half (SplitFed v2): their steps take turns, batch by batch, in the order
                of numbers.
        """
        ...
