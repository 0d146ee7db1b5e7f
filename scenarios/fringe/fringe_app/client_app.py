"""A terminal: trains the whole model on its own digits. Nothing in it knows how the model will be served."""

from __future__ import annotations

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients import answer_properties
from flower_edge.config import read_config
from flower_edge.models import get_arrays, set_arrays, train
from flower_edge.runtime.generators import derive_seed
from flower_edge.wire import arrays_of, record_of, server_round_of
from fringe_app import task
from fringe_app.config import FringeRun

app = answer_properties(ClientApp())


@app.train()
def train_here(message: Message, context: Context) -> Message:
    """A few steps of SGD."""
    config = read_config(FringeRun, context.run_config)
    terminal, terminals = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    own = task.terminals_data(config).subset(task.partition(config, terminals)[terminal])
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
        seed=derive_seed(config.seed, terminal, server_round_of(message) or 0),
    )
    metrics = MetricRecord({"num-examples": len(own), "loss": done.loss})
    return Message(RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics}), reply_to=message)
