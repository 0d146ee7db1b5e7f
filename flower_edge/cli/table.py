"""The small table that a run ends with. Plain text; nothing here decides where it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..monitoring.attendance import attendance, sentences
from ..monitoring.rounds import RoundLine, latest, rounds_of, total
from ..store.run_folder import RunFolder
from .columns import columns, count, ratio, seconds, traffic

__all__ = ["HEAD", "cells", "final_table"]

HEAD = ("round", "accuracy", "loss", "up", "down", "nodes", "time")


def final_table(run: RunFolder, most: int = 20) -> str:
    """What happened, one line per round and one of totals.

    Args:
        run: the run, ended or not.
        most: how many rounds to show, at least 2; of a longer run the first and the last ones.

    Returns:
        Lines joined by line feeds: round, accuracy, loss, bytes up and down, nodes (replied of sampled), seconds the
        round took; at the end the last accuracy and loss, the bytes of all rounds and the seconds of the run. Below
        them a line for each edge that seldom counted, or never.
    """
    lines = rounds_of(run)
    if not lines:
        return f"{run.name}: no round was recorded"
    taken = took_s(lines)
    shown = [cells(line, took) for line, took in zip(lines, taken, strict=True)]
    if len(shown) > most:
        first = most // 2
        gap = ["..."] + [""] * (len(HEAD) - 1)
        shown = [*shown[:first], gap, *shown[len(shown) - (most - first) :]]
    whole = RoundLine(
        round=0,
        accuracy=latest(lines, "accuracy"),
        loss=latest(lines, "loss"),
        up_bits=total(lines, "up_bits"),
        down_bits=total(lines, "down_bits"),
        nodes_sampled=total(lines, "nodes_sampled"),
        nodes_replied=total(lines, "nodes_replied"),
    )
    last = ["total", *cells(whole, latest(lines, "wall_s"))[1:]]
    text = columns(HEAD, [*shown, last])
    return "\n".join([*text[:-1], "-" * max(map(len, text)), text[-1], *sentences(attendance(run))])


def cells(line: RoundLine, took: float | None) -> list[str]:
    """One round as texts under `HEAD`."""
    nodes = count(line.nodes_replied)
    if line.nodes_sampled is not None and line.nodes_sampled != line.nodes_replied:
        nodes = f"{nodes} of {count(line.nodes_sampled)}"
    return [
        str(line.round),
        ratio(line.accuracy),
        ratio(line.loss),
        traffic(line.up_bits),
        traffic(line.down_bits),
        nodes,
        seconds(took),
    ]


def took_s(lines: Sequence[RoundLine]) -> list[float | None]:
    """Seconds each round took: from the end of the round before, for the first one from the start of the run.

    >>> took_s([RoundLine(1, wall_s=2.0), RoundLine(2, wall_s=5.0)])
    [2.0, 3.0]
    """
    ends = [0.0, *(line.wall_s for line in lines)]
    return [None if end is None or start is None else max(0.0, end - start) for start, end in pairwise(ends)]
