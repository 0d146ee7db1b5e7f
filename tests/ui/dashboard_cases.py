"""Runs to be looked at in tests of the dashboard, and a program that serves them: `python dashboard_cases.py PLACE`."""

from __future__ import annotations

import sys
from pathlib import Path

from flower_edge.events import Event
from flower_edge.monitoring import Link, links_row
from flower_edge.store import Row, RunFolder

#: What a node or a run may be called that is no text on a page unless it is escaped.
EVIL = "<script>alert(1)</script>"


def a_run(folder: Path, rounds: int = 3, name: str = "demo") -> RunFolder:
    """A run that goes on: two edges, terminals that came and went, links, a refusal and a reward in each round."""
    run = RunFolder.create(name, config={"num-server-rounds": 9, "lr": 0.1}, seed=1, path=folder)
    for at in range(1, rounds + 1):
        add_round(run, at)
    return run


def add_round(run: RunFolder, at: int) -> None:
    """One round more."""
    rows = [Row("nodes", at, {"nodes_sampled": 4, "nodes_replied": 3, "nodes_failed": 1}, wall_s=2.0 * at)]
    for cell in ("edge-2", "edge-10"):
        rows += [
            Row("train", at, {"num-examples": 30, "nodes_sampled": 2, "nodes_replied": 1, "loss": 0.5}, cell),
            Row("traffic", at, {"up_bits": 8e5, "down_bits": 16e5, "eligible": 5, "chosen": 2}, cell, wall_s=2.0 * at),
        ]
    rows += [Row("central", at, {"accuracy": 1 - 0.5**at, "loss": 0.5**at}, wall_s=2.0 * at)]
    happened = [
        Event("refused", f"{EVIL}: refused (norm): moved too far", EVIL, "edge-2", 1, values={"code": "norm"}),
        Event("rewarded", "3 earns", "3", "edge-2", 1, values={"micro": 1_500_000}),
        Event("entered", "terminal 7 entered edge-10", "7", "edge-10"),
        Event("selected", "1 of 2 terminals chosen, 2 wanted", cell="edge-2"),
    ]
    rows += [Row("event", at, one.row(), one.cell, one.node, one.edge_round) for one in happened]
    rows += [links_row(at, [Link("7", "8", 1e6 * at, 0.25, 0.5), Link("8", "7", 2e6, 0.125, 0.5)])]
    run.record_rows(rows)


if __name__ == "__main__":
    from flower_edge.ui.dashboard import Dashboard

    with Dashboard(sys.argv[1], port=0, token=sys.argv[2] if len(sys.argv) > 2 else None) as page:
        print(page.url, flush=True)
        sys.stdin.read()  # until whoever started it has enough
    print("ended", flush=True)
