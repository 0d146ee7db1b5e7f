"""A round of DCENT over a networkx graph: what the array form of `flower_edge.control` is held against.

Equations 1 to 8 of [1] with one step for all nodes, and strong connectivity, twice: as one writes them with networkx's
own calls, and with its dictionaries walked directly, each edge looked up once, which is as quick as it gets over such a
graph. An edge j -> i has `weight`, `band` and `S`; a node its P, D, own weight and budget. Nothing of flower_edge is
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import networkx as nx

__all__ = ["graph_of", "networkx_round", "tell", "walked_round"]


def graph_of(
    ends: Sequence[tuple[int, int]],
    weights: Sequence[float],
    bands_hz: Sequence[float],
    own: Sequence[float],
    budget_hz: Sequence[float],
) -> nx.DiGraph[int]:
    """The network.

    Args:
        ends: (sender, receiver) of every link.
        weights, bands_hz: of every link.
        own, budget_hz: of every node.
    """
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from((i, {"own": w, "budget": b}) for i, (w, b) in enumerate(zip(own, budget_hz, strict=True)))
    graph.add_edges_from((j, i, {"weight": w, "band": b}) for (j, i), w, b in zip(ends, weights, bands_hz, strict=True))
    return graph


def tell(
    graph: nx.DiGraph[int],
    ends: Sequence[tuple[int, int]],
    processing_s: Sequence[float],
    efficiency: Sequence[float],
    payload_bits: Sequence[float],
) -> None:
    """Write what was measured in a round at its nodes and edges."""
    for i, (p, d) in enumerate(zip(processing_s, payload_bits, strict=True)):
        node = graph.nodes[i]
        node["P"], node["D"] = p, d
    for (j, i), s in zip(ends, efficiency, strict=True):
        graph.edges[j, i]["S"] = s


def networkx_round(graph: nx.DiGraph[int], *, eta: float = 0.9, cap: float = 0.01) -> tuple[float, bool]:
    """Move all weights and bands by one step, in place, with networkx's own calls.

    Returns:
        The step, and whether the links left connect all nodes.
    """
    alpha = min(1.0, cap)
    moves: dict[int, tuple[int, dict[int, tuple[float, float]]]] = {}
    for i in graph.nodes:
        late_s = {
            j: graph.nodes[j]["P"] + graph.nodes[j]["D"] / (graph.edges[j, i]["band"] * graph.edges[j, i]["S"])
            for j in sorted(graph.predecessors(i))
            if graph.edges[j, i]["weight"] > 0.0
        }
        if not late_s:
            continue
        cost_s = {j: graph.edges[j, i]["weight"] * late for j, late in late_s.items()}
        straggler = max(cost_s, key=lambda j: cost_s[j])
        tau, wanted, released = cost_s[straggler], {}, 0.0
        for j, late in late_s.items():
            if j == straggler:
                continue
            edge, sender = graph.edges[j, i], graph.nodes[j]
            band = sender["D"] / (edge["S"] * (tau / edge["weight"] - sender["P"]))  # eq. 1
            more = min(tau / late, 1.0)  # eq. 2
            wanted[j] = more, min(band, edge["band"])
            released += more - edge["weight"]
        if released > 0.0:
            alpha = min(alpha, eta * graph.edges[straggler, i]["weight"] / released)  # eq. 4
        moves[i] = straggler, wanted
    for i, (straggler, wanted) in moves.items():
        weight_left, band_left = 1.0 - graph.nodes[i]["own"], graph.nodes[i]["budget"]
        for j, (more, less) in wanted.items():
            edge = graph.edges[j, i]
            edge["weight"] += alpha * (more - edge["weight"])  # eq. 8
            edge["band"] -= alpha * (edge["band"] - less)  # eq. 7
            weight_left -= edge["weight"]
            band_left -= edge["band"]
        graph.edges[straggler, i].update(weight=weight_left, band=band_left)  # eqs. 5, 6
    in_use = nx.DiGraph((j, i) for j, i, weight in graph.edges(data="weight") if weight > 0.0)
    return alpha, len(in_use) == len(graph) and nx.is_strongly_connected(in_use)


def walked_round(graph: nx.DiGraph[int], *, eta: float = 0.9, cap: float = 0.01) -> tuple[float, bool]:
    """The same round with the graph's dictionaries walked directly."""
    nodes, heard_by = graph.nodes, graph.pred
    alpha = min(1.0, cap)
    moves: list[tuple[int, dict[str, Any], list[tuple[dict[str, Any], float, float]]]] = []
    for i, senders in heard_by.items():
        tau, straggler, links = -1.0, None, []
        for j in sorted(senders):
            edge = senders[j]
            weight = edge["weight"]
            if weight <= 0.0:
                continue
            sender = nodes[j]
            late_s = sender["P"] + sender["D"] / (edge["band"] * edge["S"])
            links.append((edge, sender, late_s))
            if weight * late_s > tau:
                tau, straggler = weight * late_s, edge
        if straggler is None:
            continue
        wanted, released = [], 0.0
        for edge, sender, late_s in links:
            if edge is straggler:
                continue
            weight = edge["weight"]
            band = sender["D"] / (edge["S"] * (tau / weight - sender["P"]))  # eq. 1
            more = min(tau / late_s, 1.0)  # eq. 2
            released += more - weight
            wanted.append((edge, more, min(band, edge["band"])))
        if released > 0.0:
            alpha = min(alpha, eta * straggler["weight"] / released)  # eq. 4
        moves.append((i, straggler, wanted))
    for i, straggler, wanted in moves:
        weight_left, band_left = 1.0 - nodes[i]["own"], nodes[i]["budget"]
        for edge, more, less in wanted:
            edge["weight"] += alpha * (more - edge["weight"])  # eq. 8
            edge["band"] -= alpha * (edge["band"] - less)  # eq. 7
            weight_left -= edge["weight"]
            band_left -= edge["band"]
        straggler["weight"], straggler["band"] = weight_left, band_left  # eqs. 5, 6
    in_use = nx.subgraph_view(graph, filter_edge=lambda j, i: graph[j][i]["weight"] > 0.0)
    everything = all(edge["weight"] > 0.0 for _, _, edge in graph.edges(data=True))
    return alpha, nx.is_strongly_connected(graph if everything else in_use)
