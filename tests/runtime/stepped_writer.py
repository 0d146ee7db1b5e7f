"""A learner that writes down its steps, and policies that renew, for the tests of `Renew`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from stepped_learner import BATCH, START, Counting

from flower_edge.clients.steps import step_mod, steps_of
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import Continue, Decide, Decision
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.wire import arrays_of, record_of

OTHER = {name: array + np.float32(1) for name, array in START.items()}
NEW = {"arrays": record_of(OTHER)}


def at(step: int, decision: Decision, then: Decide = lambda progress: Continue()) -> Decide:
    """One decision about node 1000 at a step, and another policy elsewhere."""
    return lambda p: decision if (p.node_id, p.steps_done, p.error) == (1000, step, None) else then(p)


def once(step: int, decision: Decision, then: Decide = lambda progress: Continue()) -> Decide:
    """The same, of a task that was not renewed yet."""
    first = at(step, decision, then)
    return lambda p: then(p) if p.renewals else first(p)


def writer() -> ClientApp:
    """Writes down every step it makes, with what came: its model is the list of its steps."""
    app = ClientApp(mods=[step_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        steps, config = steps_of(message), message.content.config_records["config"]
        model = arrays_of(message.content.array_records["arrays"])
        model["steps"] = np.concatenate([model["steps"], np.arange(steps.start, steps.stop)])
        metrics = MetricRecord({"num-examples": BATCH * len(steps), "lr": float(config.get("lr", 0.0))})  # type: ignore[arg-type]
        return Message(RecordDict({"arrays": record_of(model), "metrics": metrics}), reply_to=message)

    return app


def written(width: int) -> dict[str, ArrayRecord | ConfigRecord]:
    """An empty list of steps, in a model that tells how wide it is."""
    return {"arrays": record_of({"steps": np.zeros(0, dtype=np.int64), "w": np.zeros(width, dtype=np.float32)})}


def steps_in(reply: Message) -> tuple[list[int], int]:
    arrays = arrays_of(reply.content.array_records["arrays"])
    return arrays["steps"].tolist(), arrays["w"].size


def wrote(
    decide: Decide, size: int = 4, total: int = 10, nodes: int = 2, script: list[Fault] | None = None, **config: Any
) -> tuple[list[Message], SteppedGrid, Counting]:
    with LocalGrid(writer(), nodes=nodes, script=script or []) as local:
        counting = Counting(local)
        grid = SteppedGrid(counting, size, decide, poll_s=0.002)
        content = RecordDict({**written(8), "config": ConfigRecord({"local-steps": total, **config})})
        return list(grid.send_and_receive([Message(content, 1000, "train")], timeout=30)), grid, counting


def metrics_of(reply: Message) -> Mapping[str, Any]:
    return reply.content.metric_records["metrics"]
