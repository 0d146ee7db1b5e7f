"""A terminal: trains on its own data and, where the config says so, does it wrong. Who checks it, it does not know."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from filter_reward_app import task
from filter_reward_app.config import FilterAndReward
from flower_edge.clients import answer_properties
from flower_edge.config import read_config
from flower_edge.models import get_arrays, set_arrays, train
from flower_edge.runtime import NodeState
from flower_edge.runtime.generators import derive_seed
from flower_edge.wire import arrays_of, record_of, server_round_of

#: How many times as many examples as it has, says who inflates.
INFLATED = 1000

app = answer_properties(ClientApp())


@app.train()
def train_here(message: Message, context: Context) -> Message:
    """Epochs of SGD on the terminal's own data; then what its fault makes of it."""
    config = read_config(FilterAndReward, context.run_config)
    terminal, terminals = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    order, number = message.content.config_records["config"], server_round_of(message) or 0
    fault = config.faults.of_terminals.get(terminal, "") if order["faults"] else ""
    own = task.own_data(config, terminal, terminals)
    if order["faults"] and task.edge_of(config, terminal, terminals) in config.faults.of_edges:
        own = task.too_high(own)
    if fault == "label-flip":
        own = task.flipped(own)
    given = message.content["arrays"]
    assert isinstance(given, ArrayRecord)
    model = task.model(config)
    set_arrays(model, arrays_of(given))
    seed = derive_seed(config.seed, terminal, number)
    # Without a gate the model may be NaN from the first round on.
    with np.errstate(all="ignore"):
        done = train(
            model,
            own.x,
            own.y,
            epochs=config.train.epochs,
            batch_size=config.train.batch_size,
            lr=config.train.learning_rate,
            momentum=config.train.momentum,
            seed=seed,
        )
    arrays: dict[str, NDArray[Any]] = dict(get_arrays(model))
    if fault == "noise":
        rng = np.random.default_rng(seed)
        arrays = {
            name: (a + rng.normal(0.0, float(np.std(a)) + 0.1, a.shape)).astype(a.dtype) for name, a in arrays.items()
        }
    elif fault == "nan":
        arrays = {name: np.full_like(a, np.nan) for name, a in arrays.items()}
    elif fault == "free-rider":
        arrays = dict(arrays_of(given))
    elif fault == "stale":
        memory = NodeState(context, f"first-{order['run']!s}")
        first = memory.load()
        if first is None:
            memory.save(dict(arrays))
        else:
            arrays = {name: np.asarray(a) for name, a in first.items()}
    examples = len(own.y) * (INFLATED if fault == "inflated" else 1)
    metrics = MetricRecord({"num-examples": examples, "loss": done.loss, "steps": done.steps})
    return Message(RecordDict({"arrays": record_of(arrays), "metrics": metrics}), reply_to=message)
