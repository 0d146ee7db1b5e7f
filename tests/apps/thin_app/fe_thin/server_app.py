"""The server: rounds of FedAvg, and after each a line about who took part and what came of it."""

import json
import os
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flower_edge.models import NumpyMLP, evaluate
from flower_edge.runtime.short_polling import ShortPolling
from flower_edge.wire import arrays_of, record_of

from .client_app import RULE

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and tell."""
    config = context.run_config
    nodes, report = int(config["nodes"]), Path(str(config["report"]))
    seen: list[int] = []

    class Noting(FedAvg):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            seen[:] = sorted(reply.metadata.src_node_id for reply in replies if reply.has_content())
            return super().aggregate_train(server_round, replies)

    def told(server_round: int, arrays: ArrayRecord) -> None:
        model = NumpyMLP([6, 16, 3])
        model.load(arrays_of(arrays))
        x = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
        accuracy = evaluate(model, x, (x @ RULE).argmax(axis=1)).accuracy
        if server_round:
            with report.open("a", encoding="utf-8") as file:
                line = {"round": server_round, "nodes": seen, "accuracy": accuracy}
                file.write(json.dumps({**line, "revoked": os.environ.get("FLOWER_EDGE_REVOKED")}) + "\n")

    strategy = Noting(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes, min_evaluate_nodes=nodes)
    strategy.start(
        ShortPolling(grid, poll_s=0.1),
        record_of(NumpyMLP([6, 16, 3], seed=1).arrays()),
        num_rounds=int(config["rounds"]),
        train_config=ConfigRecord({"local-steps": 20, "lr": 0.1}),
        evaluate_fn=told,
    )
