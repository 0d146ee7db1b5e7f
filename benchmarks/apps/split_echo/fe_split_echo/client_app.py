"""fe_split_echo: gives a message back, and sends batches over a channel it is told to dial."""

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients.split_stream import converse
from flower_edge.runtime.splitting.messages import SPLIT_RECORD, SplitOrder

from .echo import Device, coder_of

app = ClientApp()


@app.train("echo")
def echo(msg: Message, context: Context) -> Message:
    """What came."""
    return Message(RecordDict({"arrays": msg.content["arrays"]}), reply_to=msg)


@app.train("stream")
def stream(msg: Message, context: Context) -> Message:
    """All batches of the order; the reply tells seconds per batch, encoding and decoding included."""
    order = SplitOrder.read(msg.content.config_records[SPLIT_RECORD], sender="the server")
    device = Device(order.work.steps)
    figures = converse(order, device, coder_of(order.work))
    batches_s = [float(step_s) for step_s in np.diff(device.asked_s)]
    metrics = MetricRecord({"batches_s": batches_s, "delay_s": figures.delay_s or 0.0})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
