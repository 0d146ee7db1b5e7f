"""A federation that computes gradients of least squares, and what a single machine makes of the same batches."""

from __future__ import annotations

import importlib.util
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients.gradients import gradient_mod
from flower_edge.wire import arrays_of, record_of

# Numba imports the package `coverage` if there is one. Where there is none, Python would find tests/coverage.
if getattr(importlib.util.find_spec("coverage"), "origin", None) is None:
    sys.modules["coverage"] = None  # type: ignore[assignment]

DIMENSION = 40


def start(dtype: Any = np.float64, dimension: int = DIMENSION) -> ArrayRecord:
    """Two arrays to train, and a counter that nobody trains."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, dimension // 4)).astype(dtype)
    return record_of({"weight": weight, "count": np.array(3), "bias": np.zeros(1, dtype)})


def gradient(weight: np.ndarray, bias: np.ndarray, node: int, step: int) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Of a node's batch of this step: of weight and bias, the mean over so many examples; and the loss."""
    rng = np.random.default_rng([node, step])
    x = rng.normal(size=(6 + 2 * node, weight.size)) + 0.1 * node
    y = x @ np.arange(weight.size) / weight.size + 0.5
    error = x @ weight.reshape(-1).astype(np.float64) + bias - y
    return (x.T @ error / len(x)).reshape(weight.shape), np.array([error.mean()]), len(x), float((error**2).mean())


class Seen:
    """Bytes of the models on which gradients were computed, by step."""

    def __init__(self) -> None:
        self.models: dict[int, list[bytes]] = defaultdict(list)

    def apart(self) -> list[int]:
        """Steps in which nodes had different models."""
        return [step for step, models in self.models.items() if len(set(models)) > 1]


def make_app(mods: Sequence[Any] = (), seen: Seen | None = None) -> ClientApp:
    """Nodes whose batches depend on node and step alone."""
    app = ClientApp(mods=[*mods, gradient_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = arrays_of(message.content["arrays"])  # type: ignore[arg-type]
        step = int(message.content["config"]["step"])  # type: ignore[index, arg-type, call-overload]
        if seen is not None:
            seen.models[step].append(arrays["weight"].tobytes() + arrays["bias"].tobytes())
        node = int(context.node_config["partition-id"])
        of_weight, of_bias, count, loss = gradient(arrays["weight"], arrays["bias"], node, step)
        dtype = arrays["weight"].dtype
        record = record_of({"weight": of_weight.astype(dtype), "bias": of_bias.astype(dtype)})
        metrics = MetricRecord({"num-examples": count, "loss": loss})
        return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        arrays = arrays_of(message.content["arrays"])  # type: ignore[arg-type]
        metrics = MetricRecord({"num-examples": 1, "norm": float(np.abs(arrays["weight"]).sum())})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def single_machine(
    updates: int,
    nodes: int,
    rate: Callable[[int], float],
    *,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    without: Mapping[int, Collection[int]] | None = None,
    dtype: Any = np.float64,
) -> np.ndarray:
    """Weight and bias after SGD, as torch.optim.SGD has it, on the union of the nodes' batches.

    Args:
        without: nodes whose batch is left out, by update.
    """
    model = arrays_of(start(dtype))
    x = np.concatenate([model["weight"].reshape(-1), model["bias"]]).astype(np.float64)
    velocity = np.zeros_like(x)
    for t in range(updates):
        total, count = np.zeros_like(x), 0
        for node in range(nodes):
            if node in (without or {}).get(t, ()):
                continue
            of_weight, of_bias, examples, _ = gradient(x[:-1].reshape(4, -1), x[-1:], node, t)
            total += examples * np.concatenate([of_weight.reshape(-1), of_bias])
            count += examples
        d = total / count + weight_decay * x
        velocity = momentum * velocity + d
        x = x - rate(t) * (d + momentum * velocity if nesterov else velocity)
    return x


def flat(record: ArrayRecord | None) -> np.ndarray:
    """Weight and bias as one vector."""
    assert record is not None
    arrays = arrays_of(record)
    return np.concatenate([arrays["weight"].reshape(-1), arrays["bias"]])
