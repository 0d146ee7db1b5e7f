"""What a node last knew of each link into it: when the sender was ready, what the transfer needs, for how long silent.

The node's half of a controller's state, also used over all rows at once. A silent sender leaves NaN in what is
observed; what was known stands. Nothing here decides.

Letters as in `control.controller`, and
    ready[i, j]   P[j] + latency (receiver's side) or P[i] + latency (sender's side)   s      [links]
    need[i, j]    D[j] / S[i, j]: C = need / B                                         Hz s   [links]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..topology.rows import Floats
from ..topology.topology import Topology
from .controller import Observation, State
from .costs import Side
from .min_max import band_seconds

__all__ = ["Known", "look_at_links", "no_memory"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Known:
    """The links into some nodes, after a round.

    Attributes:
        ready_s: float64 [links], NaN where it was never known.
        need_hz_s: float64 [links], infinite where a link carries nothing, NaN where it was never known.
        heard: whether the link can be judged: both ends were heard in this round and it carries data. bool [links];
            None for all of them.
        silent: rounds since the sender was heard, int64 [links]; None for 0 everywhere.
    """

    ready_s: Floats
    need_hz_s: Floats
    heard: Mask | None
    silent: npt.NDArray[np.int64] | None


def no_memory(topology: Topology, need_hz_s: Floats | None = None) -> State:
    """Before the first round; `need_hz_s` where S was measured beforehand.

    Keys: round, processing_s [nodes] (the moving mean of P), latency_s [links], need_hz_s [links], silent [links];
    and what `probing` keeps. None where there is nothing to keep.
    """
    return {
        "round": 0,
        "processing_s": np.full(topology.nodes, np.nan),
        "latency_s": None,
        "need_hz_s": np.full(topology.links, np.nan) if need_hz_s is None else need_hz_s,
        "silent": None,
        "probed": None,
        "gone": None,
    }


def look_at_links(
    memory: State, topology: Topology, observation: Observation, side: Side, smoothing: float = 1.0
) -> tuple[Known, State]:
    """What is known after a round, and the memory with it. Neither argument is changed.

    `smoothing` is the weight of this round in the moving mean that P is taken for; 1 for this round alone.
    """
    own = topology.receiver if side == "sender" else topology.sender
    now_s, latency_s, need_hz_s = observation.heard_s, observation.latency_s, band_seconds(topology, observation)
    with np.errstate(invalid="ignore"):
        # One sum is finite if everything is, and costs less than looking at each.
        whole = bool(np.isfinite(now_s.sum() + need_hz_s.sum() + latency_s.sum()))
    processing_s = _mean(memory["processing_s"], now_s, smoothing)
    kept: State = {"round": memory["round"] + 1, "processing_s": processing_s, "silent": None}
    if not whole:
        need_hz_s = np.where(np.isnan(need_hz_s), memory["need_hz_s"], need_hz_s)
        if len(latency_s) and memory["latency_s"] is not None:
            latency_s = np.where(np.isnan(latency_s), memory["latency_s"], latency_s)
    ready_s = processing_s[own]
    if len(latency_s):
        ready_s += latency_s
        kept["latency_s"] = latency_s
    kept["need_hz_s"] = need_hz_s
    if whole:
        return Known(ready_s, need_hz_s, None, None), memory | kept
    here = np.isfinite(now_s)
    spoke = here[topology.sender]
    before = np.zeros(topology.links, np.int64) if memory["silent"] is None else memory["silent"]
    silent = np.where(spoke, 0, before + 1)
    heard = spoke & here[topology.receiver] & np.isfinite(need_hz_s) & np.isfinite(ready_s)
    return Known(ready_s, need_hz_s, heard, silent), memory | kept | {"silent": silent}


def _mean(before_s: Floats, now_s: Floats, part: float) -> Floats:
    """The moving mean of each node's P; where one of the two is not known it is the other."""
    mean_s = now_s if part >= 1.0 else before_s + part * (now_s - before_s)
    return np.where(np.isnan(now_s), before_s, np.where(np.isnan(mean_s), now_s, mean_s))
