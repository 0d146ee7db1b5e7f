"""The environment of a gossiping group: who the workers are, what links there are between them, what is known of those.

[1] ¶35 calls it defining the environment (block 301). It is defined before the first round, and anew when workers come
or go. Nothing here sends, mixes or chooses weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from flwr.serverapp import Grid

from flower_edge.control.controller import Control, Observation
from flower_edge.control.resources import ResourceControl
from flower_edge.control.with_resources import AnsweringWorld, answering
from flower_edge.errors import ConfigError
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.joined_grid import JoinedGrid
from flower_edge.runtime.wrapped_grid import chain, find
from flower_edge.topology.rows import Floats, Indices
from flower_edge.topology.topology import Topology
from flower_edge.topology.world import World

from ..hierarchy.cells import place_of

__all__ = ["Among", "Environment", "Unmodelled", "numbered", "partitions"]

#: What a link is taken to carry before anybody has measured it, bit/s/Hz.
ASSUMED_EFFICIENCY = 1.0


class Among:
    """A world narrowed to some of its nodes, numbered anew in the order given.

    Args:
        world: the whole one.
        nodes: numbers of those that take part, each once.
    """

    def __init__(self, world: World, nodes: Sequence[int]) -> None:
        self.world = world
        self.nodes = np.asarray(nodes, np.int64)
        whole = world.topology
        new = np.full(whole.nodes, -1, np.int64)
        new[self.nodes] = np.arange(len(self.nodes))
        kept = (new[whole.receiver] >= 0) & (new[whole.sender] >= 0)
        receiver, sender = new[whole.receiver[kept]], new[whole.sender[kept]]
        places = None if whole.positions_m is None else whole.positions_m[self.nodes]
        self._topology = Topology(len(self.nodes), receiver, sender, places)
        # Numbered anew, links may lie in another order.
        self._links: Indices = np.flatnonzero(kept)[np.lexsort((sender, receiver))]

    def under(self, control: Control) -> Among:
        """The same with this control, of those that take part, in force; over all other links nothing travels."""
        if not isinstance(self.world, AnsweringWorld):
            return self
        whole = self.world.topology

        def everywhere(values: Floats) -> Floats:
            found = np.zeros(whole.links)
            found[self._links] = values
            return found

        own = np.ones(whole.nodes)
        own[self.nodes] = control.self_weights
        told = Control(everywhere(control.weights), own, everywhere(control.bandwidth_hz))
        if isinstance(control, ResourceControl):
            told = ResourceControl(
                **vars(told), amounts={name: everywhere(amounts) for name, amounts in control.amounts.items()}
            )
        found = copy(self)
        found.world = self.world.under(told)
        return found

    @property
    def topology(self) -> Topology:
        """Links between those that take part."""
        return self._topology

    @property
    def budget_hz(self) -> Floats:
        """Band of each."""
        return self.world.budget_hz[self.nodes]

    def positions_m(self, round: int) -> Floats | None:
        """Where they are."""
        places = self.world.positions_m(round)
        return None if places is None else places[self.nodes]

    def processing_s(self, round: int) -> Floats:
        """P of each."""
        return self.world.processing_s(round)[self.nodes]

    def spectral_efficiency(self, round: int) -> Floats:
        """S of the links between them."""
        return self.world.spectral_efficiency(round)[self._links]

    def latency_s(self, round: int) -> Floats:
        """What their links take besides."""
        return self.world.latency_s(round)[self._links]


@dataclass(frozen=True)
class Unmodelled:
    """A world of which only the links are known: what they carry and how long nodes compute is measured.

    Attributes:
        topology: every link that may be used.
        band_hz: nominal band of each node; with S measured against it, only its shares matter.
    """

    topology: Topology
    band_hz: float = 1e6

    @cached_property
    def budget_hz(self) -> Floats:
        """The nominal band, of every node."""
        return np.full(self.topology.nodes, self.band_hz)

    def positions_m(self, round: int) -> Floats | None:
        """Those of the topology."""
        return self.topology.positions_m

    def processing_s(self, round: int) -> Floats:
        """Not known."""
        return np.full(self.topology.nodes, np.nan)

    def spectral_efficiency(self, round: int) -> Floats:
        """Not known."""
        return np.full(self.topology.links, np.nan)

    def latency_s(self, round: int) -> Floats:
        """None."""
        return np.zeros(self.topology.links)


def numbered(
    grid: Grid, nodes: Sequence[int], places: int | None, known: Mapping[int, int] | None = None
) -> dict[int, int]:
    """The number of each node, by node id: which node of a world it is, and what it is called in packets.

    A node is the one that its `partition-id` names; where the Grid does not tell those, they are numbered in its order.
    A number once given stays: who comes later takes one that is free.

    Args:
        grid: tells `partition-id`s, or does not.
        nodes: their ids.
        places: numbers that there are; None for as many as it takes.
        known: numbers given before, by node id.

    Raises:
        ConfigError: more nodes than the world has.
    """
    if places is not None and len(nodes) > places:
        raise ConfigError(
            f"{len(nodes)} nodes take part and the world has {places}; make it of {len(nodes)} nodes, "
            "or choose that many workers"
        )
    found = {node: number for node, number in (known or {}).items() if node in set(nodes)}
    told = partitions(grid, [node for node in nodes if node not in found])
    new, usable = set(told.values()), len(nodes) - len(found)
    in_range = places is None or max(new, default=0) < places
    if len(told) == len(new) == usable and in_range and not new & set(found.values()):
        return {node: told[node] if node in told else found[node] for node in nodes}
    # Numbers of nodes that have gone are taken last.
    taken, before = set(found.values()), set((known or {}).values())
    count = max(len(nodes) + len(before), places or 0) if places is None else places
    rest = iter(sorted((k for k in range(count) if k not in taken), key=lambda k: (k in before, k)))
    return {node: found[node] if node in found else next(rest) for node in nodes}


def partitions(grid: Grid, nodes: Sequence[int]) -> dict[int, int]:
    """The `partition-id` of each node, where the grid, or the part of a `JoinedGrid` that has the node, can tell it."""
    joined = find(grid, JoinedGrid) if find(grid, GridProxy) is None else None
    if joined is None:
        places = {node: place_of(grid, node) for node in nodes}
        return {node: place[0] for node, place in places.items() if place is not None}
    told: dict[int, int] = {}
    for part in joined.grids:
        here = set(part.get_node_ids())
        told |= partitions(part, [node for node in nodes if node in here])
    return told


@dataclass(frozen=True, eq=False)
class Environment:
    """Workers and their links.

    Attributes:
        index: row of each worker that is known on the Grid, 0 to N - 1, by node id.
        numbers: what each is called in packets and reports, by row: its number in the whole world.
        partitions: the `partition-id` of each, by row, None where it is not told: who it is after a restart.
        world: that of the workers only.
    """

    index: Mapping[int, int]
    numbers: Sequence[int]
    partitions: Sequence[int | None]
    world: World

    @classmethod
    def define(cls, grid: Grid, numbers: Mapping[int, int], world: World | None) -> Environment:
        """Of these nodes of the Grid, numbers by node id. Without a world, of links between all that are measured."""
        members = sorted(numbers, key=numbers.__getitem__)
        wanted, told = [numbers[node] for node in members], partitions(grid, members)
        index = {node: i for i, node in enumerate(members)}
        return cls(index, wanted, [told.get(node) for node in members], _between(wanted, world))

    @classmethod
    def again(
        cls,
        grid: Grid,
        present: Sequence[int],
        numbers: Sequence[int],
        parts: Sequence[int | None],
        world: World | None,
        before: Mapping[int, int],
    ) -> Environment:
        """Of the workers that a checkpoint has, by the node ids that they have now.

        Those that are not there now keep their row under the id that they had (`before`, with the row), if any worker
        is found: they may have been left out of this round only. By another id they are attached when they are back.
        """
        here = set(present)
        if None in parts:
            there = {node: i for node, i in before.items() if node in here}
            index = there or {node: i for i, node in enumerate(present[: len(numbers)])}
        else:
            row = {part: i for i, part in enumerate(parts)}
            index = {node: row[part] for node, part in partitions(grid, present).items() if part in row}
        # The Grid may be narrowed to a selection in which there is none of them.
        *_, whole = chain(grid)
        if index or not before.keys().isdisjoint(whole.get_node_ids()):
            found = set(index.values())
            index |= {node: i for node, i in before.items() if i not in found and node not in here}
        return cls(index, list(numbers), list(parts), _between(numbers, world)).sorted()

    def attached(self, grid: Grid, present: Sequence[int]) -> Environment:
        """The same, where workers that had gone are back under other node ids."""
        strangers, there = [node for node in present if node not in self.index], set(present)
        absent = set(range(len(self.numbers))) - {i for node, i in self.index.items() if node in there}
        if not strangers or not absent:
            return self
        row = {self.partitions[i]: i for i in absent if self.partitions[i] is not None}
        back = {node: row[part] for node, part in partitions(grid, strangers).items() if part in row}
        gone = set(back.values())
        return replace(self, index={**{n: i for n, i in self.index.items() if i not in gone}, **back}).sorted()

    def sorted(self) -> Environment:
        """The same, `index` in the order of the rows."""
        return replace(self, index=dict(sorted(self.index.items(), key=lambda item: item[1])))

    @property
    def topology(self) -> Topology:
        """Every link that may be used between workers."""
        return self.world.topology

    def under(self, control: Control) -> Environment:
        """The same with this control in force, where the world answers to one."""
        return replace(self, world=answering(self.world, control))

    @cached_property
    def by_node(self) -> dict[int, int]:
        """Numbers by node id."""
        return {node: self.numbers[i] for node, i in self.index.items()}

    def efficiency(self, round: int, known: Floats | None) -> Floats:
        """S of a round: the world's, or what is known from before where the world does not tell."""
        told = np.asarray(self.world.spectral_efficiency(round), np.float64)
        last = np.full(self.topology.links, ASSUMED_EFFICIENCY) if known is None else known
        return np.where(np.isnan(told), last, told)

    def measured(self, round: int, control: Control, payload_bits: Floats, heard_s: Floats, known: Floats) -> Floats:
        """S where only link delays were measured: D / (B C), where a link was heard."""
        told = np.asarray(self.world.spectral_efficiency(round), np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            seen = payload_bits[self.topology.sender] / (control.bandwidth_hz * np.maximum(heard_s, 1e-6))
        own = np.where(np.isfinite(seen) & control.in_use, seen, known)
        return np.where(np.isnan(told), own, told)

    def observe(self, round: int, processing_s: Floats, efficiency: Floats, payload_bits: Floats) -> Observation:
        """What a controller is shown."""
        return Observation(processing_s, efficiency, payload_bits, self.world.latency_s(round))


def _between(numbers: Sequence[int], world: World | None) -> World:
    if world is None:
        return Unmodelled(Topology.complete(len(numbers)))
    return world if list(numbers) == list(range(world.topology.nodes)) else Among(world, numbers)
