"""What a table of candidates is made of: learned from replies, else told by the terminal, else estimated.

    compute_s  = steps · step_s
    up_s       = bits up / up_bps
    duration_s = bits down / down_bps + compute_s + up_s

Arithmetic only. Nothing here asks or learns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .candidates import Candidates
from .experience import Experience

__all__ = ["Job", "known_of"]


@dataclass(frozen=True)
class Job:
    """How much work a round is for a terminal.

    Attributes:
        steps: local steps; 0 where unknown.
        up_bits, down_bits: of the reply and of the message; 0 where unknown.
    """

    steps: float = 0.0
    up_bits: float = 0.0
    down_bits: float = 0.0


def known_of(nodes: NDArray[np.uint64], learned: Experience, told: Experience, job: Job) -> Candidates:
    """A table of these nodes, with the columns that scores read (see `Candidates`).

    Where only the whole duration is known, all of it that is no upload counts as computing. Without a job, told speeds
    say nothing yet.

    >>> told = Experience().noted("step_s", {7: 0.1}).noted("up_bps", {7: 1e6})
    >>> table = known_of(np.array([7, 8]), Experience(), told, Job(steps=20, up_bits=1e6))
    >>> table.column("duration_s")
    array([ 3., nan])
    """
    from_told, from_learned = told.of(nodes), learned.of(nodes)
    columns = {**from_told.columns, **from_learned.columns}
    columns["num_examples"] = _first(from_learned.column("num_examples"), from_told.column("num_examples"))
    # Who was never chosen was chosen 0 times: that is known.
    columns["picks"] = np.nan_to_num(from_learned.column("picks"))
    duration_s = from_learned.column("duration_s")
    step_s, up_bps, down_bps = (from_told.column(name) for name in ("step_s", "up_bps", "down_bps"))
    unknown = np.full(len(nodes), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        down_s = np.nan_to_num(job.down_bits / down_bps, posinf=0.0)
        up_s = _first(from_learned.column("up_s"), job.up_bits / up_bps if job.up_bits else unknown)
    between_s = np.maximum(duration_s - np.nan_to_num(up_s, posinf=0.0), 0.0)
    compute_s = _first(from_learned.column("compute_s"), between_s, job.steps * step_s if job.steps else unknown)
    columns["compute_s"] = compute_s
    columns["up_bits"] = np.full(len(nodes), job.up_bits or np.nan)
    columns["up_s"] = np.where(np.isnan(up_s) & ~np.isnan(compute_s), 0.0, up_s)
    columns["duration_s"] = _first(duration_s, down_s + compute_s + columns["up_s"])
    return Candidates(nodes, columns)


def _first(*columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first known value of each node."""
    found = columns[0]
    for column in columns[1:]:
        found = np.where(np.isnan(found), column, found)
    return found
