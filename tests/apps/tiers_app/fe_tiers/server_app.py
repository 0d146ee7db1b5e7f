"""The same model trained flat, in one cell, in three cells and over three edges; all results in one JSON file."""

import json
import random
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fe_tiers.client_app import CELLS, TERMINALS, inner
from flower_edge.runtime import GridProxy
from flower_edge.runtime.narrowed_grid import NarrowedGrid
from flower_edge.strategies import CellTier, Hierarchical, LocalTier, blocks

app = ServerApp()


def model() -> ArrayRecord:
    """The model before training."""
    return ArrayRecord({"w": Array(np.full(4, 0.5, np.float32))})


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train in every way, from the same model and the same seed."""
    rounds = int(context.run_config["num-server-rounds"])
    results = {}
    with GridProxy(grid, expected_nodes=TERMINALS) as proxy:
        edges = NarrowedGrid(proxy, list(proxy.get_node_ids())[:CELLS])
        ways = {
            "flat": (FedAvg(), proxy),
            "several cells": (Hierarchical(edge=lambda cell: FedAvg(), cells=blocks(CELLS)), proxy),
            "flat sampling": (inner(""), proxy),
            "one cell": (Hierarchical(edge=inner, cells=blocks(1)), proxy),
            "cell tier": (Hierarchical(tier=CellTier(inner, blocks(CELLS)), edge_rounds=2, seed=3), proxy),
            "local tier": (Hierarchical(tier=LocalTier(), edge_rounds=2, seed=3), edges),
        }
        for name, (strategy, where) in ways.items():
            random.seed(17)
            result = strategy.start(where, model(), num_rounds=rounds)
            results[name] = {
                "model": result.arrays["w"].numpy().tolist(),
                "loss": [m["loss"] for m in result.evaluate_metrics_clientapp.values()],
            }
    Path("tiers.json").write_text(json.dumps(results))
