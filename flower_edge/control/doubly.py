"""`DoublyStochastic`: any controller, with weights under which every node counts the same in the consensus.

DCENT, OGD and the closed forms keep rows at 1 ([1] asks for no more), not columns: over the rounds some nodes come to
count for three times their share, others for a third. Sinkhorn's scaling gives the doubly stochastic weights nearest in
proportion on the same links. The inner controller does not know. Nothing here chooses links.

Source: Sinkhorn, Knopp, "Concerning nonnegative matrices and doubly stochastic matrices", 1967.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import TopologyError
from ..topology.connectivity import components
from ..topology.rows import Floats, spread, sum_rows
from ..topology.sinkhorn import sinkhorn
from ..topology.topology import Topology
from .controller import Control, Controller, Observation, Start, State
from .known import topology_of

__all__ = ["DoublyStochastic", "doubly_stochastic"]


def doubly_stochastic(topology: Topology, control: Control, least: float = 1e-6) -> Control:
    """A control with doubly stochastic weights on the links of another, as far as it has such weights.

    A link on no cycle, along which nothing ever comes back, cannot have weight; it loses its band to the row's others.

    Args:
        least: what a weight, own ones included, is raised to before scaling, so that it is not lost in it.
    """
    used = control.in_use
    part = components(topology, used)
    kept = used & (part[topology.receiver] == part[topology.sender])
    raised = np.where(kept, np.maximum(control.weights, least), 0.0)
    weights, own = sinkhorn(topology, raised, np.maximum(control.self_weights, least))
    if (kept == used).all():
        return Control(weights, own, control.bandwidth_hz)
    before_hz = sum_rows(control.bandwidth_hz, topology.indptr)
    left_hz = np.where(kept, control.bandwidth_hz, 0.0)
    after_hz = sum_rows(left_hz, topology.indptr)
    scale: Floats = np.where(after_hz > 0.0, before_hz / np.where(after_hz > 0.0, after_hz, 1.0), 0.0)
    return Control(weights, own, left_hz * spread(scale, topology.indptr))


@dataclass(frozen=True)
class DoublyStochastic:
    """The weights of `inner`, scaled until columns sum to 1, too; its links and its bandwidth.

    Args:
        inner: any controller that does not look ahead.

    Raises:
        TopologyError: `inner` is doubly stochastic in this way already, or clairvoyant.
    """

    inner: Controller
    clairvoyant: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.inner, DoublyStochastic):
            raise TopologyError(f"{self!r}: scaled twice; write {self.inner!r}")
        if type(self.inner).clairvoyant:
            raise TopologyError(
                f"{self.inner!r} is told the round it decides for; use doubly_stochastic on its controls"
            )

    def init(self, start: Start) -> tuple[Control, State]:
        """The inner control, scaled."""
        control, inner = self.inner.init(start)
        topology = start.topology
        state = {"nodes": topology.nodes, "receiver": topology.receiver, "sender": topology.sender, "inner": inner}
        return doubly_stochastic(topology, control), state

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The inner control, scaled."""
        control, inner = self.inner.step(state["inner"], observation)
        return doubly_stochastic(topology_of(state), control), state | {"inner": inner}
