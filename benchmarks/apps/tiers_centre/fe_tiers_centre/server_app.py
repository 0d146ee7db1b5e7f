"""fe_tiers_centre: cloud rounds, each with its seconds, the model and who contributed in one JSON file after each."""

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from flower_edge.runtime import GridProxy
from flower_edge.store import RunFolder
from flower_edge.strategies import BridgeTier, Hierarchical

app = ServerApp()


def write(path: Path, report: dict) -> None:
    """Old or new, never half."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report), "utf-8")
    os.replace(part, path)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and tell."""
    config = context.run_config
    report = {"pid": os.getpid(), "round_s": [], "ends_s": [], "rounds": 0, "cells": [], "model": [], "done": False}
    path = Path(str(config["report"]))
    poll_s = 3.0 if config["stock"] else 0.1
    proxy = GridProxy(grid, expected_nodes=int(config["edges"]), join_timeout_s=120.0, poll_s=poll_s)
    model = ArrayRecord({"w": Array(np.linspace(-1, 1, int(config["parameters"]), dtype=np.float32))})

    def between(number: int, arrays: ArrayRecord) -> None:
        now_s, ends = time.monotonic(), report["ends_s"]
        report["round_s"] += [now_s - ends[-1]] if ends else []
        ends.append(now_s)
        report["rounds"], report["model"] = number, arrays["w"].numpy().tolist()[:2000]
        write(path, report)

    if int(config["warm-up"]):
        warm = Hierarchical(tier=BridgeTier(), edge_rounds=1, seed=int(config["seed"]) + 1)
        warm.start(proxy, model, num_rounds=int(config["warm-up"]), timeout=float(config["timeout-s"]))
    strategy = Hierarchical(
        tier=BridgeTier(), edge_rounds=int(config["edge-rounds"]), seed=int(config["seed"]), idle_s=1.0
    )
    with RunFolder.create("centre", config={}, seed=int(config["seed"]), path=str(config["folder"]) or None) as run:
        if config["resume"]:
            run.continue_from(RunFolder.open(str(config["resume"])))
        result = strategy.start(
            proxy, model, num_rounds=int(config["cloud-rounds"]), timeout=float(config["timeout-s"]),
            evaluate_fn=between, run=run, resume=bool(config["resume"]),
        )  # fmt: skip
        rows = [{"cell": row.cell, "round": row.round, **row.values} for row in run.rows("train") if row.cell]
    names = ("cell", "round", "num-examples", "seen", "nodes_replied", "nodes_sampled", "staleness")
    report["cells"] = [{name: row[name] for name in names if name in row} for row in rows]
    report["model"], report["done"] = result.arrays["w"].numpy().tolist()[:2000], True
    write(path, report)
