"""`WithResources`: a world in which links wait for more than the band, for a controller to be tried in.

Around any `World`. What the nodes allot of their further resources decides how long their links take: that is the only
thing in a world that answers to a control. The value is pure all the same: `under(control)` is the world in which that
control is in force. Nothing here is used when nodes really compute; they measure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from ..errors import ConfigError
from ..topology.rows import Floats
from ..topology.topology import Topology
from ..topology.world import World
from .controller import Control, Observation
from .resources import Resource, ResourceControl, delays_s, share_equally

__all__ = ["AnsweringWorld", "WithResources", "answering"]


@runtime_checkable
class AnsweringWorld(World, Protocol):
    """A world whose answers depend on what the nodes were told."""

    def under(self, control: Control) -> World:
        """The world in which this control is in force."""
        ...


def answering(world: World, control: Control) -> World:
    """The world as it is under a control: itself, unless it answers to one."""
    return world.under(control) if isinstance(world, AnsweringWorld) else world


@dataclass(frozen=True, eq=False)
class WithResources:
    """A world with further resources: their seconds are part of `latency_s`.

    Args:
        world: the radio and the clocks.
        resources: what links need beside the band. The band is the world's own matter: leave `Bandwidth()` out.
        payload_bits: D of every node, or float64 [nodes].
        control: what is in force. Of a resource it says nothing about, every node gives all its links in use the
            same; so a controller that knows none of the resources can be tried, too. None: all links are in use.

    Raises:
        ConfigError: a resource twice, or the band among them, whose seconds would count twice.
    """

    world: World
    resources: tuple[Resource, ...]
    payload_bits: float | Floats
    control: Control | None = None

    def __post_init__(self) -> None:
        names = [resource.name for resource in self.resources]
        if len(set(names)) < len(names) or "bandwidth_hz" in names:
            raise ConfigError(f"resources {names} of a world: expected each once, and not the band, which is its own")

    def under(self, control: Control) -> WithResources:
        """The same world with this control in force."""
        return replace(self, control=control)

    @property
    def topology(self) -> Topology:
        """As in the world inside."""
        return self.world.topology

    @property
    def budget_hz(self) -> Floats:
        """As in the world inside."""
        return self.world.budget_hz

    def positions_m(self, round: int) -> Floats | None:
        """As in the world inside."""
        return self.world.positions_m(round)

    def processing_s(self, round: int) -> Floats:
        """As in the world inside."""
        return self.world.processing_s(round)

    def spectral_efficiency(self, round: int) -> Floats:
        """As in the world inside."""
        return self.world.spectral_efficiency(round)

    def latency_s(self, round: int) -> Floats:
        """That of the world inside, and what the resources take on links in use, seconds, float64 [links]."""
        topology = self.topology
        bits = np.broadcast_to(np.asarray(self.payload_bits, np.float64), (topology.nodes,))
        shown = Observation(self.processing_s(round), self.spectral_efficiency(round), bits)
        used = np.ones(topology.links, np.bool_) if self.control is None else self.control.in_use
        told = self.control.amounts if isinstance(self.control, ResourceControl) else {}
        latency_s = self.world.latency_s(round).copy()
        for resource in self.resources:
            amounts = told.get(resource.name)
            if amounts is None:
                amounts = share_equally(topology, used, resource.budget(topology, self.budget_hz))
            latency_s += np.where(used, delays_s(resource.need(topology, shown), amounts), 0.0)
        return latency_s
