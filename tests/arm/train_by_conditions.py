"""A device measures itself and is asked to train, once in each state its sensors are put in. Runs on the device.

The argument is a list of states in JSON, each with the `files` of its sensors by path. Printed for each, in JSON: what
`measure_conditions` saw, and what the thin client made of the message.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

from flower_edge.clients import ConditionPolicy, thin_client
from flower_edge.clients.measure import measure_conditions
from flower_edge.models import NumpyMLP
from flower_edge.runtime import LocalGrid
from flower_edge.wire import record_of

STEPS = 40


def asked() -> dict[str, Any]:
    """What comes of one training message."""
    x, y = np.eye(8, dtype=np.float32), np.arange(8) % 2
    # The load is that of the machine below the emulator, whatever that does.
    app = thin_client(lambda context: (x, y), policy=ConditionPolicy(load_gentle=None))
    arrays = record_of(NumpyMLP([8, 4, 2]).arrays())
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"local-steps": STEPS, "server-round": 1})})
    with LocalGrid(app, nodes=1) as grid:
        (reply,) = grid.send_and_receive([Message(content, 1000, "train")])
    if reply.has_error():
        return {"declined": reply.error.reason}
    moved = any(not np.array_equal(arrays[name].numpy(), one.numpy()) for name, one in reply.content["arrays"].items())
    return {"steps": reply.content["metrics"]["steps"], "moved": moved}


def main(states: list[dict[str, dict[str, str]]]) -> None:
    """Go through the states."""
    told: list[dict[str, Any]] = []
    for state in states:
        for name, text in state["files"].items():
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        seen = measure_conditions()
        told.append({"seen": dict(seen.to_mapping()), "dropped": list(seen.dropped), **asked()})
    print(json.dumps({"machine": platform.machine(), "told": told}))


main(json.loads(sys.argv[1]))
