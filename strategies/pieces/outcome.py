"""What came back from a terminal that trains a piece: read, checked, and kept with its task, on every plane.

What cannot be used loses that terminal, and with it its chain's attempt; never another chain. Nothing here sends.
"""

from __future__ import annotations

from collections.abc import Iterable
from logging import getLogger
from typing import Any

from flwr.app import ArrayRecord, Message

from flower_edge.errors import EdgeError, ModelMismatch, ProtocolError
from flower_edge.runtime.pieces.messages import (
    ARRAYS_RECORD,
    HEAD_OPTIMISER_RECORD,
    HEAD_RECORD,
    OPTIMISER_RECORD,
    PIECE_RECORD,
    PieceReport,
)
from flower_edge.wire import ModelSpec, error_reason, record_of

from ..splitting.copies import check_half
from .plane import Arrays, PieceTask

__all__ = ["begun", "by_node", "finish", "lose", "report_of"]

log = getLogger("flwr.edge")

#: Characters that are kept of a reason: part of it may be a terminal's own words.
_LONGEST = 1000


def begun(task: PieceTask) -> dict[str, Any]:
    """Records with which a terminal begins: its piece, and what goes with it where there is some."""
    found = {
        ARRAYS_RECORD: task.arrays,
        OPTIMISER_RECORD: task.optimiser,
        HEAD_RECORD: task.head,
        HEAD_OPTIMISER_RECORD: task.head_optimiser,
    }
    return {name: record_of(arrays) for name, arrays in found.items() if arrays or name == ARRAYS_RECORD}


def lose(task: PieceTask, why: str) -> None:
    """A terminal cannot go on; its chain's attempt is over."""
    task.lost = task.lost or why[:_LONGEST] or "it did not say why"
    work = task.order.work
    log.warning(
        "\tround %d: terminal %d at place %d of chain %d is lost: %s",
        work.round,
        task.number,
        task.order.place,
        work.number,
        task.lost,
    )


def by_node(tasks: Iterable[PieceTask], replies: Iterable[Message]) -> list[tuple[PieceTask, Message]]:
    """Good replies with their tasks, in the order of the tasks. Whose reply is an error, or missing, is lost."""
    came: dict[int, Message] = {}
    for reply in replies:
        came.setdefault(reply.metadata.src_node_id, reply)
    found = []
    for task in tasks:
        if (answer := came.get(task.node)) is None:
            lose(task, "no reply came in time")
        elif answer.has_error():
            lose(task, error_reason(answer))
        else:
            found.append((task, answer))
    return found


def report_of(task: PieceTask, reply: Message) -> PieceReport:
    """What a terminal tells; it is the task's `report` from now on.

    Raises:
        ProtocolError: it tells nothing, of another call, or that it cannot go on because of itself.
    """
    sender = _sender(task)
    report = PieceReport.read(reply.content.config_records.get(PIECE_RECORD), sender=sender)
    call, order = task.call, task.order
    expected = (call.session, order.work.round, order.work.number, order.place, call.attempt)
    told = (report.session, report.round, report.number, report.place, report.attempt)
    if told != expected:
        raise ProtocolError(
            f"{sender} told of (session, round, chain, place, attempt) = {(told[0][:12], *told[1:])}; expected "
            f"{(expected[0][:12], *expected[1:])}"
        )
    if report.lost and report.broken_by is None:
        raise ProtocolError(f"{sender} cannot go on: {report.lost}")
    if report.steps > order.work.steps:
        raise ProtocolError(f"{sender} says it made {report.steps} steps of {order.work.steps}")
    task.report = report
    return report


def finish(task: PieceTask, reply: Message, report: PieceReport) -> None:
    """Take the piece of a terminal that is done.

    Raises:
        ProtocolError: it made another number of steps than ordered.
        ModelMismatch: that is not its piece.
    """
    sender, steps = _sender(task), task.order.work.steps
    if not report.done or report.steps != steps:
        raise ProtocolError(
            f"{sender} made {report.steps} of {steps} steps and says it is {'done' if report.done else 'not done'}"
        )
    try:
        task.new_arrays, task.new_optimiser = _part(reply, ARRAYS_RECORD, OPTIMISER_RECORD, task.arrays, sender)
        if task.head:
            head = _part(reply, HEAD_RECORD, HEAD_OPTIMISER_RECORD, task.head, f"{sender} for its head")
            task.new_head, task.new_head_optimiser = head
    except EdgeError:
        raise
    except Exception as error:  # bytes that Flower cannot read as an array
        raise ModelMismatch(f"{sender} sent a piece that cannot be read: {type(error).__name__}: {error}") from None
    task.done = True


def _part(reply: Message, arrays: str, optimiser: str, before: Arrays, sender: str) -> tuple[Arrays, Arrays]:
    spec: ModelSpec = {name: (tuple(array.shape), str(array.dtype)) for name, array in before.items()}
    records = reply.content.array_records
    came = records.get(arrays, None if spec else ArrayRecord())
    return check_half(came, records.get(optimiser), spec, sender=sender, made_with="pieces_client")


def _sender(task: PieceTask) -> str:
    return f"terminal {task.number} at place {task.order.place} of chain {task.order.work.number}"
