"""Planned controllers: the exact best control of a forecast round, instead of small steps towards a better one.

    ClosedForm   weights and bandwidth that make f least (`optimum`), for the P expected and the S seen last
    MinMax       any controller's weights, with the bandwidth that ends its rounds soonest (`min_max`)

Both see the last round only; what they gain and lose is how good the forecast is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from ..errors import ConfigError
from ..topology.rows import Floats, spread, sum_rows
from ..topology.topology import Topology
from .baselines import Equal
from .bridges import bridges
from .controller import Control, Controller, Observation, Start, State
from .costs import row_costs
from .forecasts import Forecast, Shrunk
from .known import look, remember, seen, topology_of
from .min_max import band_seconds, min_max_bandwidth, usable
from .optimum import weighted_optimum

__all__ = ["ClosedForm", "MinMax", "expected_processing_s"]

_HALVINGS = 4


def expected_processing_s(forecast: Forecast, state: State, known: State, unknown_s: float) -> Floats:
    """P to plan with, float64 [nodes], without a gap.

    The forecast; where it knows nothing, what was expected or last measured; else the mean of the nodes of which
    something is known; else `unknown_s`.
    """
    expected_s = forecast.expected(state)
    expected_s = np.where(np.isnan(expected_s), known["processing_s"], expected_s)
    gaps = np.isnan(expected_s)
    if gaps.any():
        expected_s = np.where(gaps, unknown_s if gaps.all() else expected_s[~gaps].mean(), expected_s)
    return expected_s


@dataclass(frozen=True)
class ClosedForm:
    """The weighted optimum of the round that is expected: minimises f of [1] without moving step by step.

    Args:
        forecast: of P. The default plans each node's own mean, as far as nodes differ, plus one standard deviation.
        reserve: rows that would not be the worst plan for models that are ready later than expected: up to this many
            times as late, as long as that does not make them the worst. f is the cost of the worst row, so it costs
            nothing where the forecast holds, and helps where it does not. 1 plans every row for the forecast.
        bridge_share: part of its budget that a node gives to a link which the optimum would drop, but without which
            the network would be in parts. 0 lets it fall apart.
        unknown_s: P before anything is known.
    """

    forecast: Forecast = field(default_factory=Shrunk)
    reserve: float = 1.3
    bridge_share: float = 0.01
    unknown_s: float = 1.0
    clairvoyant: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.reserve) and self.reserve >= 1.0):
            raise ConfigError(f"reserve = {self.reserve}: expected a finite number, 1 or more")
        if not 0.0 <= self.bridge_share < 1.0:
            raise ConfigError(f"bridge_share = {self.bridge_share}: expected 0 or more, and less than 1")
        if not (np.isfinite(self.unknown_s) and self.unknown_s > 0.0):
            raise ConfigError(f"unknown_s = {self.unknown_s}: expected more than 0 seconds")

    def init(self, start: Start) -> tuple[Control, State]:
        """The optimum for what is known at the start."""
        state = {"known": remember(start), "forecast": self.forecast.init(start.topology.nodes)}
        return self._plan(state), state

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The optimum for what is expected now."""
        state = {
            "known": look(state["known"], observation),
            "forecast": self.forecast.update(state["forecast"], observation.heard_s),
        }
        return self._plan(state), state

    def _plan(self, state: State) -> Control:
        known = state["known"]
        topology, budget_hz = topology_of(known), known["budget_hz"]
        coming = seen(known, expected_processing_s(self.forecast, state["forecast"], known, self.unknown_s))
        coming = _with_reserve(topology, budget_hz, coming, self.reserve)
        control = weighted_optimum(topology, budget_hz, coming)
        if self.bridge_share == 0.0:
            return control
        allowed = usable(topology, coming) & (spread(budget_hz, topology.indptr) > 0.0)
        extra = bridges(topology, control.in_use, allowed & ~control.in_use, band_seconds(topology, coming))
        if not extra.any():
            return control
        # No more than half a budget goes to bridges, however many a node needs.
        many = np.maximum(sum_rows(extra.astype(np.float64), topology.indptr), 1.0)
        share = np.minimum(self.bridge_share, 0.5 / many)
        at_least_hz = np.where(extra, spread(share * budget_hz, topology.indptr), 0.0)
        return weighted_optimum(topology, budget_hz, coming, at_least_hz=at_least_hz)


def _with_reserve(topology: Topology, budget_hz: Floats, coming: Observation, reserve: float) -> Observation:
    """What to plan with when row i plans for all P it depends on being `late[i]` times as long, 1 <= late <= reserve.

    `late` is the largest that leaves the cost of the row's optimum at or below that of the worst row, to an eighth of
    the way. A row is late in its own plan only, so what it expects of another node goes into the latency of the link.
    """
    if reserve == 1.0 or not topology.nodes:
        return coming
    expected_s, indptr = coming.processing_s, topology.indptr
    latency_s = coming.latency_s if len(coming.latency_s) else np.zeros(topology.links)

    def planned(late: Floats) -> Observation:
        extra_s = (spread(late, indptr) - late[topology.sender]) * expected_s[topology.sender]
        return replace(coming, processing_s=late * expected_s, latency_s=latency_s + extra_s)

    def costs(plan: Observation) -> Floats:
        return row_costs(topology, weighted_optimum(topology, budget_hz, plan), plan)

    late = np.ones(topology.nodes)
    worst = float(costs(coming).max())
    step = reserve - 1.0
    for _ in range(_HALVINGS):
        further = np.minimum(late + step, reserve)
        late = np.where(costs(planned(further)) <= worst, further, late)
        step /= 2.0
    return planned(late)


@dataclass(frozen=True)
class MinMax:
    """The weights of another controller, with the bandwidth that ends every node's wait soonest.

    `MinMax(Equal())`, the default, uses every link. What the inner controller says of bandwidth is not used, only
    which links it gives weight to. A link that cannot be planned for, because it carried nothing when last measured,
    loses its weight to the node itself.

    Args:
        inner: chooses the weights; not a clairvoyant one.
        forecast: of P.
        unknown_s: P before anything is known.
    """

    inner: Controller = field(default_factory=Equal)
    forecast: Forecast = field(default_factory=Shrunk)
    unknown_s: float = 1.0
    clairvoyant: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.inner.clairvoyant:
            raise ConfigError(f"{self.inner!r} decides for a round it has seen; MinMax plans for one it has not")
        if not (np.isfinite(self.unknown_s) and self.unknown_s > 0.0):
            raise ConfigError(f"unknown_s = {self.unknown_s}: expected more than 0 seconds")

    def init(self, start: Start) -> tuple[Control, State]:
        """The inner controller's first weights, with the bandwidth for what is known at the start."""
        control, inner = self.inner.init(start)
        state = {
            "known": remember(start),
            "forecast": self.forecast.init(start.topology.nodes),
            "inner": inner,
        }
        return self._band(start.topology, control, state), state

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The inner controller's next weights, with the bandwidth for what is expected."""
        control, inner = self.inner.step(state["inner"], observation)
        state = {
            "known": look(state["known"], observation),
            "forecast": self.forecast.update(state["forecast"], observation.heard_s),
            "inner": inner,
        }
        return self._band(topology_of(state["known"]), control, state), state

    def _band(self, topology: Topology, control: Control, state: State) -> Control:
        known = state["known"]
        coming = seen(known, expected_processing_s(self.forecast, state["forecast"], known, self.unknown_s))
        bandwidth_hz, _ = min_max_bandwidth(topology, control.in_use, known["budget_hz"], coming)
        lost = np.where(bandwidth_hz > 0.0, 0.0, control.weights)
        return Control(control.weights - lost, control.self_weights + sum_rows(lost, topology.indptr), bandwidth_hz)
