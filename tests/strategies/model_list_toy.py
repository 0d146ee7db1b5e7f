"""Five classes of device that train one model in sizes, on a virtual clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from submodel_toy import data_of

from flower_edge.clients.conditions import answer_conditions
from flower_edge.clients.model_list import Choose, model_list
from flower_edge.clients.submodel import submodel
from flower_edge.conditions import Conditions
from flower_edge.models import NumpyMLP, get_arrays, train
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import Layered, SubModels
from flower_edge.strategies.provision.choosing import Choice
from flower_edge.strategies.provision.model_list import ModelList
from flower_edge.submodels.catalogue import mlp_catalogue
from flower_edge.submodels.mlp import mlp_groups
from flower_edge.submodels.step_times import slowdown
from flower_edge.wire import record_of

SIZES = (6, 64, 3)
MODELS = mlp_catalogue(SIZES, {"a": 1.0, "b": 0.5, "c": 0.25, "d": 0.125, "e": 0.0625})
STEPS, BATCH = 4, 8
#: FLOP/s of each terminal, one of each class.
SPEEDS = [1e6 / 2**place for place in range(5)]
#: Load of a terminal by its number and the time.
Load = Callable[[int, float], float]


def variant_in(model: NumpyMLP) -> Any:
    """The variant that a model is."""
    return next(one for one in MODELS if one.shapes["linear0.weight"][0] == model.sizes[1])


def app(
    load: Load | None = None,
    *,
    choose: Choose | None = None,
    measured: bool = True,
    fast: float = 1.0,
    listed: bool = True,
) -> ClientApp:
    """Terminals of five classes.

    Args:
        load: told with every answer and reply; the clock slows down by it.
        choose: from the list.
        measured: whether they answer the list with times.
        fast: by how much too fast they say they are.
        listed: whether they know the question at all.
    """
    client = ClientApp()

    def conditions(context: Context, now_s: float | None) -> Conditions:
        number = int(context.node_config["partition-id"])
        return Conditions(load=0.0 if load is None else load(number, now_s or 0.0))

    def measure(context: Context, now_s: float | None, one: Any) -> float | None:
        busy = slowdown(conditions(context, now_s).load)
        number = int(context.node_config["partition-id"])
        return busy * one.train_flops * BATCH / SPEEDS[number] / fast if measured else None

    answer_conditions(client, conditions)

    @client.train()
    def train_(message: Message, context: Context) -> Message:
        number, config = int(context.node_config["partition-id"]), message.content.config_records["config"]
        model = submodel(message, NumpyMLP(SIZES))
        x, y = data_of(number)
        result = train(model, x, y, steps=STEPS, batch_size=BATCH, lr=0.1, seed=int(config["server-round"]))  # type: ignore[arg-type]
        flops = STEPS * BATCH * variant_in(model).train_flops
        metrics = MetricRecord({"num-examples": len(x), "steps": result.steps, "flops": flops})
        return Message(RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics}), reply_to=message)

    if not listed:
        return client
    return model_list(client, lambda: NumpyMLP(SIZES), data_of(0), choose=choose, source=conditions, measure=measure)


def layered(choice: Choice, **how: Any) -> tuple[Layered, ModelList]:
    """A strategy with a list."""
    listed = ModelList(MODELS, choice, batch=BATCH, **how)
    return Layered(SubModels(FedAvg(fraction_evaluate=0.0), mlp_groups(SIZES), assign=listed.assign), listed), listed


def clock_of(local: LocalGrid, load: Load | None = None, link: Link | None = None) -> VirtualClock:
    """Devices of five speeds."""

    def slower(key: int | str, time_s: float) -> float:
        return 1.0 if load is None else slowdown(load(int(key), time_s))

    devices = [Device(flops_per_s=speed) for speed in SPEEDS]
    return VirtualClock(local, devices, [link or Link()] * len(SPEEDS), slowdown=slower)


def whole() -> Any:
    """The model a run begins with."""
    return record_of(NumpyMLP(SIZES).arrays())


def seeded() -> None:
    """Flower samples by the global generator."""
    random.seed(3)
