"""A small federation for split learning: three devices, a model with BatchNorm, and plain FedAvg to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedAvgM, Strategy
from flwr.serverapp.strategy.fedopt import FedOpt
from torch import nn

from flower_edge.clients.split import split_client
from flower_edge.models import train_torch
from flower_edge.runtime import LocalGrid
from flower_edge.splitting.capacity import Capacity
from flower_edge.splitting.order import ArchitectureSpec, OptimiserSpec
from flower_edge.strategies.splitting.split import Split
from flower_edge.wire import arrays_of, record_of

#: Samples of each device; no batch of one, which BatchNorm refuses.
SAMPLES = (14, 10, 18)
BATCH, STEPS, MERGE = 4, 2, 2
FEATURES, CLASSES = 12, 3
MOMENTUM = OptimiserSpec(lr=0.1, options={"momentum": 0.9})
SPEC = ArchitectureSpec(name="small", input_shape=(FEATURES,), num_classes=CLASSES)


def small(input_shape: Sequence[int], num_classes: int, drop: float = 0.0) -> nn.Sequential:
    """Six units, one of them with buffers."""
    parts: list[nn.Module] = [nn.Linear(input_shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU()]
    return nn.Sequential(*parts, *([nn.Dropout(drop)] if drop else []), nn.Linear(6, num_classes))


MODELS: dict[str, Callable[..., nn.Module]] = {"small": small}
#: Units of the model above.
UNITS = 6


def samples(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one device."""
    rng = np.random.default_rng(100 + number)
    x = (rng.normal(size=(SAMPLES[number % len(SAMPLES)], FEATURES)) + 0.3 * number).astype(np.float32)
    return x, (x[:, :CLASSES] + 0.1 * rng.normal(size=(len(x), CLASSES))).argmax(axis=1).astype(np.int64)


def number_of(context: Context) -> int:
    """Of the node."""
    return int(context.node_config["partition-id"])


def steady(context: Context, round: int) -> Capacity:
    """What every device says it has left."""
    return Capacity(1e6 * (1 + number_of(context)), up_bps=1e6, down_bps=2e6, delay_s=0.001)


def device_app(mods: list[Any] | None = None, **options: Any) -> ClientApp:
    """Devices that train; with an evaluation of their own."""
    app = ClientApp(mods=mods or [])

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        model = initial()
        train_torch.set_arrays(model, arrays_of(message.content["arrays"]))  # type: ignore[arg-type]
        found = train_torch.evaluate(model, *samples(number_of(context)))
        metrics = MetricRecord({"num-examples": found.examples, "loss": found.loss, "accuracy": found.accuracy})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    told = {"models": MODELS, "capacity": steady, "modelled": True, **options}
    return split_client(told.pop("data", lambda context: samples(number_of(context))), app=app, **told)


def initial() -> nn.Sequential:
    """The model all begin from."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return small((FEATURES,), CLASSES)


def start() -> ArrayRecord:
    """Its arrays."""
    return record_of(train_torch.get_arrays(initial()))


def split(**options: Any) -> Split:
    """A `Split` of the toy's sizes."""
    told: dict[str, Any] = {
        "steps_per_round": STEPS,
        "batch_size": BATCH,
        "merge_every": MERGE,
        "optimiser": MOMENTUM,
        "models": MODELS,
        **options,
    }
    return Split(told.pop("architecture", SPEC), **told)


def fedavg(
    merges: int, strategy: Strategy | None = None, *, steps: Mapping[tuple[int, int], int] | None = None
) -> ArrayRecord:
    """Plain federated training of the whole model: SGD with momentum, MERGE x STEPS steps, then merged.

    Args:
        merges: how many rounds of it.
        strategy: merges; FedAvg by default.
        steps: by merge, from 0 on, and device: where a device makes fewer.
    """
    merging, model, arrays, done = strategy or FedAvg(), initial(), start(), [0, 0, 0]
    for merge in range(merges):
        if isinstance(merging, FedAvgM):
            merging.current_arrays = arrays
        elif isinstance(merging, FedOpt):
            merging.current_arrays = {name: array.numpy() for name, array in arrays.items()}
        models: dict[int, ArrayRecord] = {}
        for number in range(3):
            if not (count := (steps or {}).get((merge, number), MERGE * STEPS)):
                continue
            train_torch.set_arrays(model, arrays_of(arrays))
            train_torch.train(
                model,
                *samples(number),
                steps=count,
                batch_size=BATCH,
                lr=0.1,
                momentum=0.9,
                seed=number,
                first_step=done[number],
            )
            done[number] += count
            models[number] = record_of(train_torch.get_arrays(model))
        arrays = merged(models, merging, merge + 1)
    return arrays


def averaged(models: Sequence[ArrayRecord]) -> ArrayRecord:
    """What FedAvg makes of all devices' models."""
    return merged(dict(enumerate(models)), FedAvg())


def merged(models: dict[int, ArrayRecord], merging: Strategy, round: int = 1) -> ArrayRecord:
    """What a strategy makes of models, by device."""
    replies = []
    with LocalGrid(ClientApp(), 0):  # messages are made in a run only
        for number, model in models.items():
            metrics = MetricRecord({"num-examples": len(samples(number)[0]), "train_loss": 0.0})
            content = RecordDict({"arrays": model, "metrics": metrics})
            replies.append(Message(content, reply_to=Message(RecordDict(), 1000 + number, "train")))
    found, _ = merging.aggregate_train(round, replies)
    assert found is not None
    return found
