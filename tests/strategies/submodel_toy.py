"""A federation that trains one hidden layer in widths: digits made of noise around ten patterns."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy

from flower_edge.clients.submodel import submodel
from flower_edge.models import NumpyMLP, get_arrays, train
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.submodels.mlp import mlp_groups
from flower_edge.wire import arrays_of, record_of

SIZES = (6, 8, 3)
GROUPS = mlp_groups(SIZES)


def whole(seed: int = 0) -> ArrayRecord:
    """The model a run begins with."""
    return record_of(NumpyMLP(SIZES, seed).arrays())


def data_of(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one node."""
    rng = np.random.default_rng(50 + number)
    x = rng.normal(size=(20 + 4 * number, SIZES[0])).astype(np.float32)
    return x, x[:, : SIZES[-1]].argmax(axis=1).astype(np.int64)


def app(
    seen: dict[tuple[int, int], Message] | None = None, broken: int = -1, mods: list[Any] | None = None
) -> ClientApp:
    """Clients that train what they are given.

    Args:
        seen: gets every message by round and partition.
        broken: the partition that always sends the whole model.
        mods: around the train function.
    """
    client = ClientApp()

    @client.train(mods=mods or [])
    def train_(message: Message, context: Context) -> Message:
        number, config = int(context.node_config["partition-id"]), message.content.config_records["config"]
        round_ = int(config["server-round"])  # type: ignore[arg-type]
        if seen is not None:
            seen[round_, number] = message
        model = submodel(message, NumpyMLP(SIZES)) if number != broken else NumpyMLP(SIZES)
        x, y = data_of(number)
        result = train(model, x, y, steps=4, batch_size=8, lr=0.1, seed=10 * round_ + number)
        metrics = MetricRecord({"num-examples": len(x), "loss": result.loss})
        return Message(RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics}), reply_to=message)

    @client.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        x, y = data_of(int(context.node_config["partition-id"]))
        model = submodel(message, NumpyMLP(SIZES))
        found = float((model.scores(x).argmax(1) == y).mean())
        metrics = MetricRecord({"num-examples": len(x), "accuracy": found, "width": model.sizes[1]})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return client


def run(strategy: Strategy, rounds: int = 3, client: ClientApp | None = None, nodes: int = 4, **how: Any) -> Any:
    """A run from the same model with the same draws."""
    random.seed(3)
    np.random.seed(3)
    with LocalGrid(client or app(), nodes) as grid:
        return strategy.start(grid, whole(), num_rounds=rounds, **how)


def numbers(record: ArrayRecord) -> dict[str, Any]:
    """The arrays of a record."""
    return arrays_of(record)
