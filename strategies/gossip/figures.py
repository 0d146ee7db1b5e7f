"""Numbers of a round of gossip worth recording. Nothing here decides."""

from __future__ import annotations

import numpy as np

from flower_edge.control.controller import Control, Observation
from flower_edge.control.costs import objective, round_time_s
from flower_edge.monitoring.links import Link

from .group import Group
from .timing import reached

__all__ = ["figures", "links_told"]


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


def links_told(group: Group) -> tuple[Link, ...]:
    """Links that were in use in the last round: B S, C with latency, and W of each; none before the first round.

    Of a link that no world models and no mailbox has timed neither B S nor C is told: what the controller assumes of it
    was never measured.
    """
    seen, control, topology = group.seen, group.mixing, group.topology
    if seen is None or control is None:
        return ()
    known = ~np.isnan(np.asarray(group.env.world.spectral_efficiency(group.last_round), np.float64))
    known = known if group.timed is None else known | group.timed
    bandwidth_bps = control.bandwidth_hz * seen.spectral_efficiency
    took_s = seen.transfer_s(topology, control.bandwidth_hz)
    took_s = took_s + seen.latency_s if len(seen.latency_s) else took_s
    names = group.env.numbers
    return tuple(
        Link(
            str(names[topology.sender[k]]),
            str(names[topology.receiver[k]]),
            _known(bandwidth_bps[k]) if known[k] else None,
            _known(took_s[k]) if known[k] else None,
            float(control.weights[k]),
            group.last_round,
        )
        for k in np.flatnonzero(control.in_use)
    )


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
