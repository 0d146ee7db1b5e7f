"""A node: trains on its own data from whatever model it is given. What it mixes, and with whom, is the mod's."""

from __future__ import annotations

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients import answer_properties
from flower_edge.clients.gossip import gossip_mod
from flower_edge.config import read_config
from flower_edge.models import evaluate, get_arrays, set_arrays, train
from flower_edge.runtime.generators import derive_seed
from flower_edge.wire import arrays_of, record_of, server_round_of
from gossip_app import task
from gossip_app.config import Gossip

app = answer_properties(ClientApp(mods=[gossip_mod]))


@app.train()
def train_here(message: Message, context: Context) -> Message:
    """A few steps of SGD."""
    config = read_config(Gossip, context.run_config)
    (node, nodes), number = task.place(config, context.node_config), server_round_of(message) or 0
    own = task.datasets(config)[0].subset(task.partition(config, nodes)[node])
    model = task.model(config)
    set_arrays(model, arrays_of(message.content.array_records["arrays"]))
    chosen = task.task_of(config)
    done = train(
        model,
        own.x,
        own.y,
        steps=chosen.steps,
        batch_size=config.train.batch_size,
        lr=chosen.learning_rate * config.train.decay**number,
        momentum=config.train.momentum,
        seed=derive_seed(config.seed, node, number),
    )
    metrics = MetricRecord({"num-examples": done.examples, "loss": done.loss})
    return Message(RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate_here(message: Message, context: Context) -> Message:
    """This node's own model on the common test data, every few rounds."""
    config = read_config(Gossip, context.run_config)
    _, test = task.datasets(config)
    metrics = MetricRecord({"num-examples": len(test)})
    number = server_round_of(message) or 0
    if number % config.evaluate_every == 0 or number == config.rounds:
        model = task.model(config)
        set_arrays(model, arrays_of(message.content.array_records["arrays"]))
        found = evaluate(model, test.x, test.y, batch_size=256)
        metrics["accuracy"], metrics["loss"] = found.accuracy, found.loss
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
