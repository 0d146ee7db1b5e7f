"""A small federation that is tuned, for tests: nodes that report what a function says."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from toy import initial_model, toy_app

from flower_edge.clients.tuning import proposed, report
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import Layer, Layered, LayeredGrid
from flower_edge.strategies.tuned import Tuned, TunedState
from flower_edge.tuning import Choice, Count, LogScale, Value

KINDS = {"lr": LogScale(1e-4, 1.0), "batch-size": Count(4, 128), "loss": Choice(("ce", "mse"))}
START: dict[str, Value] = {"lr": 0.01, "batch-size": 32, "loss": "ce"}
NODES = 6

#: What a node makes of its proposal: a report and its score, or nothing.
Telling = Callable[[int, dict[str, Value]], tuple[Mapping[str, Any], Any] | None]


def telling_app(tell: Telling, seen: list[tuple[int, dict[str, Value]]] | None = None) -> ClientApp:
    """The toy federation, whose nodes report what `tell` says."""

    def mod(message: Message, context: Context, call_next: Any) -> Message:
        node, values = int(context.node_config["partition-id"]), proposed(message)
        if seen is not None:
            seen.append((node, values))
        reply: Message = call_next(message, context)
        told = tell(node, values)
        if told is not None and message.metadata.message_type == "train":
            reply.content = report(reply.content, *told)
        return reply

    return toy_app([mod])


def doubling(node: int, values: dict[str, Value]) -> tuple[Mapping[str, Any], Any]:
    return {**values, "lr": min(float(values["lr"]) * 2.0, 1.0)}, 0.1 * node


def layer(**options: Any) -> Tuned:
    return Tuned(KINDS, START, **options)


class Keeping(FedAvg):
    """Keeps the Grid it was given, with the layers' states."""

    def __init__(self, **options: Any) -> None:
        super().__init__(fraction_evaluate=0.0, **options)
        self.kept: list[LayeredGrid] = []

    def configure_train(self, *arguments: Any) -> Any:
        self.kept.append(arguments[-1])
        return super().configure_train(*arguments)


def run(app: ClientApp, *layers: Layer[Any], rounds: int = 3, nodes: int = NODES) -> TunedState:
    """The state of the first layer after some rounds."""
    random.seed(2)
    strategy = Keeping()
    with LocalGrid(app, nodes) as grid:
        Layered(strategy, *layers).start(grid, initial_model(), num_rounds=rounds)
    state: TunedState = strategy.kept[0].states[0]
    return state
