"""The edge's side of one sliced task: which message comes next, and the one reply its slices add up to.

No grid and no decision in here; `work` asks what to do and `grid` moves the messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from flwr.app import ConfigRecord, Error, Message, MetricRecord

from ...errors import ProtocolError
from ...wire import copy_content
from ..flower_private import clone_message, set_metadata
from .crew import Crew
from .messages import (
    RENEWED_RECORD,
    STEP_RECORD,
    STEPS_KEY,
    Renewed,
    SliceOrder,
    StepRange,
    with_order,
)

__all__ = ["RULES", "Ending", "Part", "Rule", "SlicedTask", "StepModMissing", "merge_metrics"]

#: How the metrics of slices become the metric of the task. `mean` weighs by steps.
Rule = Literal["sum", "mean", "last"]
#: Rules by metric; every other one is a mean.
RULES: Final[Mapping[str, Rule]] = {"num-examples": "sum", "steps": "sum"}

#: Steps of a slice, and its metrics by record and name.
Part = tuple[int, Mapping[str, Mapping[str, Any]]]

#: Flower's error code for what has none of its own.
UNKNOWN = 0


class StepModMissing(ProtocolError):
    """A slice was answered by a client that does not slice."""


def merge_metrics(parts: Sequence[Part], rules: Mapping[str, Rule] = RULES) -> dict[str, dict[str, Any]]:
    """The metrics of a whole task from those of its slices.

    A metric of a single slice is left exactly as it is; lists are merged element by element.

    >>> merge_metrics([(3, {"m": {"steps": 3, "loss": 1.0}}), (1, {"m": {"steps": 1, "loss": 5.0}})])
    {'m': {'steps': 4, 'loss': 2.0}}
    """
    seen: dict[str, dict[str, list[tuple[int, Any]]]] = {}
    for steps, records in parts:
        for record, values in records.items():
            for key, value in values.items():
                seen.setdefault(record, {}).setdefault(key, []).append((steps, value))
    return {
        record: {key: _merge(values, rules.get(key, "mean")) for key, values in keys.items()}
        for record, keys in seen.items()
    }


def _merge(values: list[tuple[int, Any]], rule: Rule) -> Any:
    last = values[-1][1]
    if len(values) == 1 or rule == "last":
        return last
    if any(isinstance(value, list) for _, value in values):
        if not all(isinstance(value, list) and len(value) == len(last) for _, value in values):
            return last  # lists of different lengths have no element to merge with
        return [_merge([(steps, value[at]) for steps, value in values], rule) for at in range(len(last))]
    if rule == "sum":
        return sum(value for _, value in values)
    total = sum(steps for steps, _ in values)
    return sum(steps * value for steps, value in values) / total if total else last


@dataclass(frozen=True)
class Ending:
    """Why a task's partial work is being collected; what becomes of it is known when the answer is there.

    Attributes:
        request: what the terminal had asked for, in words.
        decision: the decision's name.
        why: more about it, to follow the outcome.
        other_id: the node that does the task instead.
        planned: the task was to end like this.
        reason: the one given with the decision.
    """

    request: str = ""
    decision: str = "none"
    why: str = ""
    other_id: int | None = None
    planned: bool = False
    reason: str = ""


@dataclass(eq=False)
class SlicedTask:
    """One original message, to one node, on its way through its slices; or what is left of it after a `Renew`.

    Attributes:
        key: the id by which the strategy knows its message.
        name: names the task to the node.
        original: the message as the strategy made it, for this node; after a `Renew` with its records.
        record: the config record that tells the number of steps.
        total: that number.
        crew: the cell and round it belongs to, and who else works there.
        steps_key: the config key of the number of steps.
        as_made: the message as the strategy made it, where `original` is another.
        tried: nodes that have failed at this task before.
        first: the step it begins at.
        renewals: how often the node's model was renewed before.
        answered: whether the strategy has a reply of this node already, to what was done before.
        done: the step the node's model is at.
        order: the slice in flight or last answered.
        slice_id: what the grid calls the slice in flight; `None` where none is.
        begun_s: when its first slice was sent.
        sent_s: when the node's first slice of this message was sent, before any renewal; `None` before.
        detached: nobody waits for it any more.
        ending: why it is being collected before its last step; `None` where it is not.
        over: it has ended; what still comes of it is nobody's.
        changed: config values that hold from the last `Change` on.
    """

    key: str
    name: str
    original: Message
    record: str
    total: int
    crew: Crew
    steps_key: str = STEPS_KEY
    as_made: Message | None = None
    tried: frozenset[int] = frozenset()
    first: int = 0
    renewals: int = 0
    answered: bool = False
    done: int = 0
    order: SliceOrder | None = None
    slice_id: str | None = None
    begun_s: float = 0.0
    sent_s: float | None = None
    detached: bool = False
    ending: Ending | None = None
    over: bool = False
    changed: dict[str, Any] = field(default_factory=dict)
    _parts: list[Part] = field(default_factory=list)

    @property
    def node_id(self) -> int:
        """The node that does it."""
        return self.original.metadata.dst_node_id

    @property
    def made(self) -> int:
        """Steps made in this task."""
        return self.done - self.first

    @property
    def round(self) -> int:
        """The strategy's round; 0 where it tells none."""
        return self.crew.round

    def begin(self, steps: int, now_s: float) -> Message:
        """The message that asks for the first `steps` steps."""
        self.begun_s = now_s
        self.sent_s = now_s if self.sent_s is None else self.sent_s
        if self.crew.begun_s is None:
            self.crew.begun_s = now_s
        return self.slice(steps)

    def change(self, config: Mapping[str, Any]) -> None:
        """Use other config values from the next slice on."""
        self.changed.update(config)
        total = config.get(self.steps_key)
        if isinstance(total, int):
            self.total = max(total, self.done)

    def slice(self, steps: int) -> Message:
        """The message that asks for the next `steps` steps, or for what is left."""
        stop = min(self.done + steps, self.total)
        return self._message(stop, returns=stop == self.total)

    def last(self, steps: int | None) -> Message:
        """The message that asks for at most so many more steps (`None`: what is left), and for the model."""
        left = self.total - self.done
        return self._message(self.done + (left if steps is None else min(steps, left)), returns=True)

    def closing(self, ending: Ending) -> Message:
        """The message that asks for no step and for the model as it is."""
        self.ending = ending
        return self.last(0)

    def _message(self, stop: int, *, returns: bool) -> Message:
        begins = self.order is None
        self.order = SliceOrder(self.name, StepRange(self.done, stop, self.total), returns, self.first)
        content = with_order(self.original.content, self.record, self.order, arrays=begins)
        config = content.config_records[self.record]
        for key, value in self.changed.items():
            config[key] = value
        return clone_message(self.original, content)

    def take(self, reply: Message) -> int:
        """Count a slice's steps and keep its metrics; returns how many steps it made.

        Raises:
            StepModMissing: the client has no `step_mod`.
            ProtocolError: the reply is not one to the slice that was sent.
        """
        assert self.order is not None
        asked = self.order.steps
        record = reply.content.get(STEP_RECORD)
        if not isinstance(record, ConfigRecord):
            raise StepModMissing(
                f"node {self.node_id} answered steps [{asked.start}, {asked.stop}) of {asked.total} as if they were a "
                "whole task; add the mod on the client: ClientApp(mods=[step_mod])"
            )
        done = record.get("done")
        if record.get("task") != self.name or not isinstance(done, int) or not asked.start <= done <= asked.stop:
            raise ProtocolError(
                f"node {self.node_id} answered with step {done!r} of task {record.get('task')!r}, expected a step from "
                f"{asked.start} to {asked.stop} of task {self.name!r}"
            )
        steps = int(done) - self.done
        self.done = int(done)
        if len(asked):
            self._parts.append((steps, {name: dict(found) for name, found in reply.content.metric_records.items()}))
        return steps

    def result(self, reply: Message, rules: Mapping[str, Rule]) -> Message:
        """The reply to the original message: the arrays that came last, the metrics of all slices."""
        content = copy_content(reply.content)
        merged = merge_metrics(self._parts, rules)
        for name in list(content.metric_records):
            if name in merged:
                content[name] = MetricRecord(merged[name])
        content.pop(STEP_RECORD, None)  # a request that comes with the last slice, nobody has decided about
        content.pop(RENEWED_RECORD, None)  # the edge's own word, not the terminal's
        if self.renewals:
            content[RENEWED_RECORD] = Renewed(self.renewals, self.first).to_record()
        return self._addressed(clone_message(reply, content))

    def failure(self, reason: str) -> Message:
        """An error reply to the original message."""
        return self._addressed(Message(Error(code=UNKNOWN, reason=reason), reply_to=self.original))

    def failed(self, reply: Message) -> Message:
        """A node's error reply to a slice, as a reply to the original message."""
        return self._addressed(clone_message(reply))

    def _addressed(self, reply: Message) -> Message:
        # Errors made by a SuperLink say that it is their source; what a strategy needs to know is the node.
        set_metadata(reply, reply_to_message_id=self.key, src_node_id=self.node_id)
        return reply
