"""A terminal: trains on its own data and tells its conditions. Where it is, whom it mixes with, who checks it and what
travels, it does not know.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from everything_app import task, world
from everything_app.config import Everything
from flower_edge.clients import answer_conditions, answer_properties, codec_mod, gossip_mod
from flower_edge.conditions import Conditions
from flower_edge.config import read_config
from flower_edge.models import get_arrays, set_arrays, train
from flower_edge.runtime.generators import derive_seed
from flower_edge.wire import arrays_of, record_of, server_round_of


def _place(context: Context) -> tuple[Everything, int, int]:
    config = read_config(Everything, context.run_config)
    return config, int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])


def _conditions(context: Context, now_s: float | None) -> Conditions:
    config, terminal, terminals = _place(context)
    return world.load(config, terminals).at(terminal, now_s or 0.0)


app = answer_properties(ClientApp(mods=[codec_mod, gossip_mod]))
answer_conditions(app, _conditions)


@app.train()
def train_here(message: Message, context: Context) -> Message:
    """A few steps of SGD; one that is faulty sends noise instead."""
    config, terminal, terminals = _place(context)
    own = task.data(config).train.subset(task.partition(config, terminals)[terminal])
    seed = derive_seed(config.seed, terminal, server_round_of(message) or 0)
    model = task.model(config)
    set_arrays(model, arrays_of(message.content.array_records["arrays"]))
    done = train(
        model,
        own.x,
        own.y,
        steps=config.train.steps,
        batch_size=config.train.batch_size,
        lr=config.train.learning_rate,
        momentum=config.train.momentum,
        seed=seed,
    )
    arrays: dict[str, NDArray[Any]] = dict(get_arrays(model))
    if terminal in config.faults.noisy:
        rng = np.random.default_rng(seed)
        arrays = {name: rng.normal(0.0, 2.0, a.shape).astype(a.dtype) for name, a in arrays.items()}
    metrics = MetricRecord({"num-examples": done.examples, "train_loss": done.loss, "steps": done.steps})
    return Message(RecordDict({"arrays": record_of(arrays), "metrics": metrics}), reply_to=message)
