"""Terminals that go a third of the way to a goal of their own, under `Hierarchical`: small enough to do by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result

from flower_edge.rounds import Round
from flower_edge.runtime import Device, Link, LocalGrid, VirtualClock
from flower_edge.store import RunFolder
from flower_edge.wire import arrays_of, record_of

ONE: dict[str, Any] = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}
START = record_of({"w": np.zeros(2)})


def goal(node: int) -> np.ndarray:
    return np.array([1.0 + node, (-2.0) ** node])


def seeking_app() -> ClientApp:
    """Every terminal goes a third of the way to its own goal; it has ten times as many examples as its number."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        node = int(context.node_config["partition-id"])
        w = arrays_of(message.content["arrays"])["w"]  # type: ignore[arg-type]
        metrics = MetricRecord({"num-examples": 10 * (node + 1), "steps": 1})
        content = RecordDict({"arrays": record_of({"w": w + (goal(node) - w) / 3}), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        w = arrays_of(message.content["arrays"])["w"]  # type: ignore[arg-type]
        metrics = MetricRecord({"num-examples": 10, "loss": float(np.sum(w**2))})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def one_each(cell: str) -> FedAvg:
    return FedAvg(**ONE, fraction_evaluate=0.0)


def run(
    strategy: Any, nodes: int = 4, rounds: int = 4, seconds: list[float] | None = None, **options: Any
) -> tuple[Result, Grid]:
    with LocalGrid(seeking_app(), nodes) as local:
        grid: Grid = local
        if seconds is not None:
            grid = VirtualClock(local, [Device(fixed_s=s) for s in seconds], [Link()] * nodes)
        return strategy.start(grid, START, num_rounds=rounds, **options), grid


def w(result: Result) -> np.ndarray:
    assert result.arrays is not None
    return arrays_of(result.arrays)["w"]


def recorded(folder: Path, strategy: Any, **options: Any) -> tuple[Result, RunFolder]:
    with RunFolder.create("test", config={}, seed=0, root=folder) as run_folder:
        result, _ = run(strategy, run=run_folder, **options)
        run_folder.finish({})
    return result, RunFolder.open("latest", root=folder)


def away(rounds: set[int]) -> Any:
    def reachable(round: Round, cell: str) -> bool:
        return cell != "edge-1" or round.cloud not in rounds

    return reachable
