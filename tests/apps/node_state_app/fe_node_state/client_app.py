"""fe_node_state: a node that counts in a large array, and keeps a small note."""

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.runtime.node_state import NodeState

app = ClientApp()


@app.train()
def count(msg: Message, context: Context) -> Message:
    """Add one to every element of 2.4 MB, which is too large for Flower's memory."""
    memory = NodeState(context, "counter")
    kept = memory.load()
    counter = np.zeros(300_000) if kept is None else kept["counter"]
    memory.save({"counter": counter + 1.0})
    if kept is None:
        NodeState(context, "note").save("only in memory")
    metrics = MetricRecord({"count": float(counter.mean() + 1.0), "recovered": int(memory.recovered)})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)


@app.query()
def note(msg: Message, context: Context) -> Message:
    """Read the small note."""
    there = NodeState(context, "note").load() is not None
    return Message(RecordDict({"metrics": MetricRecord({"there": int(there)})}), reply_to=msg)
