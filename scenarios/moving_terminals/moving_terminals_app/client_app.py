"""A terminal: trains in slices on its own data, and tells its conditions. It knows nothing of edges and where it is."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients import (
    answer_availability,
    answer_conditions,
    answer_properties,
    step_mod,
    steps_of,
    wants_new_data,
)
from flower_edge.conditions import Conditions
from flower_edge.config import read_config
from flower_edge.models import get_arrays, set_arrays, train
from flower_edge.runtime import NodeState
from flower_edge.runtime.generators import derive_seed
from flower_edge.wire import arrays_of, record_of, server_round_of
from moving_terminals_app import task, world
from moving_terminals_app.config import MovingTerminals


def _place(context: Context) -> tuple[MovingTerminals, int, int]:
    config = read_config(MovingTerminals, context.run_config)
    return config, int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])


def _conditions(context: Context, now_s: float | None) -> Conditions:
    config, terminal, terminals = _place(context)
    return world.load_model(config, terminals).at(terminal, now_s or 0.0)


def _willing(context: Context) -> bool:
    config, terminal, _ = _place(context)
    return world.willing(config, terminal)


app = answer_properties(ClientApp(mods=[step_mod]))
answer_conditions(app, _conditions)
answer_availability(app, available=_willing, requested=_willing)


@app.train()
def train_here(message: Message, context: Context) -> Message:
    """The steps of this slice, with the velocity the last one left."""
    config, terminal, terminals = _place(context)
    own = task.datasets(config)[0].subset(task.partition(config, terminals)[terminal])
    if config.on_exit == "new-data":
        own = task.collected(own, new=wants_new_data(message))
    model = task.model(config)
    arrays = message.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    set_arrays(model, arrays_of(arrays))
    steps, memory = steps_of(message), NodeState(context, "velocity")
    done = train(
        model,
        own.x,
        own.y,
        steps=len(steps),
        first_step=steps.start,
        velocity=memory.load() if steps.start else None,
        batch_size=config.train.batch_size,
        lr=config.train.learning_rate,
        momentum=config.train.momentum,
        seed=derive_seed(config.seed, terminal, server_round_of(message) or 0),
    )
    memory.save(dict(done.velocity))
    # Samples of this slice: partial work then weighs what was done of it.
    metrics = MetricRecord({"num-examples": done.examples, "loss": done.loss, "steps": done.steps})
    return Message(RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics}), reply_to=message)
