"""One picture of the whole: accuracy, who was in a cell, which edge's models were refused, and what edges were paid."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from flower_edge.coverage.drawing import colour, new_figure, save
from flower_edge.store import RunFolder


def draw(run: RunFolder, paid: Mapping[str, float], folder: Path) -> Path:
    """Draw it into a folder, with a table of the same name beside it."""
    scores = {row.round: float(row.values["accuracy"]) for row in run.rows("central")}
    refused: dict[str, list[int]] = {}
    earned: dict[str, dict[int, float]] = {}
    for row in run.rows("event"):
        if row.values.get("what") == "refused" and not row.cell:
            refused.setdefault(row.node, []).append(row.round)
        if row.values.get("what") == "rewarded" and not row.cell:
            earned.setdefault(row.node, {})[row.round] = float(row.values["micro"]) / 1e6
    edges = sorted({*earned, *refused, *paid})
    figure, axes = new_figure("everything", 7.0, 4.5)
    rounds = sorted(scores)
    axes.plot(rounds, [scores[number] for number in rounds], color="black", label="accuracy of the centre's model")
    for at, edge in enumerate(edges):
        numbers = refused.get(edge, [])
        axes.plot(numbers, [-0.05 * (at + 1)] * len(numbers), "x", color=colour(at), label=f"{edge}'s model refused")
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    path = save(figure, folder / "everything.png")
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["round", "accuracy", *(f"credits of {e}" for e in edges), *(f"{e} refused" for e in edges)])
        for number in rounds:
            credits = [f"{earned.get(edge, {}).get(number, 0.0):.3f}" for edge in edges]
            marks = ["yes" if number in refused.get(edge, []) else "" for edge in edges]
            writer.writerow([number, f"{scores[number]:.4f}", *credits, *marks])
    return path
