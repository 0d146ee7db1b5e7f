"""fe_tiers_edge: the edge; or a flat federation of the same terminals, round by round with its seconds."""

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flower_edge.runtime import GridProxy
from flower_edge.strategies import edge_server

app = ServerApp()


def inner(cell: str) -> FedAvg:
    """The strategy of every edge, and of the flat federation."""
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)


def start(parameters: int) -> ArrayRecord:
    """The model before training."""
    return ArrayRecord({"w": Array(np.linspace(-1, 1, parameters, dtype=np.float32))})


def flat(grid: Grid, config: dict) -> None:
    """Train the terminals as one federation; the first rounds are not timed: apps are imported in them."""
    seconds, ends = [], []

    def between(number: int, arrays: ArrayRecord) -> None:
        now_s = time.monotonic()
        seconds.extend([now_s - ends[-1]] if ends else [])
        ends.append(now_s)

    terminals = int(config["terminals"])
    # Flower's own Grid looks every three seconds; so does the proxy where Flower's own is to be measured.
    used = GridProxy(grid, expected_nodes=terminals, poll_s=3.0 if config["stock"] else 0.1, seed=int(config["seed"]))
    rounds = int(config["flat-rounds"]) + int(config["warm-up"])
    result = inner("").start(
        used, start(int(config["parameters"])), num_rounds=rounds, timeout=600.0, evaluate_fn=between
    )
    timed = int(config["warm-up"])
    model = result.arrays["w"].numpy()[:8].tolist()
    report = {"round_s": seconds[timed:], "ends_s": ends[timed:], "model": model}
    path = Path(str(config["report"]))
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report), "utf-8")
    os.replace(part, path)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Be an edge until another process is it, or train flat."""
    config = context.run_config
    if int(config["flat-rounds"]):
        flat(grid, config)
        return
    edge = edge_server(
        inner,
        terminals=int(config["terminals"]),
        poll_s=3.0 if config["stock"] else 0.1,
        deadline_s=float(config["deadline-s"]) or None,
        alone_after_s=float(config["alone-after-s"]),
    )
    edge(grid, context)
