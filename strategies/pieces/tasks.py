"""From seats to tasks: everybody's piece for one attempt at a round, and the message it travels in. Values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from flwr.app import ConfigRecord, Message, RecordDict

from flower_edge.runtime.pieces.messages import PIECE_RECORD, TRAIN, PieceCall

from ..splitting.prepared import Prepared
from .memory import Memory
from .plane import ChainTask, PieceTask
from .seating import Chain
from .settings import PieceSettings

__all__ = ["TaskMaker"]


@dataclass(frozen=True)
class TaskMaker:
    """Of one round.

    Attributes:
        round: Flower's number.
        session: name of the run.
        settings, prepared, memory: the strategy's.
        model: all chains begin from: the whole model's arrays.
        config: the loop's, by its key.
    """

    round: int
    session: str
    settings: PieceSettings
    prepared: Prepared
    memory: Memory
    model: Mapping[str, npt.NDArray[Any]]
    config: Mapping[str, ConfigRecord]

    def chain(self, chain: Chain, attempt: int) -> ChainTask:
        """A chain's, from where the round began.

        Raises:
            SplitError: a cut that no head can be put on, in decoupled mode.
        """
        settings, prepared = self.settings, self.prepared
        orders = settings.orders(
            self.round, chain.number, prepared.architecture, chain.spans, self.memory.first_step(chain.number)
        )
        tasks = []
        for terminal, order in zip(chain.terminals, orders, strict=True):
            names = prepared.model.names(order.start, order.stop)
            call = PieceCall(
                session=self.session,
                piece=order,
                attempt=attempt,
                segment=chain.segment if order.first else None,
            )
            task = PieceTask(
                terminal.node,
                terminal.number,
                call,
                {name: self.model[name] for name in names},
                self.memory.optimiser(chain.number, names),
            )
            if order.mode == "decoupled" and not order.last:
                task.head = self.memory.head(order.stop, prepared.profile)
                task.head_optimiser = self.memory.head_optimiser(chain.number, order.stop)
            tasks.append(task)
        return ChainTask(chain.number, tasks, prepared.profile)

    def message(self, task: PieceTask, call: PieceCall, records: Mapping[str, Any]) -> Message:
        """A Flower message with a call, its records, and the loop's config."""
        return Message(RecordDict({**self.config, PIECE_RECORD: call.write(), **records}), task.node, TRAIN)

    def ending(self, task: PieceTask, counts: int) -> Message:
        """To a terminal, when the round is over; `counts`: of the samples behind its chain, its share."""
        return self.message(task, task.call.model_copy(update={"what": "end", "counts": counts}), {})
