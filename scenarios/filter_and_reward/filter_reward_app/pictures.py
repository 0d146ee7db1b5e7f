"""Accuracy with and without protection, who was refused when, and credits beside usefulness: pictures of a run.

Each has a table of the same name beside it. Nothing here computes what it shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from filter_reward_app import accounts
from filter_reward_app.accounts import Account, Refused
from filter_reward_app.config import FilterAndReward
from flower_edge.coverage.drawing import GREY, colour, ink_on, new_figure, save

#: What each run is, for the legend.
RUNS = {
    "all": "gate, filter and rewards",
    "gate": "gate alone",
    "none": "stock FedAvg",
    "honest": "stock FedAvg, nobody faulty",
}
ACCURACY, REFUSED, CREDITS = "accuracy-with-and-without", "refused-by-node-and-round", "credits-and-usefulness"


def draw_accuracy(runs: Mapping[str, Sequence[float]], folder: Path) -> Path:
    """Accuracy of the centre's model on data that nobody trains on or judges by, from before the first round on."""
    figure, axes = new_figure("pictures", 7.0, 4.0)
    for number, (name, scores) in enumerate(runs.items()):
        line, marker = ("--", "") if name == "honest" else ("-", "osD"[number % 3])
        axes.plot(
            range(len(scores)),
            scores,
            color=GREY if name == "honest" else colour(number),
            linestyle=line,
            marker=marker,
            markersize=3.5,
            label=f"{RUNS[name]}: {scores[-1]:.3f}",
        )
    axes.set(xlabel="round", ylabel="accuracy", ylim=(0, 1))
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    accounts.write(
        accounts.accuracy_table({RUNS[name]: scores for name, scores in runs.items()}), folder / f"{ACCURACY}.csv"
    )
    return save(figure, folder / f"{ACCURACY}.png")


def draw_refused(config: FilterAndReward, terminals: int, found: Sequence[Refused], folder: Path) -> Path:
    """One row for each terminal and edge, one stretch for each code, with the code written on it."""
    nodes = [*map(str, range(terminals)), *(f"edge-{edge}" for edge in range(config.edges))]
    faults = [accounts.fault_of(config, node, terminals) for node in nodes]
    names = [accounts.name(node) + (f": {fault}" if fault else "") for node, fault in zip(nodes, faults, strict=True)]
    codes = sorted({one.code for one in found})
    figure, axes = new_figure("pictures", max(6.5, 2.8 + 0.55 * config.rounds), 1.2 + 0.27 * len(nodes))
    for row, node in enumerate(nodes):
        for code in codes:
            rounds = {one.round for one in found if one.node == node and one.code == code}
            for first, last in _stretches(rounds):
                shade = colour(codes.index(code))
                axes.barh(row, last - first + 0.92, left=first - 0.46, height=0.82, color=shade)
                axes.text((first + last) / 2, row, code, ha="center", va="center", fontsize=8, color=ink_on(shade))
    for row in range(1, len(nodes)):
        between = row == terminals or (row < terminals and row % (terminals // config.edges or 1) == 0)
        axes.axhline(row - 0.5, color="black" if between else "#dddddd", linewidth=0.8 if between else 0.4, zorder=0)
    axes.set_yticks(range(len(nodes)), names, fontsize=8)
    for label, fault in zip(axes.get_yticklabels(), faults, strict=True):
        label.set_fontweight("bold" if fault else "normal")
    axes.set(xlim=(0.5, config.rounds + 0.5), ylim=(len(nodes) - 0.5, -0.5), xlabel="round")
    axes.set_xticks(range(1, config.rounds + 1))
    axes.set_title("who was refused, by its edge; edges, by the centre", fontsize=10)
    accounts.write(accounts.refused_table(config, terminals, found), folder / f"{REFUSED}.csv")
    return save(figure, folder / f"{REFUSED}.png")


def draw_credits(found: Sequence[Account], folder: Path) -> Path:
    """Each terminal's share of all credits, and its share of all useful examples."""
    figure, axes = new_figure("pictures", 7.0, 1.2 + 0.28 * len(found))
    paid, worth = sum(one.micro for one in found) or 1, sum(one.useful for one in found) or 1
    rows = list(range(len(found)))
    by_edge = [100 * one.edge_micro / paid for one in found]
    by_centre = [100 * one.centre_micro / paid for one in found]
    axes.barh(rows, by_edge, color=colour(0), label="credits from its edge")
    axes.barh(rows, by_centre, left=by_edge, color=colour(4), label="credits from the centre", hatch="//", alpha=0.8)
    axes.plot(
        [100 * one.useful / worth for one in found], rows, "D", color="black", markersize=4, label="useful examples"
    )
    names = [f"terminal {one.terminal}" + (f": {one.fault}" if one.fault else "") for one in found]
    axes.set_yticks(rows, names, fontsize=8)
    for label, one in zip(axes.get_yticklabels(), found, strict=True):
        label.set_fontweight("bold" if one.fault else "normal")
    axes.set(xlabel="percent of all credits, or of all useful examples", ylim=(len(found) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(fontsize="small", loc="outside lower center", ncols=3)
    accounts.write(accounts.credits_table(found), folder / f"{CREDITS}.csv")
    return save(figure, folder / f"{CREDITS}.png")


def _stretches(rounds: set[int]) -> list[tuple[int, int]]:
    """First and last of each stretch without a gap."""
    return [
        (first, next(last for last in range(first, first + len(rounds)) if last + 1 not in rounds))
        for first in sorted(rounds)
        if first - 1 not in rounds
    ]
