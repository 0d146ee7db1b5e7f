"""One picture of the whole: accuracy above, below it in which rounds the model of which edge was refused.

The table of the same name beside it has what edges were paid, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flower_edge.coverage.drawing import beside, colour, new_figure, save
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
    edges, rounds = sorted({*earned, *refused, *paid}), sorted(scores)
    figure, first = new_figure("everything", 7.0, 4.0 + 0.25 * len(edges))
    first.remove()
    axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 0.25 * len(edges) + 0.2])
    axes.plot(rounds, [scores[number] for number in rounds], color=colour(0), marker="o", markersize=4)
    axes.set(ylabel="accuracy of the centre's model", ylim=(0, 1))
    marks = [(number, at) for at, edge in enumerate(edges) for number in refused.get(edge, [])]
    if marks:
        strip.plot(*zip(*marks, strict=True), "x", color=colour(5), markersize=7, markeredgewidth=2)
    strip.set_yticks(range(len(edges)), edges)
    strip.set(xlabel="round", ylabel="refused", ylim=(len(edges) - 0.5, -0.5))
    strip.locator_params(axis="x", integer=True)
    for panel in (axes, strip):
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    head = ["round", "accuracy", *(f"credits of {e}" for e in edges), *(f"{e} refused" for e in edges)]
    lines = [
        [
            number,
            scores[number],
            *(f"{earned.get(edge, {}).get(number, 0.0):.3f}" for edge in edges),
            *("yes" if number in refused.get(edge, []) else "" for edge in edges),
        ]
        for number in rounds
    ]
    return beside(save(figure, folder / "everything.png"), head, lines)
