"""`step_mod`: the terminal's half of step-bounded training.

It keeps the working model of a sliced task on the node, hands it to the user's own `train` function as if it had
come with the message, and sends arrays only when asked. Nothing here trains, and nothing decides when to stop: the
train function makes the steps of `steps_of(message)` and may `request` something; `SteppedGrid` decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from flower_edge.errors import ProtocolError, StateError
from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.steps.messages import (
    REQUEST_RECORD,
    STEP_RECORD,
    Request,
    SliceOrder,
    StepRange,
    order_of,
    request,
    request_of,
    steps_of,
    total_steps,
)
from flower_edge.runtime.steps.new_data import wants_new_data
from flower_edge.store.tree import Tree
from flower_edge.wire import copy_content, records_from_tree, records_to_tree

__all__ = ["Request", "StepMod", "StepRange", "request", "request_of", "step_mod", "steps_of", "wants_new_data"]

#: Name of the working model in the node's memory.
STATE = "steps"


@dataclass(frozen=True)
class StepMod:
    """A Flower mod that lets a train function work in slices: `ClientApp(mods=[..., step_mod])`.

    Put it last, next to the train function: mods before it see that most slices bring and return no arrays. A message
    that is not sliced passes through. The number of steps made is the reply's metric `steps`; the mod writes it where
    the function does not (it may make fewer than asked, and say so).

    What the function needs beside the model from one slice to the next (momentum, the model the round began with) it
    keeps in a `NodeState` of its own. Global random generators begin anew with every message: draw from a generator
    seeded by the absolute step.

    Args:
        durable: keep even a small working model in a file, so that a task survives a restart of the SuperNode.

    Raises:
        ProtocolError: (as an error reply) a slice of a task that this node does not have, or has at another step.
        StateError: (as an error reply) the working model was lost with the SuperNode's memory, or is damaged.
    """

    durable: bool = False

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Flower's mod signature."""
        order = order_of(message) if message.has_content() else None
        if order is None:
            reply = call_next(message, context)
            found = total_steps(message.content) if message.has_content() else None
            return reply if found is None or reply.has_error() else _counted(reply, found[1])
        memory = NodeState(context, STATE, durable=self.durable)
        work = _work_for(order, memory)
        if work is not None and work.start == order.steps.start and len(order.steps):
            # The same slice once more, because its answer was late: answered again, not trained again.
            return Message(_answer(order, work, work.reply), reply_to=message)
        if work is not None and not len(order.steps):
            memory.delete()
            return Message(_answer(order, work, _without_steps(work.reply)), reply_to=message)
        if work is not None:
            message.content = RecordDict({**work.arrays(), **message.content})
        given = RecordDict(dict(message.content.array_records.items()))
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        reply = _counted(reply, len(order.steps))
        done = order.steps.start + _steps_made(reply, order)
        work = _Work(order.task, order.steps.start, done, given, reply.content)
        if order.returns:
            memory.delete()
        else:
            memory.save(work.to_tree())
        reply.content = _answer(order, work, reply.content)
        return reply


#: The mod, ready to use: `ClientApp(mods=[step_mod])`.
step_mod = StepMod()


@dataclass(frozen=True)
class _Work:
    """A task between two slices.

    Attributes:
        task: its name.
        start, done: where the last slice began, and where it left the model.
        given: the array records the train function was given; of those it returned, the names only.
        reply: what it returned for the last slice.
    """

    task: str
    start: int
    done: int
    given: RecordDict
    reply: RecordDict

    def arrays(self) -> dict[str, ArrayRecord]:
        """Array records as they would come with a message now: those returned last, by the names they came with.

        Raises:
            ProtocolError: the train function returned the model under another name than it came with.
        """
        given, returned = dict(self.given.array_records.items()), dict(self.reply.array_records.items())
        if len(given) == len(returned) == 1:
            return dict(zip(given, returned.values(), strict=True))
        if not returned or not set(returned) <= set(given):
            raise ProtocolError(
                f"the train function returned the array records {sorted(returned)}, and with the message came "
                f"{sorted(given)}; return every record under the name it came with"
            )
        return {**given, **returned}

    def to_tree(self) -> Tree:
        """For the node's memory. What was given and is returned anew is not kept twice."""
        returned = self.arrays()
        given = {
            name: ArrayRecord() if record is not returned[name] else record
            for name, record in self.given.array_records.items()
        }
        return {
            "task": self.task,
            "start": self.start,
            "done": self.done,
            "given": records_to_tree(RecordDict(dict(given))),
            "reply": records_to_tree(self.reply),
        }

    @classmethod
    def from_tree(cls, tree: Tree) -> _Work:
        """Inverse of `to_tree`."""
        given, reply = records_from_tree(tree["given"]), records_from_tree(tree["reply"])
        return cls(tree["task"], tree["start"], tree["done"], given, reply)


def _work_for(order: SliceOrder, memory: NodeState) -> _Work | None:
    """The work this slice goes on with; None for the first slice of a task."""
    first = order.begins
    try:
        tree = memory.load()
    except StateError:
        if not first:
            raise
        tree = None  # what was left of an earlier task is overwritten now anyway
    work = None if tree is None else _Work.from_tree(tree)
    if work is not None and work.task == order.task:
        again = len(order.steps) > 0 and order.steps.start == work.start
        if again or order.steps.start == work.done:
            return work
    if first and (work is None or work.task != order.task):
        return None
    there = "none" if work is None else f"task {work.task!r} at step {work.done}"
    raise ProtocolError(
        f"a slice from step {order.steps.start} of task {order.task!r} came, and this node holds {there}; the slice is "
        "stale or the task began elsewhere: send the whole message again"
    )


def _counted(reply: Message, steps: int) -> Message:
    """The reply with the metric `steps` in its first metric record, if no record has it."""
    records = reply.content.metric_records
    if records and not any("steps" in record for record in records.values()):
        name, record = next(iter(records.items()))
        content = copy_content(reply.content)
        content[name] = MetricRecord({**record, "steps": steps})
        reply.content = content
    return reply


def _steps_made(reply: Message, order: SliceOrder) -> int:
    asked = len(order.steps)
    for record in reply.content.metric_records.values():
        steps = record.get("steps", asked)
        if not isinstance(steps, int) or not 0 <= steps <= asked:
            raise ProtocolError(
                f"the train function reported steps = {steps!r} for a slice of {asked}; report how many of "
                "steps_of(message) it made, or leave the metric to step_mod"
            )
        if "steps" in record:
            return steps
    return asked


def _answer(order: SliceOrder, work: _Work, content: RecordDict) -> RecordDict:
    """Content of the reply to a slice: without arrays unless they are asked for, and saying where the task is."""
    out = copy_content(content)
    if not order.returns:
        for name in list(out.array_records):
            del out[name]
    out[STEP_RECORD] = ConfigRecord({"task": order.task, "done": work.done})
    return out


def _without_steps(content: RecordDict) -> RecordDict:
    """The last reply once more, as that to a message that asked for no step."""
    out = copy_content(content)
    for name, record in list(out.metric_records.items()):
        if "steps" in record:
            out[name] = MetricRecord({**record, "steps": 0})
    out.pop(REQUEST_RECORD, None)
    return out
