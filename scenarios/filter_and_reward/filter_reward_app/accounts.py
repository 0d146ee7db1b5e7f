"""Who was refused when and why, who was paid how much, and what was worth paying: tables of a run.

Reads what the run has recorded, and the scenario's own knowledge of the faults. Nothing here trains, checks or pays.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from scipy.stats import spearmanr

from filter_reward_app import task
from filter_reward_app.config import FilterAndReward
from flower_edge.rewards.credits import credits_of
from flower_edge.store import RunFolder


@dataclass(frozen=True)
class Refused:
    """One reply that was not used: a terminal's at its edge, or an edge's at the centre."""

    node: str
    round: int
    code: str
    why: str


@dataclass(frozen=True)
class Account:
    """One terminal over the whole run.

    Attributes:
        terminal: its number.
        edge: its edge's number.
        fault: its own or its edge's, empty where there is none.
        useful: rightly labelled examples behind what it sent, over all rounds.
        edge_micro, centre_micro: what its edge and the centre have paid it, in micro-credits.
        refused: replies of it that its edge refused.
    """

    terminal: int
    edge: int
    fault: str
    useful: int
    edge_micro: int
    centre_micro: int
    refused: int

    @property
    def micro(self) -> int:
        """What it was paid, in micro-credits."""
        return self.edge_micro + self.centre_micro


def fault_of(config: FilterAndReward, node: str, terminals: int) -> str:
    """What is wrong with a terminal, or with an edge such as edge-3; empty where nothing is."""
    if not node.isdecimal():
        return "faulty edge" if int(node.removeprefix("edge-")) in config.faults.of_edges else ""
    edge = task.edge_of(config, int(node), terminals)
    own = config.faults.of_terminals.get(int(node), "in a faulty edge" if edge in config.faults.of_edges else "")
    return {"nan": "NaN", "inflated": "inflated count"}.get(own, own)


def refusals(run: RunFolder) -> list[Refused]:
    """From the run's events, in their order."""
    return [
        # The sentence behind the code, which has a column of its own.
        Refused(row.node, row.round, code, str(row.values["text"]).rpartition(f"({code}): ")[2])
        for row in run.rows("event")
        if row.values.get("what") == "refused" and (code := str(row.values["code"]))
    ]


def accounts(
    config: FilterAndReward,
    terminals: int,
    refused: Iterable[Refused],
    paid: Iterable[tuple[str, str, int]],
) -> list[Account]:
    """One per terminal.

    Args:
        config: of the scenario.
        terminals: how many there are.
        refused: as `refusals` reads them.
        paid: payer, node and micro-credits of each booking.
    """
    by_edge, by_centre, not_used = dict[str, int](), dict[str, int](), dict[str, int]()
    for payer, node, micro in paid:
        into = by_centre if payer == "centre" else by_edge
        into[node] = into.get(node, 0) + micro
    for one in refused:
        not_used[one.node] = not_used.get(one.node, 0) + 1
    return [
        Account(
            terminal,
            task.edge_of(config, terminal, terminals),
            fault_of(config, str(terminal), terminals),
            sum(task.useful(config, terminal, terminals, number + 1) for number in range(config.rounds)),
            by_edge.get(str(terminal), 0),
            by_centre.get(str(terminal), 0),
            not_used.get(str(terminal), 0),
        )
        for terminal in range(terminals)
    ]


def rank_correlation(some: Sequence[float], others: Sequence[float]) -> float:
    """Spearman's; equal ones share their rank, and 0 where all of one are equal.

    >>> round(rank_correlation([1, 2, 3, 4], [10, 20, 40, 30]), 3)
    0.8
    """
    if len(set(some)) < 2 or len(set(others)) < 2:
        return 0.0
    return float(spearmanr(some, others).statistic)


def spans(rounds: Iterable[int]) -> str:
    """Rounds in words.

    >>> spans([1, 2, 3, 7])
    '1-3 7'
    """
    numbers = sorted(set(rounds))
    starts = [n for i, n in enumerate(numbers) if i == 0 or numbers[i - 1] != n - 1]
    ends = [n for n, after in pairwise([*numbers, -1]) if after != n + 1]
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def refused_table(
    config: FilterAndReward, terminals: int, found: Sequence[Refused]
) -> tuple[list[str], list[list[str]]]:
    """Head and lines, one for each node and code."""
    groups: dict[tuple[str, str], list[Refused]] = {}
    for one in found:
        groups.setdefault((one.node, one.code), []).append(one)
    lines = [
        [name(node), fault_of(config, node, terminals) or "-", code, spans(one.round for one in some), some[0].why]
        for (node, code), some in sorted(groups.items(), key=lambda item: (_order(item[0][0]), item[0][1]))
    ]
    return ["who", "fault", "code", "rounds", "why, the first time"], lines


def credits_table(found: Sequence[Account]) -> tuple[list[str], list[list[str]]]:
    """Head and lines, one for each terminal; in credits."""
    head = ["terminal", "edge", "fault", "useful examples", "credits, edge", "credits, centre", "refused"]
    lines = [
        [
            str(one.terminal),
            f"edge-{one.edge}",
            one.fault or "-",
            str(one.useful),
            f"{credits_of(one.edge_micro):.3f}",
            f"{credits_of(one.centre_micro):.3f}",
            str(one.refused),
        ]
        for one in found
    ]
    return head, lines


def accuracy_table(runs: Mapping[str, Sequence[float]]) -> tuple[list[str], list[list[str]]]:
    """Head and lines, one for each round; a column for each run."""
    rounds = max(map(len, runs.values()))
    return ["round", *runs], [[str(at), *(f"{scores[at]:.4f}" for scores in runs.values())] for at in range(rounds)]


def write(table: tuple[Sequence[str], Iterable[Sequence[str]]], path: Path) -> Path:
    """As CSV. One named like a picture stands beside it on the report page."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table[0])
        writer.writerows(table[1])
    return path


def name(node: str) -> str:
    """What to call a node: terminals have numbers, edges names."""
    return f"terminal {node}" if node.isdecimal() else node


def _order(node: str) -> tuple[int, int | str]:
    return (0, int(node)) if node.isdecimal() else (1, node)
