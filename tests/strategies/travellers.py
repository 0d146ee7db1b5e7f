"""Terminals that train in slices and a world in which they move, for the tests of coverage in a federation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients import step_mod, steps_of, wants_new_data
from flower_edge.coverage import ByFunction
from flower_edge.rounds import Round
from flower_edge.runtime import Device, Link, VirtualClock
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.wire import arrays_of, record_of

STEPS = 8
CONFIG = {"local-steps": STEPS}
ONE: dict[str, Any] = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}


def start_model() -> ArrayRecord:
    return record_of({"w": np.zeros(3), "count": np.zeros(1, np.int64)})


def app(told: list[tuple[int, int, str]] | None = None) -> ClientApp:
    """Each step goes towards the node's own goal; one example a step; `told` notes (node, step, "new" or "")."""
    made = ClientApp(mods=[step_mod])

    @made.train()
    def train(message: Message, context: Context) -> Message:
        node = int(context.node_config["partition-id"])
        config = message.content.config_records["config"]
        model, steps = arrays_of(message.content.array_records["arrays"]), steps_of(message)
        for step in steps:
            goal = np.random.default_rng([node, step, int(config["server-round"])]).normal(float(node), 1.0, 3)
            model["w"] = model["w"] + 0.1 * (goal - model["w"])
            model["count"] = model["count"] + 1
            if told is not None:
                told.append((node, step, "new" if wants_new_data(message) else ""))
        metrics = MetricRecord({"num-examples": len(steps), "steps": len(steps)})
        return Message(RecordDict({"arrays": record_of(model), "metrics": metrics}), reply_to=message)

    @made.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict({"m": MetricRecord({"num-examples": 1, "loss": 0.0})}), reply_to=message)

    return made


def clock(local: LocalGrid, step_s: Sequence[float]) -> VirtualClock:
    return VirtualClock(local, [Device(step_s=s) for s in step_s], [Link()] * len(step_s))


def world(cells: Sequence[str], paths: Sequence[Mapping[float, str | None]]) -> ByFunction:
    """Terminals by their paths, `{from when: cell}` each, from 0 s on."""

    def where(time_s: float) -> list[str | None]:
        return [path[max(at for at in path if at <= time_s)] for path in paths]

    return ByFunction(cells, len(paths), where)


def order(node: int, number: int, arrays: ArrayRecord | None = None, steps: int = STEPS) -> Message:
    config = ConfigRecord({**CONFIG, "local-steps": steps, "server-round": number})
    content = RecordDict({"arrays": start_model() if arrays is None else arrays, "config": config})
    return Message(content, node, "train")


def alone(node: int, number: int, steps: int, arrays: ArrayRecord | None = None) -> np.ndarray:
    """`w` after a node has made the first so many steps of a round, by hand."""
    w = arrays_of(start_model() if arrays is None else arrays)["w"]
    for step in range(steps):
        goal = np.random.default_rng([node - 1000, step, number]).normal(float(node - 1000), 1.0, 3)
        w = w + 0.1 * (goal - w)
    return w


def train_round(cloud: int, edge: int = 0, cell: str = "") -> Round:
    return Round(cloud, edge, cell, "train")
