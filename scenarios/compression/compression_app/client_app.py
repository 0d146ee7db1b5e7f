"""A terminal: trains on its own data from whatever model it is given. What travels is the mod's."""

from __future__ import annotations

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from compression_app import task
from compression_app.config import Compression
from flower_edge.clients import answer_properties, codec_mod
from flower_edge.config import read_config
from flower_edge.models import get_arrays, set_arrays, train
from flower_edge.runtime.generators import derive_seed
from flower_edge.wire import arrays_of, record_of, server_round_of

app = answer_properties(ClientApp(mods=[codec_mod]))


@app.train()
def train_here(message: Message, context: Context) -> Message:
    """A few steps of SGD."""
    config = read_config(Compression, context.run_config)
    terminal, terminals = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    own = task.datasets(config)[0].subset(task.partition(config, terminals)[terminal])
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
