"""`PeriodMod`: a round that lasts a period instead of a number of steps, on the terminal.

The train function is called for a few steps at a time until the period is over; the edge gets one reply that tells
the steps made. Nothing here trains, and nothing on the wire is special: `period-s` in the train config is all.

On a virtual clock no real time passes; there `SteppedGrid` with `UntilPeriodEnds` does it from the edge's side.

Source: [4] ¶33: the terminals train for a preset time period; when it ends, the results are aggregated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from flower_edge.errors import ConfigError, ProtocolError
from flower_edge.runtime.steps.messages import (
    REQUEST_RECORD,
    STEP_RECORD,
    STEPS_KEY,
    SliceOrder,
    StepRange,
    order_of,
    request_of,
    with_order,
)
from flower_edge.runtime.steps.task import RULES, Part, Rule, merge_metrics
from flower_edge.wire import copy_content

from .conditions import steps_made

__all__ = ["PERIOD_KEY", "PERIOD_STEP_KEY", "PeriodMod", "period_mod"]

#: Config keys: seconds a round lasts, and steps between two looks at the clock.
PERIOD_KEY: Final = "period-s"
PERIOD_STEP_KEY: Final = "period-step"


@dataclass(frozen=True)
class PeriodMod:
    """A Flower mod that trains for a time: `ClientApp(mods=[..., step_mod, period_mod])`.

    A train message whose config has `period-s` is trained by calling the train function again and again, each time
    for `period-step` steps of `steps_of(message)` with the arrays it returned last, as slices of a sliced task are.
    At least one slice is made; another begins only if it ends in time when it takes as long as the slowest so far.
    With `local-steps` in the config, that many steps are the most. A function that requests `stop` or `overload`, or
    makes no step, ends the period for itself.

    The reply is the last one, with the metrics of all: `num-examples` and `steps` summed, so that a strategy weighs
    the terminals by what they did, the others averaged by steps. Put the mod last. Other messages pass through, also
    the slices of a `SteppedGrid`, which holds its period itself.

    Args:
        step: steps between two looks at the clock, where the config does not say `period-step`.
        merge: how a metric of the slices becomes one: `sum`, `mean` or `last`.
        clock: seconds.

    Raises:
        ConfigError: (`step` at once, the config as an error reply) a period or a step that is not above 0.
        ProtocolError: (as an error reply) the mod stands before `step_mod`, or the function returns other array
            records than it was given.
    """

    step: int = 10
    merge: Mapping[str, Rule] = field(default_factory=lambda: dict(RULES))
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if not self.step >= 1:
            raise ConfigError(f"PeriodMod(step={self.step}): expected 1 or more steps between two looks at the clock")

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Flower's mod signature."""
        period = self._period(message)
        if period is None or period.most == 0:
            return call_next(message, context)
        given, task = message.content, f"period-{message.metadata.message_id}"
        arrays = dict(given.array_records.items())
        begun_s, slowest_s, done = self.clock(), 0.0, 0
        parts: list[Part] = []
        while True:
            stop = min(done + period.step, period.most or done + period.step)
            order = SliceOrder(task, StepRange(done, stop, period.most or stop), returns=True)
            message.content = with_order(RecordDict({**given, **arrays}), period.record, order, arrays=True)
            slice_s = self.clock()
            reply = call_next(message, context)
            if reply.has_error():
                return reply
            steps = _checked_steps(message, reply, order)
            parts.append((steps, {name: dict(found) for name, found in reply.content.metric_records.items()}))
            done += steps
            now_s = self.clock()
            slowest_s = max(slowest_s, now_s - slice_s)
            wish = request_of(reply)
            over = now_s - begun_s + slowest_s > period.seconds
            if over or not steps or done == period.most or (wish is not None and wish.kind in ("stop", "overload")):
                reply.content = self._merged(reply.content, parts, done)
                return reply
            arrays = _carried(given, reply.content)

    def _period(self, message: Message) -> _Period | None:
        if message.metadata.message_type.partition(".")[0] != "train" or not message.has_content():
            return None
        for name, record in message.content.config_records.items():
            if PERIOD_KEY in record and order_of(message) is None:
                seconds, step = record[PERIOD_KEY], record.get(PERIOD_STEP_KEY, self.step)
                if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < math.inf:
                    raise ConfigError(f"{PERIOD_KEY} = {seconds!r} in the train config: expected seconds, more than 0")
                if not isinstance(step, int) or isinstance(step, bool) or step < 1:
                    raise ConfigError(f"{PERIOD_STEP_KEY} = {step!r} in the train config: expected 1 or more steps")
                most = record.get(STEPS_KEY)
                if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 0):
                    raise ConfigError(f"{STEPS_KEY} = {most!r} in the train config: expected a whole number, 0 or more")
                return _Period(name, float(seconds), step, most)
        return None

    def _merged(self, content: RecordDict, parts: list[Part], done: int) -> RecordDict:
        out = copy_content(content)
        for name, metrics in merge_metrics(parts, self.merge).items():
            if name in out:
                out[name] = MetricRecord(metrics)
        if not any("steps" in record for record in out.metric_records.values()):
            first = next(iter(out.metric_records), "metrics")
            out[first] = MetricRecord({**out.metric_records.get(first, {}), "steps": done})
        out.pop(REQUEST_RECORD, None)
        return out


#: The mod, ready to use.
period_mod = PeriodMod()


@dataclass(frozen=True)
class _Period:
    """What a config says: name of the record, how long, how often the clock is looked at, the most steps if any."""

    record: str
    seconds: float
    step: int
    most: int | None


def _checked_steps(message: Message, reply: Message, order: SliceOrder) -> int:
    if STEP_RECORD in reply.content:
        raise ProtocolError("PeriodMod stands before step_mod; write ClientApp(mods=[step_mod, period_mod])")
    steps = steps_made(message, reply)
    if steps is None or not 0 <= steps <= len(order.steps):
        raise ProtocolError(
            f"the train function reported steps = {steps!r} for {len(order.steps)} of a period; report how many of "
            "steps_of(message) it made, or leave the metric to the mod"
        )
    return steps


def _carried(given: RecordDict, returned: RecordDict) -> dict[str, ArrayRecord]:
    """The array records for the next slice: those returned last, by the names they came with."""
    before, after = dict(given.array_records.items()), dict(returned.array_records.items())
    if len(before) == len(after) == 1:
        return dict(zip(before, after.values(), strict=True))
    if not after or not set(after) <= set(before):
        raise ProtocolError(
            f"the train function returned the array records {sorted(after)}, and with the message came "
            f"{sorted(before)}; return every record under the name it came with"
        )
    return after
