"""`ArrayWorld`: a network whose radio and clocks are given arrays. For tests: no places, no path loss, no devices.

Round r shows row `(r - 1) % rounds` of each array, so a short world goes on for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flower_edge.control.controller import Control, Controller, Observation, Start
from flower_edge.topology.rows import Floats, spread, sum_rows
from flower_edge.topology.topology import Topology

#: D of the experiment in [1]: the parameters of LeNet, 32 bit each.
LENET_BITS = 61_706 * 32.0


@dataclass(frozen=True, eq=False)
class ArrayWorld:
    """A `World` from arrays. One-dimensional ones hold for every round.

    Attributes:
        topology: every link there is.
        budget_hz: float64 [nodes].
        processing: P, float64 [rounds, nodes] or [nodes].
        efficiency: S, float64 [rounds, links] or [links].
        latency: beside P and D / (B S), float64 [links]; empty for none.
    """

    topology: Topology
    budget_hz: Floats
    processing: Floats
    efficiency: Floats
    latency: Floats | None = None

    def positions_m(self, round: int) -> Floats | None:
        return self.topology.positions_m

    def processing_s(self, round: int) -> Floats:
        return _of_round(self.processing, round)

    def spectral_efficiency(self, round: int) -> Floats:
        return _of_round(self.efficiency, round)

    def latency_s(self, round: int) -> Floats:
        return np.zeros(self.topology.links) if self.latency is None else self.latency


def _of_round(values: Floats, round: int) -> Floats:
    table = np.atleast_2d(values)
    return table[(round - 1) % len(table)]


def random_world(seed: int, topology: Topology | None = None, rounds: int = 30, nodes: int = 6) -> ArrayWorld:
    """S log-normal over two decades and nearly constant in time, P as in [1], budgets of 10 to 20 MHz."""
    rng = np.random.default_rng([seed, 4])
    where = Topology.complete(nodes, rng.uniform(0.0, 500.0, (nodes, 2))) if topology is None else topology
    mean = rng.lognormal(0.0, 1.2, where.links)
    return ArrayWorld(
        where,
        rng.uniform(10e6, 20e6, where.nodes),
        np.clip(rng.normal(1.0, 0.5, (rounds, where.nodes)), 0.01, 2.0),
        mean * rng.uniform(0.95, 1.05, (rounds, where.links)),
    )


def random_topology(seed: int, nodes: int = 7, extra: int = 12) -> Topology:
    """Directed and strongly connected: a ring and `extra` further links."""
    rng = np.random.default_rng([seed, 5])
    ring = {((i + 1) % nodes, i) for i in range(nodes)} if nodes > 1 else set()
    others = [(i, j) for i in range(nodes) for j in range(nodes) if i != j and (i, j) not in ring]
    chosen = [others[k] for k in rng.permutation(len(others))[:extra]]
    pairs = np.array(sorted(ring) + chosen, np.int64).reshape(-1, 2)
    return Topology(nodes, pairs[:, 0], pairs[:, 1], rng.uniform(0.0, 500.0, (nodes, 2)))


def equal_control(topology: Topology, budget_hz: Floats) -> Control:
    """Each node listens equally to itself and to all it hears, and shares its band out equally."""
    degree = topology.in_degree.astype(float)
    weights, per_link_hz = 1.0 / (degree + 1.0), budget_hz / np.maximum(degree, 1.0)
    flat = spread(weights, topology.indptr)
    return Control(flat, 1.0 - sum_rows(flat, topology.indptr), spread(per_link_hz, topology.indptr))


def observation(world: ArrayWorld, round: int, payload_bits: float = LENET_BITS) -> Observation:
    """What is measured in a round in which nobody is silent."""
    bits = np.full(world.topology.nodes, payload_bits)
    latency_s = np.zeros(0) if world.latency is None else world.latency_s(round)
    return Observation(world.processing_s(round), world.spectral_efficiency(round), bits, latency_s)


def start(world: ArrayWorld, payload_bits: float = LENET_BITS, control: Control | None = None) -> Start:
    """Equal weights and band, unless another control is given."""
    now = observation(world, 1, payload_bits)
    chosen = equal_control(world.topology, world.budget_hz) if control is None else control
    return Start(world.topology, chosen, world.budget_hz, now.payload_bits, now.spectral_efficiency)


def with_silent(seen: Observation, nodes: list[int]) -> Observation:
    """As measured when these nodes said nothing."""
    processing_s = seen.processing_s.copy()
    processing_s[nodes] = np.nan
    return replace(seen, processing_s=processing_s)


def controls(
    controller: Controller,
    world: ArrayWorld,
    rounds: int,
    *,
    seen: Callable[[int], Observation] | None = None,
    keep: Callable[[dict[str, Any]], dict[str, Any]] = lambda state: state,
    begin: Start | None = None,
) -> Iterator[Control]:
    """The control of each of the rounds 1 .. `rounds`.

    A clairvoyant controller is shown the round it decides for, also the first; others begin with `init`'s control.
    `seen(round)` replaces what is measured; `keep(state)` is put between any two steps, as a checkpoint would be.
    """
    shown = seen or (lambda round: observation(world, round))
    control, state = controller.init(begin or start(world))
    if controller.clairvoyant:
        control, state = controller.step(keep(state), shown(1))
    yield control
    for round in range(2, rounds + 1):
        control, state = controller.step(keep(state), shown(round if controller.clairvoyant else round - 1))
        yield control
