"""What a controller has seen so far, kept as plain arrays: the part of a state that most controllers share.

A silent node leaves NaN in an observation; what was last known of it stands until it is heard again, and so it does
where something endless was measured. Nothing here forecasts or decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..topology.rows import Floats
from ..topology.topology import Topology
from .controller import Observation, Start, State

__all__ = ["look", "remember", "seen", "topology_of"]


def remember(start: Start) -> State:
    """What is known before the first round, for a state: plain values and arrays.

    Keys: nodes, receiver, sender, budget_hz, payload_bits, spectral_efficiency, latency_s, processing_s (NaN where
    nothing is known).
    """
    topology = start.topology
    unknown = np.full(topology.nodes, np.nan)
    return {
        "nodes": topology.nodes,
        "receiver": topology.receiver,
        "sender": topology.sender,
        "budget_hz": np.array(start.budget_hz, np.float64),
        "payload_bits": np.array(start.payload_bits, np.float64),
        "spectral_efficiency": np.array(start.spectral_efficiency, np.float64),
        "latency_s": np.zeros(topology.links),
        "processing_s": unknown if start.processing_s is None else np.array(start.processing_s, np.float64),
    }


def topology_of(known: State) -> Topology:
    """The links of the run."""
    return Topology.of_sorted(known["nodes"], known["receiver"], known["sender"])


def look(known: State, observation: Observation) -> State:
    """`known` after a further round: what was measured replaces what was known, what was not (NaN, inf) stands."""
    measured: dict[str, Any] = {
        "payload_bits": observation.payload_bits,
        "spectral_efficiency": observation.spectral_efficiency,
        "processing_s": observation.heard_s,
    }
    if len(observation.latency_s):
        measured["latency_s"] = observation.latency_s
    return known | {name: np.where(np.isfinite(new), new, known[name]) for name, new in measured.items()}


def seen(known: State, processing_s: Floats | None = None) -> Observation:
    """What is known, in the shape of an observation; with other P, float64 [nodes], where given: a forecast."""
    return Observation(
        known["processing_s"] if processing_s is None else processing_s,
        known["spectral_efficiency"],
        known["payload_bits"],
        known["latency_s"],
    )
