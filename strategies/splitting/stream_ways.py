"""Which way a device's frames take to the cloud: straight, or through an edge that trains the units in the middle.

Values and what is made of them; nothing here listens or sends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flower_edge.errors import ProtocolError, SplitError
from flower_edge.runtime.splitting.edge_part import EdgePart
from flower_edge.runtime.splitting.service import Job
from flower_edge.splitting.frames import FrameCoder
from flower_edge.splitting.optimiser_state import state_of
from flower_edge.splitting.results import WorkResult
from flower_edge.transport.credentials import split_address

from .plane import Task

if TYPE_CHECKING:
    from flower_edge.splitting.conversation_torch import CloudWork
    from flower_edge.splitting.cutting_torch import CutModel

__all__ = ["Edge", "Way"]


@dataclass(frozen=True)
class Edge:
    """A host between devices and the cloud, on which `flower-edge split-edge` runs.

    Attributes:
        address: host:port that devices dial.
        stop: where its units end: it trains those from a device's cut up to this one, the cloud the rest.
        authority: PEM of who vouches for its certificate; empty: no TLS, which devices accept on their own host only.

    Raises:
        ConfigError: an address that is none.
        SplitError: no units.
    """

    address: str
    stop: int
    authority: bytes = b""

    def __post_init__(self) -> None:
        split_address(self.address)
        if self.stop < 1:
            raise SplitError(f"an edge whose units end at {self.stop}; expected 1 or more")


@dataclass(frozen=True, eq=False)
class Way:
    """One device's way in one round.

    Attributes:
        job: for the service.
        joined: the cloud's end of the device's work after the round, the edge's units among it.
    """

    job: Job
    joined: Callable[[WorkResult | None], CloudWork]

    @classmethod
    def direct(cls, task: Task, down_bps: float | None = None) -> Way:
        """The device dials the cloud; answers to it are held to `down_bps`."""
        work, coder = task.work, task.coder
        assert work is not None
        assert coder is not None
        return cls(Job(task.order.work, coder, work.answer, work.drop, down_bps), lambda _: work)

    @classmethod
    def through(cls, edge: Edge, task: Task, model: CutModel) -> Way:
        """The device dials an edge, and the edge the cloud. `model` says how units compute, no more.

        Raises:
            SplitError: nothing would be left for the cloud.
        """
        from flower_edge.splitting.conversation_torch import CloudWork

        assert task.work is not None
        order, begins = task.order.work, task.work.result()
        last = len(model.units) - order.tail
        if edge.stop >= last:
            raise SplitError(
                f"the edge at {edge.address} has the units up to {edge.stop} of {last} that are not the device's own "
                f"tail; leave the cloud at least one: stop = {last - 1}"
            )
        middle = _part(begins, model.names(order.cut, edge.stop))
        part = EdgePart(order, edge.stop, *middle)
        work = CloudWork(part.onward, model, *_part(begins, model.names(edge.stop, last)))

        def joined(result: WorkResult | None) -> CloudWork:
            if result is None:
                raise ProtocolError(f"the edge at {edge.address} handed nothing back")
            mine = work.result()
            return CloudWork(order, model, result.arrays | mine.arrays, result.optimiser | mine.optimiser)

        job = Job(part.onward, FrameCoder(part.onward, model.profile()), work.answer, work.drop, edge=part)
        return cls(job, joined)


def _part(result: WorkResult, names: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of these names, and the state of their optimiser."""
    return {name: result.arrays[name] for name in names}, state_of(result.optimiser, names)
