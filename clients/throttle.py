"""`ThrottleMod`: a terminal does less when it is loaded, and says so.

It asks the train function for fewer steps, smaller batches or both, by the load it sees before the training begins.
Nothing here trains, and nothing forces the function: it makes the steps of `steps_of(message)` and reads its batch
size from the config.

Source: [4] ¶34: the terminals may control the training considering their performance and load conditions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from flower_edge.errors import ConfigError
from flower_edge.rules import Rule
from flower_edge.runtime.queries import time_asked_s
from flower_edge.runtime.steps.messages import (
    REQUEST_RECORD,
    STEPS_KEY,
    SliceOrder,
    StepRange,
    order_of,
    request,
    total_steps,
    with_order,
)
from flower_edge.wire import copy_content

from .conditions import Source, source_says
from .measure import measure_conditions

__all__ = ["ThrottleMod"]


@dataclass(frozen=True)
class ThrottleMod:
    """A Flower mod that makes a loaded terminal train less: `ClientApp(mods=[ThrottleMod(), step_mod])`.

    Up to the load `gentle` all of the work is done, from `hard` on the share `least` of it, in between in proportion.
    The reply says so in the metrics `throttle` (the share) and `steps` (what was really made). Flower's strategies
    average metrics that every reply has: use the mod on all terminals or on none.

    The share is one of the whole task, also where `SteppedGrid` sends it in slices: a terminal that has made its share
    of the steps asks to `stop`. When `stop_when` holds, a slice is cut to a single step and the terminal says
    `overload`, with what it saw; a message that is not sliced is cut to `least`. `SteppedGrid` honours both words by
    default and collects the work that was done.

    It may stand before `step_mod` or behind it. With `PeriodMod` it stands before that one and throttles the batches:
    in a period a loaded terminal makes fewer steps as it is.

    Args:
        source: of the conditions; `load` and what `stop_when` looks at. It is asked before each training.
        gentle, hard: loads between which the share falls, from 0 to 1.
        least: the share from `hard` on, above 0; at least one step is always made.
        steps, batch: what is throttled: the number of steps, the batch size, or both, each by the square root.
        stop_when: a rule over the conditions; `None` never asks to stop.
        steps_key, batch_key: config keys of the two.
        tell: say so in the metrics. Without it terminals with the mod and terminals without it can be in one
            federation of Flower's strategies.

    Raises:
        ConfigError: a value out of its range, or a `stop_when` that is no rule.

    >>> [ThrottleMod(gentle=0.5, hard=0.9, least=0.2).share(load) for load in (0.3, 0.5, 0.7, 0.95, None)]
    [1.0, 1.0, 0.6, 0.2, 1.0]
    """

    source: Source = measure_conditions
    gentle: float = 0.5
    hard: float = 0.9
    least: float = 0.25
    steps: bool = True
    batch: bool = False
    stop_when: Rule | str | None = "load >= 0.97"
    steps_key: str = STEPS_KEY
    batch_key: str = "batch-size"
    tell: bool = True
    _stop: Rule | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.gentle <= self.hard <= 1.0:
            raise ConfigError(
                f"ThrottleMod(gentle={self.gentle}, hard={self.hard}): expected 0 <= gentle <= hard <= 1, shares of "
                "the processors that are busy"
            )
        if not 0.0 < self.least <= 1.0:
            raise ConfigError(f"ThrottleMod(least={self.least}): expected a share in (0, 1]")
        if not (self.steps or self.batch):
            raise ConfigError("ThrottleMod(steps=False, batch=False) throttles nothing; leave the mod out")
        object.__setattr__(self, "_stop", None if self.stop_when is None else Rule.of(self.stop_when))

    def share(self, load: float | None) -> float:
        """Share of the work that is done at a load; all of it where the load is not known."""
        if load is None or load <= self.gentle:
            return 1.0
        if load >= self.hard:
            return self.least
        return round(1.0 - (1.0 - self.least) * (load - self.gentle) / (self.hard - self.gentle), 9)

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Flower's mod signature."""
        if message.metadata.message_type.partition(".")[0] != "train" or not message.has_content():
            return call_next(message, context)
        order = order_of(message)
        if order is not None and not len(order.steps):
            return call_next(message, context)  # it only collects the model
        seen = source_says(self.source, context, time_asked_s(message))
        told = seen.to_mapping()
        overload = self._stop is not None and self._stop.holds(told)
        share = self.least if overload else self.share(seen.load)
        plan = self._plan(message.content, order, share, overload)
        message.content = plan.content
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        if self.tell:
            reply.content = _with_metrics(reply.content, share, plan.steps)
        if REQUEST_RECORD not in reply.content:
            if overload and self._stop is not None:
                names = sorted({name.replace("-", "_") for name in self._stop.names} & set(told))
                request(reply.content, "overload", **{name: told[name] for name in names})
            elif plan.ends:
                request(reply.content, "stop", throttle=share)
        return reply

    def _plan(self, content: RecordDict, order: SliceOrder | None, share: float, overload: bool) -> _Plan:
        part = math.sqrt(share) if self.steps and self.batch else share
        content = copy_content(content)
        if self.batch:
            for record in content.config_records.values():
                size = record.get(self.batch_key)
                if isinstance(size, int) and not isinstance(size, bool) and size > 0:
                    record[self.batch_key] = max(1, round(part * size))
        found = total_steps(content, self.steps_key)
        if found is None:
            return _Plan(content, None, False)
        record_name, total = found
        if order is None:
            steps = max(1, round(part * total)) if self.steps and total else total
            content.config_records[record_name][self.steps_key] = steps
            return _Plan(content, steps, False)
        start, stop, total = order.steps.start, order.steps.stop, order.steps.total
        allowed = max(1, round(part * total)) if self.steps else total
        stop = start + 1 if overload else max(start + 1, min(stop, allowed))
        throttled = SliceOrder(order.task, StepRange(start, stop, total), order.returns, order.first)
        ends = stop >= allowed and stop < total
        return _Plan(with_order(content, record_name, throttled, arrays=True), stop - start, ends)


@dataclass(frozen=True)
class _Plan:
    """What the train function is asked for: the content, its steps where it tells any, and whether more is to come."""

    content: RecordDict
    steps: int | None
    ends: bool


def _with_metrics(content: RecordDict, share: float, steps: int | None) -> RecordDict:
    """A copy that says how much was done, in the first metric record; `steps` stays as the function reports it."""
    out = copy_content(content)
    if not out.metric_records:
        out["metrics"] = MetricRecord()
    first = next(iter(out.metric_records.values()))
    first["throttle"] = float(share)
    if steps is not None and not any("steps" in record for record in out.metric_records.values()):
        first["steps"] = steps
    return out
