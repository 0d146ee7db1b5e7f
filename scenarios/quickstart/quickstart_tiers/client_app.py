"""A terminal: trains and evaluates on its own data. Nothing in it knows that there are tiers."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients import answer_properties
from flower_edge.config import read_config
from flower_edge.data import Dataset
from flower_edge.models import Model, evaluate, get_arrays, set_arrays, train
from flower_edge.runtime.generators import derive_seed
from flower_edge.wire import arrays_of, record_of, server_round_of
from quickstart_tiers import task
from quickstart_tiers.config import Quickstart

app = answer_properties(ClientApp())


def _prepare(message: Message, context: Context) -> tuple[Quickstart, Model, Dataset, int]:
    config = read_config(Quickstart, context.run_config)
    terminal, terminals = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    own = task.datasets(config)[0].subset(task.partition(config, terminals)[terminal])
    model = task.model(config)
    arrays = message.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    set_arrays(model, arrays_of(arrays))
    return config, model, own, terminal


@app.train()
def train_here(message: Message, context: Context) -> Message:
    """`local-steps` steps of SGD on the terminal's own data."""
    config, model, own, terminal = _prepare(message, context)
    done = train(
        model,
        own.x,
        own.y,
        steps=config.local_steps,
        batch_size=config.train.batch_size,
        lr=config.train.learning_rate,
        momentum=config.train.momentum,
        seed=derive_seed(config.seed, terminal, server_round_of(message) or 0),
    )
    metrics = MetricRecord({"num-examples": len(own.y), "loss": done.loss, "steps": done.steps})
    return Message(RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate_here(message: Message, context: Context) -> Message:
    """Loss and accuracy on the terminal's own data."""
    _, model, own, _ = _prepare(message, context)
    found = evaluate(model, own.x, own.y, batch_size=256)
    metrics = MetricRecord({"num-examples": len(own.y), "loss": found.loss, "accuracy": found.accuracy})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
