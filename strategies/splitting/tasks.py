"""A round's tasks from its plan: everybody's order, half and coder, and the cloud's ends. Nothing here sends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flwr.app import ConfigRecord, Message, RecordDict

from flower_edge.errors import NobodyContributed
from flower_edge.runtime.splitting.messages import SPLIT_RECORD, SplitOrder
from flower_edge.splitting.agreed import parts
from flower_edge.splitting.frames import FrameCoder
from flower_edge.splitting.plan import Plan

from .copies import Copies
from .plane import Task
from .prepared import Prepared, device_names
from .settings import Settings

if TYPE_CHECKING:
    from flower_edge.splitting.conversation_torch import CloudHalf

__all__ = ["make_tasks", "message_for", "nobody"]


def make_tasks(
    server_round: int,
    session: str,
    nodes: Mapping[int, int],
    plan: Plan,
    prepared: Prepared,
    copies: Copies,
    settings: Settings,
    standard: dict[str, Any] | None,
) -> tuple[dict[int, Task], CloudHalf | None]:
    """Tasks by number, in order, and the cloud's half where one is shared.

    Args:
        server_round: Flower's number.
        session: name of the session.
        nodes: ids by number, of those who take part.
        plan: has a part for each of them.
        prepared, copies, settings: the federation's.
        standard: how samples are standardised, as a config.

    Raises:
        SplitError: a plan that does not fit the model.
    """
    from flower_edge.splitting.conversation_torch import CloudHalf, CloudWork

    model, profile = prepared.model, prepared.profile
    works = {
        number: settings.order(
            server_round,
            number,
            prepared.architecture,
            plan.assignments[number],
            profile.last,
            copies.of[number].steps,
            standard,
        )
        for number in sorted(nodes)
    }
    divided = {number: work for number, work in works.items() if not parts(work, profile).alone}
    shared: CloudHalf | None = None
    if settings.shared and divided:
        first = min(divided.values(), key=lambda work: work.cut)
        _, names = device_names(model, first)
        half = copies.cloud_half(first.number, names)
        shared = CloudHalf(model, first.cut, profile.last - first.tail, first.optimiser, *half)
    tasks: dict[int, Task] = {}
    for number, work in works.items():
        device, cloud = device_names(model, work)
        part = plan.assignments[number]
        order = SplitOrder(
            session=session,
            work=work,
            up_bps=_finite(part.up_bps),
            down_bps=_finite(part.down_bps),
            # A plan that knows no link foresees 0 s: that is no budget.
            train_s=_finite(plan.train_s) or None,
            transfer_s=_finite(plan.transfer_s) or None,
        )
        half = copies.device_half(number, device)
        task = Task(nodes[number], order, *half, work=None)
        if number in divided:
            kept = copies.cloud_half(number, ()) if shared is not None else copies.cloud_half(number, cloud)
            task.work = CloudWork(work, model, *kept, shared=shared)
            task.coder = FrameCoder(work, profile)
        tasks[number] = task
    return tasks, shared


def message_for(
    task: Task, order: SplitOrder, records: Mapping[str, Any], config: Mapping[str, ConfigRecord]
) -> Message:
    """A Flower message with an order, its records, and the loop's config."""
    return Message(RecordDict({**config, SPLIT_RECORD: order.write(), **records}), task.node, "train.split")


def nobody(server_round: int, tasks: Mapping[int, Task]) -> NobodyContributed:
    """The error that says why all were lost."""
    first = next(((number, task.lost) for number, task in tasks.items() if task.lost), (-1, ""))
    return NobodyContributed(
        f"round {server_round}: all {len(tasks)} devices were lost; the first, device {first[0]}: {first[1]}",
        frozenset(task.node for task in tasks.values()),
    )


def _finite(amount: float | None) -> float | None:
    return None if amount is None or amount == float("inf") else amount
