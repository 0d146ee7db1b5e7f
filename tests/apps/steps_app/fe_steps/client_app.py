"""fe_steps: a client whose arithmetic is exact in binary, with a momentum of its own."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients.steps import request, step_mod, steps_of
from flower_edge.runtime.node_state import NodeState

app = ClientApp(mods=[step_mod])


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Move towards this node's own point; node 1 asks to stop after its fourth step where it is told to be busy."""
    steps, config = steps_of(msg), msg.content["config"]
    partition = int(context.node_config["partition-id"])
    memory = NodeState(context, "momentum")
    speed = memory.load() if steps.start else np.zeros(3)
    (model,) = msg.content["arrays"].to_numpy_ndarrays()
    done = 0
    for step in steps:
        speed = speed / 2 + (partition + 1) * (step + 1) / 8
        model = model + speed
        done += 1
        if busy := bool(config["busy"]) and partition == 1 and step == 3:
            break
    memory.save(speed)
    metrics = MetricRecord({"num-examples": 4 * done, "steps": done})
    content = RecordDict({"arrays": ArrayRecord([model]), "metrics": metrics})
    return Message(request(content, "overload", load=0.9) if busy else content, reply_to=msg)
