"""fe_tiers_edge: a terminal. What it makes of a model follows from who it is, the round, and what it remembers."""

import time

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients import answer_properties
from flower_edge.runtime.node_state import NodeState

app = answer_properties(ClientApp())


@app.train()
def train(message: Message, context: Context) -> Message:
    """Move every weight a little; the seventh round that a terminal remembers is unlike the sixth."""
    time.sleep(float(context.run_config.get("slow-s", 0.0)))
    partition = int(context.node_config["partition-id"])
    memory = NodeState(context, "count", durable=True)
    seen = int(memory.load() or 0) + 1
    memory.save(seen)
    number = int(message.content["config"]["server-round"])
    w = message.content["arrays"]["w"].numpy()
    drawn = np.random.default_rng([partition, number, seen]).normal(size=w.shape)
    moved = (0.9 * w + 0.1 * drawn).astype(np.float32)
    metrics = MetricRecord({"num-examples": 10 + 3 * partition, "seen": seen})
    content = {"arrays": ArrayRecord({"w": Array(moved)}), "metrics": metrics}
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """How large the weights are."""
    size = float(np.abs(message.content["arrays"]["w"].numpy()).mean())
    metrics = MetricRecord({"num-examples": 10 + 3 * int(context.node_config["partition-id"]), "size": size})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
