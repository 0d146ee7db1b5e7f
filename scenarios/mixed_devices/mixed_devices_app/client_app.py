"""A terminal: trains the model it was given, whole or smaller, or a piece of one; asks for less when it is loaded.

A tiny or small terminal trains in NumPy, and never imports torch. What it is given is decided elsewhere.
"""

from __future__ import annotations

import numpy as np
from flwr.app import Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from numpy.typing import NDArray

from flower_edge.clients import answer_properties, step_mod, steps_of
from flower_edge.clients.model_list import model_list
from flower_edge.clients.pieces import pieces_client
from flower_edge.clients.steps import request
from flower_edge.clients.submodel import submodel
from flower_edge.conditions import Conditions
from flower_edge.config import read_config
from flower_edge.models import get_arrays, train
from flower_edge.runtime import NodeState
from flower_edge.runtime.error_codes import NODE_UNAVAILABLE
from flower_edge.runtime.generators import derive_seed
from flower_edge.runtime.pieces.messages import PIECE_RECORD, TRAIN, PieceCall
from flower_edge.runtime.splitting.messages import SPLIT_RECORD, Asked
from flower_edge.splitting import Capacity
from flower_edge.submodels.carried import carried
from flower_edge.submodels.catalogue import Variant
from flower_edge.wire import record_of, server_round_of
from mixed_devices_app import devices, task
from mixed_devices_app.config import MixedDevices

Velocity = dict[str, NDArray[np.float32]]
#: A model is too slow where a step takes so many times as long as the deadline leaves for it.
PATIENCE = 1.5


def _place(context: Context) -> tuple[MixedDevices, int, int]:
    config = read_config(MixedDevices, context.run_config)
    return config, int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])


def _segment(context: Context, segment: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    config, _, terminals = _place(context)
    own = task.hall_data(config, terminals)
    return own.x, own.y


def _left(context: Context, number: int) -> Capacity:
    return devices.capacity(_place(context)[1])


def _measured_s(context: Context, now_s: float | None, variant: Variant) -> float:
    config, terminal, _ = _place(context)
    return devices.step_s(config, terminal, variant)


def _conditions(context: Context, now_s: float | None) -> Conditions:
    return Conditions(memory_free_bytes=devices.device(_place(context)[1]).memory_bytes)


def leaving(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A Flower mod: a terminal of the hall that has gone does not answer to pieces."""
    if message.metadata.message_type.partition(".")[2] not in ("piece", "pieces"):
        return call_next(message, context)
    config, terminal, _ = _place(context)
    records = message.content.config_records
    if message.metadata.message_type == TRAIN:
        call = PieceCall.read(records.get(PIECE_RECORD), sender="the server")
        number, half = call.piece.work.round, config.hall.steps // 2
        gone = devices.leaves(config, terminal, number) and call.heard is not None and call.heard[1] >= half
    else:
        number, gone = Asked.read(records.get(SPLIT_RECORD), sender="the server").round, False
    if gone or devices.away(config, terminal, number):
        return Message(Error(NODE_UNAVAILABLE, "its owner took it home"), reply_to=message)
    return call_next(message, context)


app = answer_properties(ClientApp(mods=[leaving, step_mod]))
# Whole models and pieces, in one program: which of them a terminal trains is for its edge to say.
pieces_client(_segment, app=app, capacity=_left, modelled=True)
# Never called: on a virtual clock nothing is timed, `measure` says what a step takes.
model_list(
    app,
    lambda: None,
    lambda context: (np.zeros((1, 1), np.float32), np.zeros(1, np.int64)),
    measure=_measured_s,
    source=_conditions,
)


@app.train()
def train_here(message: Message, context: Context) -> Message:
    """The steps of this slice with the model of this slice, and a request where it is too slow, or no longer so."""
    config, terminal, terminals = _place(context)
    number, steps = server_round_of(message) or 0, steps_of(message)
    own = task.own_data(config, terminal, terminals)
    model = submodel(message, task.model_of(config, devices.device(terminal).model))
    shapes = {name: array.shape for name, array in get_arrays(model).items()}
    memory = NodeState(context, "velocity")
    done = train(
        model,
        own.x,
        own.y,
        steps=len(steps),
        first_step=steps.start,
        velocity=_velocity(memory.load() if steps.start else None, shapes),
        batch_size=config.train.batch_size,
        lr=config.train.learning_rate,
        momentum=config.train.momentum,
        seed=derive_seed(config.seed, terminal, number),
    )
    memory.save({f"{name}::momentum_buffer": array for name, array in done.velocity.items()})
    arrays = get_arrays(model)
    variant = next(one for one in task.models(config) if dict(one.shapes) == shapes)
    metrics = MetricRecord(
        {
            "num-examples": done.examples,
            "loss": done.loss,
            "steps": done.steps,
            "flops": done.steps * config.train.batch_size * variant.train_flops,
            # Of the steps just made, and what a VirtualClock makes longer by it.
            "load": devices.load(config, terminal, number, steps.start),
        }
    )
    content = RecordDict({"arrays": record_of(arrays), "metrics": metrics})
    if message.content.config_records["config"].get("quiet"):
        return Message(content, reply_to=message)
    return Message(_asking(content, config, terminal, variant, number, steps.stop, context), reply_to=message)


def _asking(
    content: RecordDict,
    config: MixedDevices,
    terminal: int,
    variant: Variant,
    number: int,
    step: int,
    context: Context,
) -> RecordDict:
    """The content, with a request where the next step of it would take too long, or a larger model has become easy.

    A terminal asks for larger models as often as it has asked for smaller ones: more is not for it to want.
    """
    if devices.device(terminal).name == "hall" or step >= config.train.steps:
        return content
    memory = NodeState(context, "asked")
    kept = memory.load()
    down = int(kept["down"]) if kept else 0
    load = devices.load(config, terminal, number, step)
    limit_s = PATIENCE * config.model.deadline_s / config.train.steps
    if devices.step_s(config, terminal, variant, load) > limit_s:
        if variant.rate > task.RATES[-1]:
            memory.save({"down": down + 1})
            return request(content, "smaller-model", load=load)
    elif down and not load:
        memory.save({"down": down - 1})
        return request(content, "larger-model", load=load)
    return content


def _velocity(state: Velocity | None, shapes: dict[str, tuple[int, ...]]) -> Velocity | None:
    """Of the parameters that are as they were before; the others begin at rest."""
    if state is None:
        return None
    kept = carried(state, shapes).state
    return {name: kept.get(f"{name}::momentum_buffer", np.zeros(shape, np.float32)) for name, shape in shapes.items()}
