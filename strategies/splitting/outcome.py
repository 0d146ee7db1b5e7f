"""What came back from a device in a round of split learning: read, checked, and kept with its task, on every plane.

Nothing a device says stops the others: what cannot be used loses that device's round. Nothing here sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from logging import getLogger
from typing import Any

from flwr.app import ArrayRecord, Message

from flower_edge.errors import EdgeError, ModelMismatch, ProtocolError
from flower_edge.runtime.splitting.messages import HALF_RECORD, OPTIMISER_RECORD, SPLIT_RECORD, SplitReport
from flower_edge.wire import error_reason, record_of

from .copies import check_half
from .plane import Task

__all__ = ["begun", "by_number", "finish", "lose", "metric_of", "report_of"]

log = getLogger("flwr.edge")

#: Characters that are kept of a reason: part of it may be a device's own words.
_LONGEST = 1000


def begun(task: Task) -> dict[str, Any]:
    """Records with which a device begins: its half, and the state of its optimiser where there is some."""
    records: dict[str, Any] = {HALF_RECORD: record_of(task.half)}
    if task.optimiser:
        records[OPTIMISER_RECORD] = record_of(task.optimiser)
    return records


def lose(task: Task, why: str) -> None:
    """A device's round does not count. What it trained of a shared half stays, but for a batch that is under way."""
    if task.work is not None:
        task.work.drop()
    task.lost = task.lost or why[:_LONGEST] or "it did not say why"
    task.new_half = task.new_optimiser = None
    log.warning("\tround %d: device %d is lost: %s", task.order.work.round, task.order.work.number, task.lost)


def by_number(tasks: Mapping[int, Task], replies: Iterable[Message]) -> dict[int, Message]:
    """Good replies by number, in the order of numbers. Whose reply is an error, or missing, is lost."""
    numbers = {task.node: number for number, task in tasks.items()}
    found: dict[int, Message] = {}
    for reply in replies:
        number = numbers.get(reply.metadata.src_node_id)
        if number is None or number in found:
            continue
        if reply.has_error():
            lose(tasks[number], error_reason(reply))
        else:
            found[number] = reply
    for number, task in tasks.items():
        if number not in found and not task.lost:
            lose(task, "no reply came in time")
    return dict(sorted(found.items()))


def report_of(task: Task, reply: Message) -> SplitReport:
    """What a device tells of its round.

    Raises:
        ProtocolError: it tells nothing, of another session or round, or that it cannot go on.
    """
    sender = f"device {task.order.work.number}"
    report = SplitReport.read(reply.content.config_records.get(SPLIT_RECORD), sender=sender)
    order = task.order
    expected = (order.session, order.work.round, order.work.number)
    if (report.session, report.round, report.number) != expected:
        raise ProtocolError(
            f"{sender} told of session {report.session[:12]!r}, round {report.round} and number {report.number}; "
            f"expected {order.session[:12]!r}, {order.work.round} and {order.work.number}"
        )
    if report.lost:
        raise ProtocolError(f"{sender} cannot go on: {report.lost}")
    return report


def finish(task: Task, reply: Message, report: SplitReport) -> None:
    """Take the half of a device that is done.

    Raises:
        ProtocolError: it says it is not done, or made another number of steps than ordered.
        ModelMismatch: that is not its half.
    """
    sender = f"device {task.order.work.number}"
    if not report.done or report.steps != task.order.work.steps:
        raise ProtocolError(
            f"{sender} made {report.steps} of {task.order.work.steps} steps and says it is "
            f"{'done' if report.done else 'not done'}"
        )
    spec = {name: (tuple(array.shape), str(array.dtype)) for name, array in task.half.items()}
    arrays = reply.content.array_records.get(HALF_RECORD)
    if arrays is None and not spec.keys() - task.held_back:
        arrays = ArrayRecord()
    try:
        half, optimiser = check_half(
            arrays,
            reply.content.array_records.get(OPTIMISER_RECORD),
            spec,
            sender=sender,
            absent=task.held_back,
        )
    except EdgeError:
        raise
    except Exception as error:  # bytes that Flower cannot read as an array
        raise ModelMismatch(f"{sender} sent a half that cannot be read: {type(error).__name__}: {error}") from None
    task.report, task.reply, task.new_half, task.new_optimiser = report, reply, half, optimiser


def metric_of(reply: Message | None, name: str, otherwise: float) -> float:
    """A number in a reply's metrics, if there is one."""
    for record in reply.content.metric_records.values() if reply is not None else ():
        value = record.get(name)
        if isinstance(value, int | float):
            return float(value)
    return otherwise
