"""fe_node_echo: what a node does with each kind of message."""

import os
import signal

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.runtime.warm.worker import resident_bytes

app = ClientApp()

#: Of this process, not of the node: what a process that stays keeps, and a new one does not.
calls = []


def told(msg: Message, **metrics: float) -> Message:
    """A reply of numbers."""
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)


@app.query()
def site(msg: Message, context: Context) -> Message:
    """Which node this is."""
    where = ConfigRecord({"site": str(context.node_config["site"])})
    return Message(RecordDict({"where": where}), reply_to=msg)


@app.train("noop")
def noop(msg: Message, context: Context) -> Message:
    """Nothing."""
    return told(msg, nothing=0.0)


@app.train("count")
def count(msg: Message, context: Context) -> Message:
    """How many messages of this kind the node has had, from its state; and an array that depends on it."""
    before = context.state.config_records.get("seen", ConfigRecord({"n": 0}))
    seen = int(before["n"]) + 1
    context.state["seen"] = ConfigRecord({"n": seen})
    drawn = np.random.default_rng([int(context.run_config["salt"]), seen]).normal(size=1000).astype(np.float32)
    content = {"arrays": ArrayRecord({"drawn": Array(drawn)}), "metrics": MetricRecord({"seen": seen})}
    return Message(RecordDict(content), reply_to=msg)


@app.train("process")
def process(msg: Message, context: Context) -> Message:
    """Which process answers, its memory, and how many messages it has had."""
    calls.append(1)
    return told(msg, pid=os.getpid(), rss_bytes=resident_bytes(), calls=len(calls))


@app.train("raise")
def fail(msg: Message, context: Context) -> Message:
    """An exception."""
    raise ZeroDivisionError("asked for")


@app.train("kill")
def kill(msg: Message, context: Context) -> Message:
    """The end of this process in the middle of a message."""
    os.kill(os.getpid(), signal.SIGKILL)
    return told(msg)


@app.train("lenet")
def lenet(msg: Message, context: Context) -> Message:
    """Four steps of SGD on a LeNet."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(int(msg.content["config"]["number"]))
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(4):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(torch.rand(32, 1, 28, 28)), torch.randint(0, 10, (32,))).backward()
        optimiser.step()
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict())}), reply_to=msg)
