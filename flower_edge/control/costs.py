"""Costs of links and rounds: what the weights and the bandwidth of a `Control` come to in seconds.

Functions from a control and what was measured to numbers. Nothing here chooses anything. Two clocks are kept apart:
the objective f of [1], which weighs each latency by the weight of its link, and the true time of a round, which does
not: a light link is allowed to be slow in f, and holds everybody up in truth.

Letters as in `control.controller`: L = P + C, c = W L, tau[i] the largest c of row i, f the largest tau.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..topology.rows import Floats, largest_in_rows
from ..topology.topology import Topology
from .controller import Control, Observation

__all__ = ["Side", "latencies_s", "link_costs", "objective", "round_time_s", "row_costs", "self_costs"]

#: Whose P is in L[i, j]: of the neighbour who sends j -> i ("receiver": row i is what i waits for; recommended), or of
#: node i itself ("sender": the letters of [1] eqs. 1 and 2 as printed, right where i sends over its own band).
Side = Literal["receiver", "sender"]


def latencies_s(topology: Topology, control: Control, observation: Observation, side: Side = "receiver") -> Floats:
    """L = P + C of every link, seconds, float64 [links]: P[j] on the receiver's side, P[i] on the sender's.

    Infinite where a link has no bandwidth or carries nothing, NaN where something was not measured. The latency that
    is neither P nor transfer counts with P.
    """
    ready_s = observation.ready_s(topology)
    if side == "sender":
        own_s = observation.processing_s[topology.receiver]
        ready_s = own_s + observation.latency_s if len(observation.latency_s) else own_s
    return np.asarray(ready_s + observation.transfer_s(topology, control.bandwidth_hz))


def link_costs(topology: Topology, control: Control, observation: Observation, side: Side = "receiver") -> Floats:
    """c = W L of every link, seconds, float64 [links]; 0 where W = 0, NaN where L of a link in use is not known.

    Source: [1] ¶44, "product of the weights and latencies".
    """
    costs = np.zeros(topology.links)
    used = control.in_use
    costs[used] = control.weights[used] * latencies_s(topology, control, observation, side)[used]
    return costs


def self_costs(control: Control, observation: Observation) -> Floats:
    """c[i, i] = W[i, i] P[i], seconds, float64 [nodes]; 0 where W[i, i] = 0, NaN for a silent node."""
    own = control.self_weights
    return np.multiply(own, observation.processing_s, out=np.zeros(len(own)), where=own > 0.0)


def row_costs(
    topology: Topology,
    control: Control,
    observation: Observation,
    side: Side = "receiver",
    *,
    self_included: bool = True,
) -> Floats:
    """tau[i], the largest cost of row i, seconds, float64 [nodes]. What is not known (NaN) is left out.

    0 for a row in which nothing is known, or that has no link and whose self cost is not included.
    """
    costs = np.nan_to_num(link_costs(topology, control, observation, side), nan=0.0, posinf=np.inf)
    tau = largest_in_rows(costs, topology.indptr, empty=0.0)
    return np.fmax(tau, self_costs(control, observation)) if self_included else tau


def objective(topology: Topology, control: Control, observation: Observation, side: Side = "receiver") -> float:
    """f = max tau[i], seconds, self costs included: what [1] lets controllers make small.

    >>> pair = Topology.complete(2)
    >>> half = Control(np.array([0.5, 0.5]), np.array([0.5, 0.5]), np.array([1e6, 1e6]))
    >>> seen = Observation(np.array([1.0, 3.0]), np.array([2.0, 2.0]), np.array([2e6, 2e6]))
    >>> objective(pair, half, seen)  # node 0 hears node 1 after 3 + 1 s, and gives it half its weight
    2.0
    """
    return float(row_costs(topology, control, observation, side).max(initial=0.0))


def round_time_s(topology: Topology, control: Control, observation: Observation) -> float:
    """Seconds from the start of a round until every node has every model it gives weight to.

    The largest of all P and of all P + C in use, whatever the weights. A silent node is not waited for.

    >>> pair = Topology.complete(2)
    >>> half = Control(np.array([0.5, 0.5]), np.array([0.5, 0.5]), np.array([1e6, 1e6]))
    >>> round_time_s(pair, half, Observation(np.array([1.0, 3.0]), np.array([2.0, 2.0]), np.array([2e6, 2e6])))
    4.0
    """
    waits = latencies_s(topology, control, observation)[control.in_use]
    everything = np.concatenate([observation.processing_s, waits])
    known = everything[~np.isnan(everything)]
    return float(known.max(initial=0.0))
