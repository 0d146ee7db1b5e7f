"""Distributed averaging: workers mix without training until they agree on the mean of their models.

With a doubly stochastic W the mean is kept, and what separates the models shrinks by sigma_2 each round: K rounds bring
it down to a share eps where K = ceil(log(1 / eps) / -log sigma_2). A row-stochastic W, as a controller may have left
it, would end in another weighting of the workers. Nothing here sends.

Source: Xiao, Boyd, "Fast linear iterations for distributed averaging", 2004; [1] ¶43.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flower_edge.control.controller import Control, Observation
from flower_edge.control.min_max import min_max_bandwidth
from flower_edge.errors import TopologyError
from flower_edge.runtime.gossip_messages import Report
from flower_edge.topology.connectivity import connected
from flower_edge.topology.mixing import second_singular_value
from flower_edge.topology.rows import Floats
from flower_edge.topology.sinkhorn import sinkhorn

from .timing import Timing

if TYPE_CHECKING:
    from .group import Group

__all__ = ["Averaging"]


@dataclass
class Averaging:
    """How a group averages.

    Attributes:
        control: doubly stochastic weights, and the bands that bring their packets soonest.
        rounds: K, how often is mixed.
        begun: whether the models to be averaged have been posted.
    """

    control: Control
    rounds: int
    begun: bool = False

    @classmethod
    def plan(cls, group: Group, eps: float) -> Averaging:
        """Over the links in use, or over all that carry something where those do not connect the workers.

        Raises:
            TopologyError: not even those do.
        """
        topology = group.topology
        able = group.efficiency > 0.0
        used = group.control.in_use & able
        if not connected(topology, used):
            used = able
        if topology.nodes > 1 and not connected(topology, used):
            raise TopologyError("no network over which all workers could average; final='server' needs none")
        degree = np.bincount(topology.receiver[used], minlength=topology.nodes)
        even: Floats = np.asarray(1.0 / (1.0 + degree), np.float64)
        evenly = np.where(used, even[topology.receiver], 0.0).astype(np.float64)
        weights, own = sinkhorn(topology, evenly, even)
        sigma = second_singular_value(topology, weights, own)
        rounds = 1 if sigma < 1e-12 else max(1, math.ceil(math.log(1.0 / eps) / -math.log(min(sigma, 1.0 - 1e-12))))
        bits = group.start.payload_bits if group.seen is None else group.seen.payload_bits
        still = Observation(np.zeros(topology.nodes), group.efficiency, bits)
        bandwidth_hz, _ = min_max_bandwidth(topology, used, group.start.budget_hz, still)
        return cls(Control(weights, own, bandwidth_hz), rounds)

    def prepare(self, group: Group) -> None:
        """Put the weights in force, before each round."""
        group.control, group.signalling = self.control, _Kept()
        if not self.begun:
            # The trained models themselves are averaged: they are posted once, unmixed. And packets of different ages
            # would not keep the mean: from here on everybody waits.
            group.mixing, self.begun = None, True
            group.timing = Timing.begin(0, group.topology, group.timing.now_s)


class _Kept:
    """Rows that stay as they are."""

    def told(self, group: Group, i: int, *, fresh: bool) -> dict[str, Any]:
        """Weights are in every order."""
        return {}

    def may_carry(self, group: Group) -> npt.NDArray[np.bool_]:
        """Links in use."""
        return group.control.in_use

    def heard(self, group: Group, reports: Mapping[int, Report]) -> None:
        """Nothing is decided."""

    def decide(self, group: Group, seen: Observation) -> None:
        """Nothing is decided."""

    def state_dict(self) -> dict[str, Any]:
        """None."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
