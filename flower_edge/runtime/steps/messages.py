"""What a sliced training task says on the wire: which steps, and a terminal's own request.

A *slice* is a `train` message whose config tells a range of steps of a longer task. Nothing here sends, trains or
decides; `grid` is the edge's half, `flower_edge.clients.steps` the terminal's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from flwr.app import ConfigRecord, Message, RecordDict

from ...errors import ConfigError
from ...wire import copy_content

__all__ = [
    "LATE_RECORD",
    "RENEWED_RECORD",
    "REQUEST_RECORD",
    "STEPS_KEY",
    "STEP_RECORD",
    "Renewed",
    "Request",
    "SliceOrder",
    "StepRange",
    "order_of",
    "renewed_of",
    "request",
    "request_of",
    "steps_of",
    "total_steps",
    "with_order",
]

log = logging.getLogger(__name__)

#: Config key of the number of training steps a strategy asks for.
STEPS_KEY: Final = "local-steps"
#: Record in the reply to a slice: which task it belongs to, and the step its model is at.
STEP_RECORD: Final = "flower-edge.step"
#: Record in which a terminal says what it wants; no strategy ever sees it.
REQUEST_RECORD: Final = "flower-edge.request"
#: Record in a reply that comes after its round: the round whose model it began with (`base-round`), `cell`, `steps`.
LATE_RECORD: Final = "flower-edge.late"
#: Record in the reply of what was begun by a `Renew`: which renewal of its round (`index`, from 1), and `first-step`.
RENEWED_RECORD: Final = "flower-edge.renewed"

#: Config keys of a slice; `step-first` only where the task did not begin at step 0.
START, STOP, TOTAL, RETURN, TASK = "step-start", "step-stop", "steps-total", "step-return", "step-task"
FIRST: Final = "step-first"
RESERVED: Final = (START, STOP, TOTAL, RETURN, TASK, FIRST)
_KIND: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class StepRange:
    """The steps one call of a train function is to make: `start`, …, `stop - 1` of `total`.

    >>> list(StepRange(start=4, stop=6, total=20)), len(StepRange(4, 6, 20))
    ([4, 5], 2)
    """

    start: int
    stop: int
    total: int

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class SliceOrder:
    """What a slice's config says.

    Attributes:
        task: names the task: one original message to one node.
        steps: which steps; none in the message that only collects the model of a task stopped early.
        returns: whether the reply is to carry the arrays.
        first: the step the task began at; the slice that begins there brings the arrays.
    """

    task: str
    steps: StepRange
    returns: bool
    first: int = 0

    @property
    def begins(self) -> bool:
        """Whether this is the first slice of its task."""
        return len(self.steps) > 0 and self.steps.start == self.first


def total_steps(content: RecordDict, steps_key: str = STEPS_KEY) -> tuple[str, int] | None:
    """Name of the config record that tells a number of steps, and the number; None if none does.

    Raises:
        ConfigError: the number is not a whole one, or negative.

    >>> total_steps(RecordDict({"config": ConfigRecord({"local-steps": 20})}))
    ('config', 20)
    """
    for name, record in content.config_records.items():
        if steps_key in record:
            value = record[steps_key]
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ConfigError(f"{steps_key} = {value!r} in the train config: expected a whole number, 0 or more")
            return name, value
    return None


def with_order(content: RecordDict, record: str, order: SliceOrder, *, arrays: bool) -> RecordDict:
    """A copy of `content` that asks for one slice; without its array records where `arrays` is false."""
    out = copy_content(content)
    if not arrays:
        for name in list(out.array_records):
            del out[name]
    config = out.config_records[record]
    config[START], config[STOP], config[TOTAL] = order.steps.start, order.steps.stop, order.steps.total
    config[RETURN], config[TASK] = order.returns, order.task
    if order.first:
        config[FIRST] = order.first
    return out


def order_of(message: Message) -> SliceOrder | None:
    """The slice a message asks for; None for every other message.

    Raises:
        ConfigError: the config says `step-task` and not a whole slice with it.
    """
    for record in message.content.config_records.values():
        if TASK not in record:
            continue
        task, start, stop, total, returns = (record.get(key) for key in (TASK, START, STOP, TOTAL, RETURN))
        first = record.get(FIRST, 0)
        if not (
            isinstance(task, str)
            and isinstance(start, int)
            and isinstance(stop, int)
            and isinstance(total, int)
            and isinstance(returns, bool)
            and isinstance(first, int)
            and 0 <= first <= start <= stop <= total
        ):
            raise ConfigError(
                f"a slice of steps [{start!r}, {stop!r}) of {total!r} for task {task!r} from step {first!r}: expected "
                "whole numbers with 0 <= step-first <= step-start <= step-stop <= steps-total; let SteppedGrid write "
                "these keys"
            )
        return SliceOrder(task, StepRange(start, stop, total), returns, first)
    return None


def steps_of(message: Message, steps_key: str = STEPS_KEY) -> StepRange:
    """The steps a train function is to make for this message: a slice of them, or all from 0 on.

    Draw batches and learning rates by the absolute step, and the model is the same however a task was sliced.

    Raises:
        ConfigError: the config tells no number of steps.
    """
    if (order := order_of(message)) is not None:
        return order.steps
    if (found := total_steps(message.content, steps_key)) is None:
        raise ConfigError(
            f"no {steps_key!r} in the message's config; give it to the strategy: "
            f"strategy.start(..., train_config=ConfigRecord({{{steps_key!r}: 20}}))"
        )
    return StepRange(0, found[1], found[1])


@dataclass(frozen=True)
class Request:
    """What a terminal asks for on its own: `stop`, `overload`, `smaller-model`, `join`, or a word of yours.

    >>> str(Request("overload", {"load": 0.97}))
    'overload (load=0.97)'
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        values = ", ".join(f"{key}={value}" for key, value in self.values.items())
        return f"{self.kind} ({values})" if values else self.kind


def request(content: RecordDict, kind: str, **values: bool | int | float | str) -> RecordDict:
    """Put a terminal's own request into the content of its reply, and return that content.

    Raises:
        ConfigError: `kind` is not a word of up to 40 characters a-z 0-9 -.

    >>> sorted(request(RecordDict(), "overload", load=0.97)["flower-edge.request"].items())
    [('kind', 'overload'), ('load', 0.97)]
    """
    if not _KIND.fullmatch(kind):
        raise ConfigError(f"request kind {kind!r}: expected a word such as 'stop', up to 40 characters a-z 0-9 -")
    content[REQUEST_RECORD] = ConfigRecord({"kind": kind, **values})
    return content


def request_of(reply: Message) -> Request | None:
    """The request in a reply, if there is one. What is not a request is ignored with a warning, not believed."""
    if not reply.has_content() or REQUEST_RECORD not in reply.content:
        return None
    record = reply.content[REQUEST_RECORD]
    kind = record.get("kind") if isinstance(record, ConfigRecord) else None
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        log.warning("node %s sent a request of kind %.80r; ignored", reply.metadata.src_node_id, kind)
        return None
    return Request(kind, MappingProxyType({key: value for key, value in record.items() if key != "kind"}))


@dataclass(frozen=True)
class Renewed:
    """That a reply is the work of a task begun by a `Renew`.

    Attributes:
        index: which renewal of the node's round it was, from 1.
        first_step: where it went on.
    """

    index: int
    first_step: int

    def to_record(self) -> ConfigRecord:
        """As it stands in the reply."""
        return ConfigRecord({"index": self.index, "first-step": self.first_step})


def renewed_of(reply: Message) -> Renewed | None:
    """Which renewal a reply is the work of; None for a task that began as the strategy made it.

    The edge writes the record itself, over whatever the terminal has put there: it can be believed.
    """
    record = reply.content.get(RENEWED_RECORD) if reply.has_content() else None
    if not isinstance(record, ConfigRecord):
        return None
    index, first_step = record.get("index"), record.get("first-step")
    if not isinstance(index, int) or not isinstance(first_step, int):
        return None
    return Renewed(index, first_step)
