"""fe_joined: a worker that averages what it hears with its own model, takes a step and posts."""

import json
import os

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients import answer_properties
from flower_edge.codecs.codec import label
from flower_edge.codecs.identity import Identity
from flower_edge.peers.opening import open_mailbox
from flower_edge.peers.packet import Packet
from flower_edge.peers.relay import Delivery, RelayMailbox
from flower_edge.wire import packet_record

app = ClientApp()
answer_properties(app)


@app.train()
def train(msg: Message, context: Context) -> Message:
    """One round of gossip; the model stays on the node, and what was posted is in the reply where it is relayed."""
    node, config = int(context.node_config["partition-id"]), msg.content["config"]
    round_, others = int(config["round"]), [i for i in range(3) if i != node]
    own = context.state["arrays"].to_numpy_ndarrays()[0] if round_ > 1 else np.full(4, float(node))
    brought = {int(name): Delivery(array.data) for name, array in msg.content.array_records["inbox"].items()}
    codec = Identity()
    state = codec.init({"w": own})
    with open_mailbox(json.loads(str(config["mailbox"])), node, brought) as mailbox:
        letters = mailbox.collect(round_ - 1, others)
        heard = [codec.decode(letter.packet.payload, state)[0]["w"] for letter in letters.values()]
        own = np.mean([own, *heard], axis=0) + (node + 1) / 8
        payload, _ = codec.encode({"w": own}, state)
        mailbox.post(Packet(round_, node, round_, label(codec), payload), others)
        outbox = mailbox.outbox if isinstance(mailbox, RelayMailbox) else ()
    context.state["arrays"] = ArrayRecord([own])
    metrics = MetricRecord({"node": node, "heard": len(letters), "model": own.tolist(), "process": os.getpid()})
    content = RecordDict({"metrics": metrics})
    if outbox:
        content["outbox"] = packet_record(outbox[0].data)
    return Message(content, reply_to=msg)
