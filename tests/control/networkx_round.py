"""One round of DCENT as one would write it down over a networkx graph: eqs. 1 to 8, link by link.

The slow and plain twin of `Dcent(self_entry="fixed", smoothing=1.0)` with one step for all: an oracle for its
numbers, and what its speed is held against. An edge j -> i has the attributes weight, band and S; a node P, its own
weight and its budget.
"""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np

from flower_edge.control.controller import Control, Observation
from flower_edge.topology.rows import Floats
from flower_edge.topology.topology import Topology

__all__ = ["control_of", "graph_of", "observe", "round_of_dcent"]


def graph_of(topology: Topology, control: Control, budget_hz: Floats) -> nx.DiGraph[int]:
    """The network with its weights and bands."""
    graph = topology.to_networkx(weight=control.weights, band=control.bandwidth_hz)
    for i in graph.nodes:
        graph.nodes[i].update(own=float(control.self_weights[i]), budget=float(budget_hz[i]))
    return graph


def observe(graph: nx.DiGraph[int], topology: Topology, seen: Observation) -> None:
    """What was measured in a round, written at nodes and edges."""
    for i in graph.nodes:
        graph.nodes[i].update(P=float(seen.processing_s[i]), D=float(seen.payload_bits[i]))
    for k, (j, i) in enumerate(zip(topology.sender.tolist(), topology.receiver.tolist(), strict=True)):
        graph.edges[j, i]["S"] = float(seen.spectral_efficiency[k])


def control_of(graph: nx.DiGraph[int], topology: Topology) -> Control:
    """As arrays."""
    edges: list[dict[str, Any]] = [
        graph.edges[j, i] for j, i in zip(topology.sender.tolist(), topology.receiver.tolist(), strict=True)
    ]
    return Control(
        np.array([edge["weight"] for edge in edges]),
        np.array([graph.nodes[i]["own"] for i in range(topology.nodes)]),
        np.array([edge["band"] for edge in edges]),
    )


def round_of_dcent(graph: nx.DiGraph[int], *, eta: float = 0.9, cap: float = 0.01) -> float:
    """Moves all weights and bands one step, in place; the step."""
    wanted: dict[int, tuple[int, dict[int, tuple[float, float]]]] = {}
    alpha = min(1.0, cap)
    for i in graph.nodes:
        cost, late = {}, {}
        for j in graph.predecessors(i):
            edge, sender = graph.edges[j, i], graph.nodes[j]
            if edge["weight"] > 0:
                late[j] = sender["P"] + sender["D"] / (edge["band"] * edge["S"])
                cost[j] = edge["weight"] * late[j]
        if not cost:
            continue
        straggler = max(sorted(cost), key=lambda j: cost[j])
        tau, hats, total = cost[straggler], {}, 0.0
        for j in cost:
            if j == straggler:
                continue
            edge, sender = graph.edges[j, i], graph.nodes[j]
            band = sender["D"] / (edge["S"] * (tau / edge["weight"] - sender["P"]))
            weight = min(tau / late[j], 1.0)
            hats[j] = (weight, min(band, edge["band"]))
            total += weight - edge["weight"]
        wanted[i] = (straggler, hats)
        if total > 0:
            alpha = min(alpha, eta * graph.edges[straggler, i]["weight"] / total)
    for i, (straggler, hats) in wanted.items():
        weight_left, band_left = 1.0 - graph.nodes[i]["own"], graph.nodes[i]["budget"]
        for j, (weight, band) in hats.items():
            edge = graph.edges[j, i]
            edge["weight"] += alpha * (weight - edge["weight"])
            edge["band"] -= alpha * (edge["band"] - band)
            weight_left -= edge["weight"]
            band_left -= edge["band"]
        graph.edges[straggler, i].update(weight=weight_left, band=band_left)
    in_use = nx.DiGraph((j, i) for j, i, edge in graph.edges(data=True) if edge["weight"] > 0)
    assert nx.is_strongly_connected(in_use)
    return alpha
