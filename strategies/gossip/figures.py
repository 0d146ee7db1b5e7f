"""Numbers of a round of gossip worth recording. Nothing here decides."""

from __future__ import annotations

import numpy as np

from flower_edge.control.controller import Control, Observation
from flower_edge.control.costs import objective, round_time_s

from .group import Group
from .timing import reached

__all__ = ["figures"]


def figures(group: Group, seen: Observation, control: Control) -> dict[str, float]:
    """What was measured in a round, and the control that was in force in it, in a few numbers."""
    topology = group.topology
    able = reached(topology, control, seen)
    return {
        "round_time_s": group.timing.span_s,
        "barrier_time_s": round_time_s(topology, able, seen),
        "objective_s": objective(topology, able, seen),
        "floor_s": float(np.nan_to_num(seen.processing_s, nan=0.0).max(initial=0.0)),
        "links": float(control.in_use.sum()),
        "out_of_reach": float(control.in_use.sum() - able.in_use.sum()),
        "self_weight": float(control.self_weights.mean()) if topology.nodes else 1.0,
    }
