"""`Joint`: another controller's weights, and every resource shared out so that each node's wait ends soonest.

`MinMax` for a vector of resources: plans with a forecast of P and all else as last measured, and is exact for that
plan (`joint_min_max`). Nothing here chooses a weight: a link that cannot be used gives its own to the node itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from ..errors import ConfigError
from ..topology.rows import spread, sum_rows
from ..topology.topology import Topology
from .controller import Control, Controller, Observation, Start, State
from .forecasts import Forecast, Shrunk
from .joint_min_max import joint_min_max
from .known import look, remember, seen, topology_of
from .planned import expected_processing_s
from .resources import Resource, ResourceControl, latency_without, needs_of, share_equally

__all__ = ["Joint"]


@dataclass(frozen=True)
class Joint:
    """Exact shares of several resources for the links an inner controller uses.

    Args:
        inner: whose weights are used. It is shown all that is measured, with the latency that the further resources
            caused in it; what it says about bandwidth counts only if `Bandwidth()` is not among the resources.
        resources: what is shared out jointly. One alone is the exact min-max of that one.
        forecast: of P.
        unknown_s: P before anything is known.

    Raises:
        ConfigError: no resource, one twice, or an inner controller that must see the future.
    """

    inner: Controller
    resources: tuple[Resource, ...]
    forecast: Forecast = field(default_factory=Shrunk)
    unknown_s: float = 1.0
    clairvoyant: ClassVar[bool] = False

    def __post_init__(self) -> None:
        names = [resource.name for resource in self.resources]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"resources {names}: expected at least one, and each once")
        if self.inner.clairvoyant:
            raise ConfigError(f"{self.inner!r} decides for a round it has seen; Joint plans for one it has not")
        if not (np.isfinite(self.unknown_s) and self.unknown_s > 0.0):
            raise ConfigError(f"unknown_s = {self.unknown_s}: expected more than 0 seconds")

    def init(self, start: Start) -> tuple[Control, State]:
        """The inner controller's first weights, with shares for what is known at the start."""
        control, inner = self.inner.init(start)
        known, forecast = remember(start), self.forecast.init(start.topology.nodes)
        told = self._plan(start.topology, control, known, forecast)
        return told, {"inner": inner, "known": known, "forecast": forecast, "told": told.saved()}

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The inner controller's next weights, with shares for what is expected."""
        control, inner = self.inner.step(state["inner"], observation)
        topology = topology_of(state["known"])
        told = ResourceControl(**state["told"])
        rest_s = latency_without(self.resources, topology, told, observation)
        known = look(state["known"], replace(observation, latency_s=np.where(told.in_use, rest_s, np.nan)))
        forecast = self.forecast.update(state["forecast"], observation.heard_s)
        told = self._plan(topology, control, known, forecast)
        return told, {"inner": inner, "known": known, "forecast": forecast, "told": told.saved()}

    @property
    def _shares_band(self) -> bool:
        return any(resource.name == "bandwidth_hz" for resource in self.resources)

    def _plan(self, topology: Topology, inner: Control, known: State, forecast: State) -> ResourceControl:
        expected = seen(known, expected_processing_s(self.forecast, forecast, known, self.unknown_s))
        needs = needs_of(self.resources, topology, expected)
        budgets = np.array([resource.budget(topology, known["budget_hz"]) for resource in self.resources])
        limits = np.array([spread(budget, topology.indptr) for budget in budgets])
        ready_s = expected.ready_s(topology)
        if not self._shares_band:
            ready_s = ready_s + expected.transfer_s(topology, inner.bandwidth_hz)
        can = inner.in_use & np.isfinite(ready_s) & (np.isfinite(needs) & ((needs == 0.0) | (limits > 0.0))).all(axis=0)

        amounts, _ = joint_min_max(topology, can, budgets, needs, ready_s)
        weights = np.where(can, inner.weights, 0.0)
        dropped = sum_rows(np.where(can, 0.0, inner.weights), topology.indptr)
        band_hz = np.where(can, inner.bandwidth_hz, 0.0)
        if not self._shares_band and not np.array_equal(can, inner.in_use):
            band_hz = share_equally(topology, can, known["budget_hz"])
        base = Control(weights, inner.self_weights + dropped, band_hz)
        return ResourceControl.of(base, self.resources, amounts)
