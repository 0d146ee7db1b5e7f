"""Plans made now and then, carried out round by round: what the controllers of this room's second half share.

A plan is a short list of phases, taken in turn: which links have which weights, and by when each model is to be
everywhere. Between plans the deadlines stand and bandwidth follows S, so that a round costs a few passes over the links
in use. A plan is made at the start, again as P becomes known, after `every` rounds, and when S has changed under it.
What a plan looks like is the controller's own matter: it hands in a function. Nothing here chooses links or weights.

Letters:
    M[j]   deadline: seconds after j's model is ready by which everybody who hears j has it   [nodes]
    u[k]   seconds link k would take with the whole budget of its receiver, D / (S Bbar)       [links]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..topology.connectivity import components
from ..topology.rows import Floats, Indices, spread, sum_rows
from ..topology.sinkhorn import sinkhorn
from ..topology.topology import Topology
from .controller import Control, Observation, Start, State
from .deadlines import deadlines_s, shares_for
from .known import look, remember, topology_of
from .ready_times import ReadyTimes, forget, ready_times, remember_ready

__all__ = ["Outlook", "Phase", "begin", "go_on"]

#: Plans are made again when P has been seen so often: first a little, then enough.
_P_KNOWN_AFTER = (1, 4, 12)
#: A transfer takes so long at least: one of nothing, or over a link without end, still has a share of the band.
_LEAST_S = 1e-9
#: Rounds at least between plans made because S has changed.
_PATIENCE = 5


@dataclass(frozen=True, eq=False)
class Phase:
    """Links in use for a round of the plan, ascending int64 [some], and their weights, float64 [some]."""

    links: Indices
    weights: Floats


@dataclass(frozen=True, eq=False)
class Outlook:
    """What a plan is made from.

    Attributes:
        topology: every link of the run.
        reach: links that carry data, as far as is known, bool [links].
        whole_s: u, float64 [links]; infinite where out of reach.
        extra_s: latency beside P and the transfer, float64 [links].
        ready: P.
        round: that the plan is for, the first of them.
        p_seen: rounds in which P was seen.
        previous: phases of the plan before, a good one to begin a search with; none at the start.
    """

    topology: Topology
    reach: npt.NDArray[np.bool_]
    whole_s: Floats
    extra_s: Floats
    ready: ReadyTimes
    round: int
    p_seen: int
    previous: tuple[Phase, ...] = ()

    @property
    def both_ways(self) -> npt.NDArray[np.bool_]:
        """Links in reach whose counterpart is in reach, bool [links]."""
        back = self.topology.reverse_link
        return self.reach & (back >= 0) & self.reach[np.maximum(back, 0)]


#: Makes phases from an outlook; the mapping says, in plain values, what was chosen and why.
Planner = Callable[[Outlook], tuple[list[Phase], Mapping[str, Any]]]


def begin(planner: Planner, start: Start) -> tuple[Control, State]:
    """The control of round 1 and the state."""
    state: State = remember(start) | {
        "ready": forget(start.topology.nodes, start.processing_s),
        "round": 1,
        "p_seen": 0,
    }
    return _now(_planned(planner, state, start.topology))


def go_on(planner: Planner, state: State, observation: Observation, every: int) -> tuple[Control, State]:
    """The control of the next round. A new plan is made where one is due."""
    heard_s = observation.heard_s
    state = look(state, observation) | {
        "ready": remember_ready(state["ready"], heard_s),
        "round": state["round"] + 1,
        "p_seen": state["p_seen"] + bool(np.isfinite(heard_s).any()),
    }
    age = state["round"] - state["made"]
    learned = sum(seen <= state["p_seen"] for seen in _P_KNOWN_AFTER) > state["p_known"]
    # Never within a period: a schedule that is broken off connects nobody.
    if age % len(state["phases"]) == 0 and (learned or age >= every or (age >= _PATIENCE and _shifted(state))):
        state = _planned(planner, state, topology_of(state))
    return _now(state)


def _shifted(state: State) -> bool:
    """Whether a link comes into or falls out of reach, or one in use carries a quarter less or more than planned."""
    then, now = state["planned_efficiency"], np.nan_to_num(state["spectral_efficiency"])
    if ((then > 0.0) != (now > 0.0)).any():
        return True
    used = np.concatenate([phase["links"] for phase in state["phases"]])
    return bool((np.abs(now[used] - then[used]) > 0.25 * then[used]).any())


def _planned(planner: Planner, state: State, topology: Topology) -> State:
    outlook = _outlook(state, topology)
    phases, chosen = planner(outlook)
    kept = []
    for phase in phases:
        after_s = deadlines_s(
            topology.receiver[phase.links],
            topology.sender[phase.links],
            outlook.whole_s[phase.links],
            outlook.extra_s[phase.links],
            outlook.ready,
        )
        kept.append({"links": phase.links, "weights": phase.weights, "after_s": after_s})
    return state | {
        "made": state["round"],
        "phases": kept,
        "chosen": dict(chosen),
        "p_known": sum(seen <= state["p_seen"] for seen in _P_KNOWN_AFTER),
        "planned_efficiency": np.nan_to_num(state["spectral_efficiency"]),
    }


def _outlook(state: State, topology: Topology) -> Outlook:
    efficiency = np.nan_to_num(state["spectral_efficiency"], posinf=np.inf)
    budget_hz = spread(state["budget_hz"], topology.indptr)
    reach = (efficiency > 0.0) & (budget_hz > 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed_s = np.maximum(state["payload_bits"][topology.sender] / (efficiency * budget_hz), _LEAST_S)
    whole_s = np.where(reach, needed_s, np.inf)
    ready = ready_times(state["ready"])
    previous = tuple(Phase(phase["links"], phase["weights"]) for phase in state.get("phases", ()))
    return Outlook(topology, reach, whole_s, state["latency_s"], ready, state["round"], state["p_seen"], previous)


def _now(state: State) -> tuple[Control, State]:
    """The control of the state's round, from its plan and S as last seen."""
    phase = state["phases"][(state["round"] - state["made"]) % len(state["phases"])]
    links, weights = phase["links"], phase["weights"]
    nodes, indptr = state["nodes"], np.searchsorted(state["receiver"], np.arange(state["nodes"] + 1))
    receiver, sender = state["receiver"][links], state["sender"][links]
    efficiency = np.nan_to_num(state["spectral_efficiency"][links], posinf=np.inf)
    lost = ~((efficiency > 0.0) & (state["budget_hz"][receiver] > 0.0))
    if lost.any():
        keep, weights = _without(nodes, receiver, sender, weights, ~lost)
        links, receiver, sender, efficiency = links[keep], receiver[keep], sender[keep], efficiency[keep]
    all_weights, bandwidth_hz = np.zeros(len(state["receiver"])), np.zeros(len(state["receiver"]))
    all_weights[links] = weights
    whole_s = np.maximum(state["payload_bits"][sender] / (efficiency * state["budget_hz"][receiver]), _LEAST_S)
    shares = shares_for(nodes, receiver, sender, whole_s, state["latency_s"][links], phase["after_s"])
    bandwidth_hz[links] = shares * state["budget_hz"][receiver]
    own = np.maximum(1.0 - sum_rows(all_weights, indptr), 0.0)
    return Control(all_weights, own, bandwidth_hz), state


def _without(
    nodes: int, receiver: Indices, sender: Indices, weights: Floats, left: npt.NDArray[np.bool_]
) -> tuple[Indices, Floats]:
    """Weights when links are lost: doubly stochastic on those of the rest that lie on a cycle. Which, and weights."""
    rest = Topology(nodes, receiver[left], sender[left])
    part = components(rest)
    keep = np.flatnonzero(left & (part[receiver] == part[sender]))
    whole = Topology(nodes, receiver[keep], sender[keep])
    # Lost weight is the receiver's own; a node whose own weight was 0 needs some for a scaling to exist.
    own = np.maximum(1.0 - sum_rows(weights[keep], whole.indptr), 0.05)
    scaled, _ = sinkhorn(whole, weights[keep], own)
    return keep, scaled
