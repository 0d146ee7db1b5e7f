"""A terminal tells its conditions: when it is asked, and with every training reply.

The values come from a *source*: `measure_conditions` on a device, a model of one in a simulation. Nothing here decides
what follows from them, and a source that fails costs the conditions, never the answer or the training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from logging import getLogger

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from flower_edge.conditions import Conditions, Plain
from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.queries import CONDITIONS, CONDITIONS_RECORD, time_asked_s
from flower_edge.runtime.steps.messages import order_of, total_steps

from .measure import measure_conditions

__all__ = ["ConditionsMod", "Source", "answer_conditions", "conditions_mod", "source_says", "steps_made"]

log = getLogger(__name__)

#: Where conditions come from: called with the node's context and the time on a virtual clock, if there is one.
Source = Callable[[Context, float | None], Conditions | Mapping[str, Plain]]
#: Name of what the mod remembers on the node.
STATE = "conditions"


def source_says(source: Source, context: Context, now_s: float | None) -> Conditions:
    """What a source tells; nothing, with a warning, where it fails."""
    try:
        told = source(context, now_s)
    except Exception as error:
        log.warning("conditions of node %s: their source failed: %s: %s", context.node_id, type(error).__name__, error)
        return Conditions()
    return told if isinstance(told, Conditions) else Conditions.read(told)


def answer_conditions(app: ClientApp, source: Source = measure_conditions) -> ClientApp:
    """Register the answer to `query.conditions` on `app`, and return `app`.

    The answer is one ConfigRecord `conditions`; `ask_nodes(grid, nodes, "conditions")` reads it. `step_s` is what
    `ConditionsMod` measured last, where the source does not tell it.

    Args:
        app: the terminal's app.
        source: of the conditions. In a simulation `lambda context, now_s: model.at(...)` with the time of the
            question, which is `None` where the grid has no virtual clock.

    >>> from flower_edge.runtime.local_grid import LocalGrid
    >>> from flower_edge.runtime.queries import ask_nodes
    >>> app = answer_conditions(ClientApp(), lambda context, now_s: Conditions(load=0.25))
    >>> with LocalGrid(app, nodes=2) as grid:
    ...     ask_nodes(grid, [1000, 1001], "conditions")
    {1000: {'load': 0.25}, 1001: {'load': 0.25}}
    """

    @app.query(CONDITIONS)
    def conditions(message: Message, context: Context) -> Message:
        told = _with_step_s(source_says(source, context, time_asked_s(message)), context)
        return Message(RecordDict({CONDITIONS: ConfigRecord(dict(told.to_mapping()))}), reply_to=message)

    return app


@dataclass(frozen=True)
class ConditionsMod:
    """A Flower mod that tells the terminal's conditions with each training reply, in a record of their own.

    `conditions_of(reply)` in `flower_edge.runtime.queries` reads them and `without_conditions(reply)` takes them out,
    so that no strategy sees them. It also measures `step_s`, the seconds of a training step, and remembers it for
    `answer_conditions`. Put it last, behind `step_mod`: there it times the train function alone.

    Args:
        source: of the conditions.
        time_steps: measure `step_s` by `clock`. Leave it out of a simulation that has to repeat: it is real time.
        clock: seconds.
    """

    source: Source = measure_conditions
    time_steps: bool = True
    clock: Callable[[], float] = time.monotonic

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Flower's mod signature."""
        if message.metadata.message_type.partition(".")[0] != "train" or not message.has_content():
            return call_next(message, context)
        begun_s, now_s = self.clock(), time_asked_s(message)
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        steps = steps_made(message, reply)
        if self.time_steps and steps:
            _remember(context, (self.clock() - begun_s) / steps)
        told = _with_step_s(source_says(self.source, context, now_s), context)
        reply.content = RecordDict({**reply.content, CONDITIONS_RECORD: ConfigRecord(dict(told.to_mapping()))})
        return reply


#: The mod, ready to use: `ClientApp(mods=[step_mod, conditions_mod])`.
conditions_mod = ConditionsMod()


def steps_made(message: Message, reply: Message) -> int | None:
    """Training steps that a reply reports, else those its message asked for; `None` where neither tells."""
    for record in reply.content.metric_records.values():
        steps = record.get("steps")
        if isinstance(steps, int):
            return steps
    if (order := order_of(message)) is not None:
        return len(order.steps)
    asked = total_steps(message.content)
    return None if asked is None else asked[1]


def _remember(context: Context, step_s: float) -> None:
    try:
        NodeState(context, STATE).save({"step_s": step_s})
    except Exception as error:
        log.warning("conditions of node %s: step_s cannot be kept: %s", context.node_id, error)


def _with_step_s(told: Conditions, context: Context) -> Conditions:
    if told.step_s is not None:
        return told
    try:
        memory = NodeState(context, STATE).load()
    except Exception as error:
        log.warning("conditions of node %s: step_s is lost: %s", context.node_id, error)
        return told
    step_s = memory.get("step_s") if isinstance(memory, dict) else None
    return replace(told, step_s=Conditions.read({"step_s": step_s}).step_s)
