"""Baselines: controllers every other one is held against. None of them learns anything from what it sees.

    Equal        the same weight and band for every neighbour
    NoComm       nobody talks to anybody
    Static       one control for the whole run: a given one, or the optimum for what is expected at the start
    DynamicOpt   the least f of every round, chosen with knowledge of that round: a comparator, not a policy

Source: [1] ¶51-54 has OGD (`ogd`), EQUAL, Dynamic OPT and NoComm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ..topology.rows import Floats, spread, sum_rows
from ..topology.topology import Topology
from .controller import Control, Observation, Start, State
from .known import look, remember, seen, topology_of
from .optimum import weighted_optimum
from .resources import restored

__all__ = ["DynamicOpt", "Equal", "NoComm", "Static", "equal_control"]


def equal_control(topology: Topology, budget_hz: Floats, in_use: npt.NDArray[np.bool_] | None = None) -> Control:
    """Weight 1 / (1 + d) for each of a node's d neighbours and itself, and the d-th part of its band for each.

    On a complete network this is the matrix of ones over N. Links not in `in_use`, bool [links], do not count as
    neighbours; nor do those of a node without band.

    >>> equal_control(Topology(3, receiver=[0, 0, 1], sender=[1, 2, 0]), np.full(3, 6e6)).bandwidth_hz
    array([3000000., 3000000., 6000000.])
    """
    used = spread(budget_hz, topology.indptr) > 0.0
    if in_use is not None:
        used &= in_use
    degree = sum_rows(used.astype(np.float64), topology.indptr)
    share = 1.0 / (1.0 + degree)
    per_link_hz = np.where(degree > 0.0, budget_hz, 0.0) / np.maximum(degree, 1.0)
    return Control(
        np.where(used, spread(share, topology.indptr), 0.0),
        share,
        np.where(used, spread(per_link_hz, topology.indptr), 0.0),
    )


@dataclass(frozen=True)
class Equal:
    """EQUAL of [1] ¶52: the same weight for every neighbour a node can hear, and the same band.

    A link that carried nothing when last measured (S = 0) is not a neighbour until it does again.
    """

    clairvoyant: ClassVar[bool] = False

    def init(self, start: Start) -> tuple[Control, State]:
        """Equal over the links that carry data at the start."""
        known = remember(start)
        return self._control(known), known

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """Equal over the links that carried data last."""
        known = look(state, observation)
        return self._control(known), known

    def _control(self, known: State) -> Control:
        with np.errstate(invalid="ignore"):
            carries = known["spectral_efficiency"] > 0.0
        return equal_control(topology_of(known), known["budget_hz"], carries)


@dataclass(frozen=True)
class NoComm:
    """NoComm of [1] ¶54: every node keeps its own model. The one controller that never connects the network."""

    clairvoyant: ClassVar[bool] = False

    def init(self, start: Start) -> tuple[Control, State]:
        """W = I, B = 0."""
        return self._control(start.topology.nodes, start.topology.links), {
            "nodes": start.topology.nodes,
            "links": start.topology.links,
        }

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The same."""
        del observation
        return self._control(state["nodes"], state["links"]), state

    def _control(self, nodes: int, links: int) -> Control:
        return Control(np.zeros(links), np.ones(nodes), np.zeros(links))


@dataclass(frozen=True, eq=False)
class Static:
    """One control for the whole run, chosen before it begins.

    Args:
        control: that control; None for the weighted optimum of what is known at the start: S as first measured and P
            as expected, the same for all nodes where nothing is expected.
    """

    control: Control | None = None
    clairvoyant: ClassVar[bool] = False

    def __repr__(self) -> str:
        return "Static()" if self.control is None else f"Static(<{int(self.control.in_use.sum())} links in use>)"

    def init(self, start: Start) -> tuple[Control, State]:
        """The control, checked against the start's budgets.

        Raises:
            TopologyError: a control that does not fit the topology or its budgets.
        """
        control = self.control
        if control is None:
            expected_s = np.ones(start.topology.nodes) if start.processing_s is None else start.processing_s
            plan = Observation(expected_s, start.spectral_efficiency, start.payload_bits)
            control = weighted_optimum(start.topology, start.budget_hz, plan)
        control.check(start.topology, start.budget_hz)
        return control, control.saved()

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The same."""
        del observation
        return restored(state), state


@dataclass(frozen=True)
class DynamicOpt:
    """Dynamic OPT of [1] ¶53: the least f possible in each round. `step` is given the round it decides for.

    Nobody can run this: it is what regret is measured against. Its state keeps nothing but the network.
    """

    clairvoyant: ClassVar[bool] = True

    def init(self, start: Start) -> tuple[Control, State]:
        """The control given, until `step` is told the first round."""
        return start.control, remember(start)

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The optimum of the observed round itself; of what was last known of a silent node."""
        known = look(state, observation)
        return weighted_optimum(topology_of(known), known["budget_hz"], seen(known)), known
