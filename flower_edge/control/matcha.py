"""MATCHA: in every round only some of the matchings of a base network, drawn so that it mixes well all the same.

The base is divided into matchings; each is active with a probability of its own. The probabilities make the expected
network as well connected as a communication budget allows, and one weight for all links makes the drawn networks
contract as much as possible in the mean. Nothing here trains or sends.

Letters:
    p[m]   probability of matching m                   L[m]   its Laplacian
    W      I - alpha (sum of the active L[m])          budget  mean share of matchings that are active

Source: Wang, Sahu, Yang, Joshi, Kar, "MATCHA: speeding up decentralized SGD via matching decomposition sampling",
2019. Departures: cheap links share matchings, alpha is lowered in a draw in which it would make a weight negative, and
a matching rests three rounds at most, so that the union of any four rounds of a draw is the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import sparse
from scipy.optimize import minimize_scalar

from ..errors import TopologyError
from ..topology.overlays import cheapest_links, matchings
from ..topology.relabel import smoothest_vector
from ..topology.rows import Floats, Indices
from ..topology.topology import Topology
from .controller import Control, Observation, Start, State
from .phases import Outlook, Phase, begin, go_on
from .sparse_plans import everything, in_pairs, link_cost_s

__all__ = ["Matcha", "activation", "mixing_weight"]

#: Rounds drawn at a time, and rounds that a matching rests at most.
_DRAWN, _REST = 12, 3
_STEPS = 30
#: Beyond so many nodes the weight is 1 / (largest mean degree), without an eigenvalue problem per trial.
_DENSE = 300


@dataclass(frozen=True)
class Matcha:
    """Random matchings of a sparse base.

    Args:
        budget: mean share of the matchings that are active in a round, above 0, to 1.
        neighbours: cheapest neighbours of each node in the base, beside a spanning tree.
        seed: of the draws.
    """

    budget: float = 0.5
    neighbours: int = 6
    seed: int = 0
    clairvoyant: ClassVar[bool] = False
    #: Links come and go by plan: a change is no news.
    scheduled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 < self.budget <= 1.0:
            raise TopologyError(f"budget = {self.budget}: expected a share above 0, at most 1")

    def init(self, start: Start) -> tuple[Control, State]:
        """The first rounds' draws, on the cheapest links by S as first measured."""
        return begin(self.plan, start)

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The next draw."""
        return go_on(self.plan, state, observation, _DRAWN)

    def plan(self, outlook: Outlook) -> tuple[list[Phase], Mapping[str, Any]]:
        """Some rounds' draws, from an outlook."""
        topology = outlook.topology
        if not in_pairs(outlook):
            return [everything(outlook)], {"matchings": 0}
        cost = link_cost_s(outlook)
        used = cheapest_links(topology, cost, self.neighbours)
        parts = matchings(topology, used, cost)
        if not parts:
            return [everything(outlook)], {"matchings": 0}
        share = activation(topology, parts, self.budget)
        alpha = mixing_weight(topology, parts, share)
        rng = np.random.default_rng([self.seed, outlook.round])
        rest = np.zeros(len(parts), np.int64)
        phases = []
        for _ in range(_DRAWN):
            active = (rng.random(len(parts)) < share) | (rest >= _REST)
            rest = np.where(active, 0, rest + 1)
            links = np.sort(np.concatenate([np.zeros(0, np.int64), *(parts[m] for m in np.flatnonzero(active))]))
            degree = int(np.bincount(topology.receiver[links], minlength=1).max())
            # In a draw of more links than usual the weight is such that no node's own falls below 0.
            phases.append(Phase(links, np.full(len(links), min(alpha, 1.0 / max(degree, 1)))))
        return phases, {"matchings": len(parts), "alpha": alpha, "share": share}


def activation(topology: Topology, parts: list[Indices], budget: float) -> Floats:
    """p: probabilities with which the expected network is best connected, float64 [matchings].

    Maximises the second smallest eigenvalue of sum p[m] L[m] over 0 <= p <= 1, sum p = budget x matchings, by projected
    supergradient: its derivative by p[m] is the sum of (v_i - v_j)^2 over m's pairs, v the Fiedler vector.
    """
    total = budget * len(parts)
    share = np.full(len(parts), budget)
    best, largest = share, -1.0
    part_of = np.full(topology.links, -1)
    for m, links in enumerate(parts):
        part_of[links] = m
    base = part_of >= 0
    for step in range(_STEPS):
        tie = np.where(base, share[part_of], 0.0)
        v = smoothest_vector(topology, tie)
        apart = (v[topology.receiver] - v[topology.sender]) ** 2
        eigenvalue = float((tie * apart).sum() / 2.0)
        if eigenvalue > largest:
            best, largest = share, eigenvalue
        slope = np.bincount(part_of[base], apart[base] / 2.0, minlength=len(parts))
        length = float(np.linalg.norm(slope - slope.mean()))
        if length < 1e-12:
            break
        share = _onto_budget(share + 0.5 / np.sqrt(step + 1.0) * (slope - slope.mean()) / length, total)
    return best


def _onto_budget(share: Floats, total: float) -> Floats:
    """The nearest point with 0 <= p <= 1 and the given sum: a shift, clipped, found by bisection."""
    low, high = float(share.min()) - 1.0, float(share.max())
    for _ in range(60):
        shift = (low + high) / 2.0
        if np.clip(share - shift, 0.0, 1.0).sum() > total:
            low = shift
        else:
            high = shift
    return np.asarray(np.clip(share - high, 0.0, 1.0))


def mixing_weight(topology: Topology, parts: list[Indices], share: Floats) -> float:
    """alpha: the weight with which the drawn W contract most in the mean, at most 1 / (largest mean degree).

    Minimises the second largest eigenvalue of E W W^T = I - 2 alpha E + alpha^2 (E^2 + 2 V), with E = sum p L and
    V = sum p (1 - p) L, matchings being drawn independently.
    """
    degree = np.zeros(topology.nodes)
    for links, p in zip(parts, share.tolist(), strict=True):
        degree += p * np.bincount(topology.receiver[links], minlength=topology.nodes)
    most = 1.0 / max(float(degree.max()), 1.0)
    if topology.nodes > _DENSE:
        return most
    expected = _laplacian(topology, parts, share)
    varied = _laplacian(topology, parts, share * (1.0 - share))
    mean = np.full((topology.nodes, topology.nodes), 1.0 / topology.nodes)
    square = expected @ expected + 2.0 * varied

    def left(alpha: float) -> float:
        product = np.eye(topology.nodes) - 2.0 * alpha * expected + alpha**2 * square - mean
        return float(np.linalg.eigvalsh(product)[-1])

    found = minimize_scalar(left, bounds=(0.0, most), method="bounded", options={"xatol": 1e-6})
    return float(np.clip(found.x, 1e-3 * most, most))


def _laplacian(topology: Topology, parts: list[Indices], share: Floats) -> Floats:
    tie = np.zeros(topology.links)
    for links, p in zip(parts, share.tolist(), strict=True):
        tie[links] = p
    matrix = topology.matrix(tie)
    return np.asarray((sparse.diags(np.asarray(matrix.sum(axis=1)).ravel()) - matrix).toarray())
