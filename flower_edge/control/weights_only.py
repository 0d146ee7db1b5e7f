"""`WeightsOnly`: a controller whose bandwidth nobody is told; each node divides its own among the links with weight.

The variant of [1] ¶37 with a single matrix: weight 0 says not to exchange, and a node's own on-board rule says how the
band is shared by the rest. Nothing here chooses weights.

Letters as in `control.controller`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..topology.rows import Floats, spread, sum_rows
from ..topology.topology import Topology
from .controller import Control, Controller, Observation, Start, State
from .known import look, remember, seen, topology_of
from .min_max import min_max_bandwidth, usable

__all__ = ["Divide", "WeightsOnly", "divide_band"]

#: Such that a node has all models soonest, by what it last saw; equally; or in proportion to the weights.
Divide = Literal["min-max", "equal", "by weight"]


def divide_band(
    topology: Topology, weights: Floats, budget_hz: Floats, observation: Observation, divide: Divide
) -> Floats:
    """B of nodes that know their row of W, float64 [links]; each row with weight sums to its budget.

    Links whose delays are not known take an equal part of the band under "min-max", too.

    >>> row = Topology(3, receiver=[0, 0], sender=[1, 2])
    >>> nothing_known = Observation(np.full(3, np.nan), np.full(2, np.nan), np.ones(3))
    >>> divide_band(row, np.array([0.6, 0.2]), np.array([4e6, 0.0, 0.0]), nothing_known, "by weight")
    array([3000000., 1000000.])
    """
    in_use = weights > 0.0
    asks = weights if divide == "by weight" else in_use.astype(np.float64)
    total = sum_rows(asks, topology.indptr)
    equal_hz = np.asarray(asks * spread(budget_hz / np.where(total > 0.0, total, 1.0), topology.indptr))
    if divide != "min-max":
        return equal_hz
    known: npt.NDArray[np.bool_] = in_use & usable(topology, observation)
    shared_hz = sum_rows(np.where(known, equal_hz, 0.0), topology.indptr)
    best_hz, _ = min_max_bandwidth(topology, known, shared_hz, observation)
    return np.where(known, best_hz, equal_hz)


@dataclass(frozen=True)
class WeightsOnly:
    """The weights of `inner`, and bandwidth as each node divides it.

    `inner` is shown spectral efficiencies that give the delays which were really measured with the bandwidth it
    believes in; so it reckons with what the nodes do, without knowing it.

    Args:
        inner: any controller that is not clairvoyant.
        divide: the nodes' rule.

    Raises:
        ConfigError: a clairvoyant controller.
    """

    clairvoyant: ClassVar[bool] = False

    inner: Controller
    divide: Divide = "min-max"

    def __post_init__(self) -> None:
        if self.inner.clairvoyant:
            raise ConfigError(f"WeightsOnly({self.inner!r}): nodes do not see the coming round; use another controller")

    def init(self, start: Start) -> tuple[Control, State]:
        """The first weights; nobody has seen a delay, so under "min-max" P counts as expected, or not at all."""
        believed, inner = self.inner.init(start)
        known = remember(start)
        control = self._told(start.topology, believed, known)
        return control, {
            "inner": inner,
            "known": known,
            "believed_hz": believed.bandwidth_hz,
            "real_hz": control.bandwidth_hz,
        }

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The next weights, and the band as divided by what was last seen."""
        believed_hz, real_hz = state["believed_hz"], state["real_hz"]
        both = (believed_hz > 0.0) & (real_hz > 0.0)
        as_if = np.divide(real_hz, believed_hz, out=np.ones(len(real_hz)), where=both)
        shown = replace(observation, spectral_efficiency=observation.spectral_efficiency * as_if)
        believed, inner = self.inner.step(state["inner"], shown)
        known = look(state["known"], observation)
        control = self._told(topology_of(known), believed, known)
        return control, {
            "inner": inner,
            "known": known,
            "believed_hz": believed.bandwidth_hz,
            "real_hz": control.bandwidth_hz,
        }

    def _told(self, topology: Topology, believed: Control, known: State) -> Control:
        bandwidth_hz = divide_band(topology, believed.weights, known["budget_hz"], seen(known), self.divide)
        return Control(believed.weights, believed.self_weights, bandwidth_hz)
