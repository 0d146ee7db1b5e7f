"""A terminal and an edge in one ClientApp: which of the two is asked for, the message tells."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flower_edge.clients import answer_properties, edge_app
from flower_edge.runtime.edge_messages import EDGE_RECORD

TERMINALS, CELLS = 6, 3

terminal = ClientApp()


def inner(cell: str) -> FedAvg:
    """The strategy of every edge; it samples, so that seeds matter."""
    return FedAvg(fraction_train=0.5, min_train_nodes=1, min_available_nodes=1, min_evaluate_nodes=1)


def _data(partition: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(100 + partition)
    x = rng.normal(size=(20 + 5 * partition, 4)) + 0.3 * partition
    return x, x @ np.arange(1.0, 5.0)


@terminal.train()
def train(message: Message, context: Context) -> Message:
    """A few steps of SGD; the batches follow from the node and the round."""
    partition = int(context.node_config["partition-id"])
    x, y = _data(partition)
    w = message.content["arrays"]["w"].numpy().astype(np.float64)
    rng = np.random.default_rng([partition, int(message.content["config"]["server-round"])])
    for _ in range(4):
        batch = rng.choice(len(x), size=8, replace=False)
        w -= 0.02 * x[batch].T @ (x[batch] @ w - y[batch]) / 8
    loss = float(np.mean((x @ w - y) ** 2))
    arrays = ArrayRecord({"w": Array(w.astype(np.float32))})
    metrics = MetricRecord({"num-examples": len(x), "loss": loss})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@terminal.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Loss on the node's own data."""
    x, y = _data(int(context.node_config["partition-id"]))
    loss = float(np.mean((x @ message.content["arrays"]["w"].numpy() - y) ** 2))
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": len(x), "loss": loss})}), reply_to=message)


def members(cell: str, context: Context) -> list[dict[str, int]]:
    """The terminals of an edge, with the partitions they have in the flat federation."""
    part = np.array_split(np.arange(TERMINALS), CELLS)[int(cell.rpartition("-")[2])]
    return [{"partition-id": int(i), "num-partitions": TERMINALS} for i in part]


edge = edge_app(terminal, inner, members)
app = answer_properties(ClientApp())


def either(message: Message, context: Context) -> Message:
    """An edge if the centre says so, a terminal otherwise."""
    return (edge if EDGE_RECORD in message.content.config_records else terminal)(message, context)


app.train()(either)
app.evaluate()(either)
