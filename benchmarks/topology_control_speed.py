"""How long a round of control takes on this machine: networks of 1,000 to 100,000 nodes, and networkx beside it.

A round is a `step` of DCENT, all rows at once, and a look at whether the links in use connect all nodes. What is
measured of radio and clocks is there beforehand. The same round over networkx, on the same network in the same process,
gives the same numbers (or this raises) and the ratio. Only these figures depend on how fast the machine is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from scipy.spatial import cKDTree

from flower_edge.control.controller import Control, Observation, Start
from flower_edge.control.dcent import Dcent
from flower_edge.control.simulate import first_look, observe
from flower_edge.coverage.mobility import RandomWalk
from flower_edge.errors import EdgeError
from flower_edge.topology.connectivity import connected
from flower_edge.topology.processing import NormalProcessing
from flower_edge.topology.radio_world import RadioWorld
from flower_edge.topology.set_ups import AREA_M
from flower_edge.topology.topology import Topology

from .topology_control_networkx import graph_of, networkx_round, tell, walked_round

__all__ = ["FULL_SIZES", "NETWORKX_NODES", "QUICK_SIZES", "Speed", "SpeedMismatch", "big_world", "measure_speed"]

QUICK_SIZES: Final = (1_000, 10_000)
FULL_SIZES: Final = (1_000, 10_000, 100_000)
#: Where networkx runs, too.
NETWORKX_NODES: Final = 10_000
NEIGHBOURS: Final = 16
_ROUNDS: Final = {1_000: 60, 10_000: 40, 100_000: 12}
_WARM: Final = 3
_NETWORKX_ROUNDS: Final = 3
_SEEN: Final = 4
#: What both sides compute: neighbours only, the last round's P. `Dcent()` itself, which is what people use, does more.
_TWIN: Final = Dcent(self_entry="fixed", smoothing=1.0)


class SpeedMismatch(EdgeError, ArithmeticError):
    """Two forms of the same round came to different numbers, so their times cannot be compared."""


@dataclass(frozen=True)
class Speed:
    """A round of control on a network.

    Attributes:
        nodes, links: its size.
        step_ms, connectivity_ms: medians of the two halves.
        round_ms, error_ms: median of both together and its standard error.
        cpu_ms: processor time in it; where it is less, other programs were on the same core.
        twin_ms, twin_error_ms: the same with what networkx computes, where it ran; else 0.
        networkx_ms, networkx_error_ms: a round over networkx.
        walked_ms: with its dictionaries walked directly.
        build_ms: what it took to make the graph.
    """

    nodes: int
    links: int
    step_ms: float
    connectivity_ms: float
    round_ms: float
    error_ms: float
    cpu_ms: float
    twin_ms: float = 0.0
    twin_error_ms: float = 0.0
    networkx_ms: float = 0.0
    networkx_error_ms: float = 0.0
    walked_ms: float = 0.0
    build_ms: float = 0.0


def big_world(nodes: int, seed: int = 0) -> RadioWorld:
    """As many nodes per area as 15 in 500 m x 500 m; the 16 nearest of each, in both directions, and a ring."""
    side_m = AREA_M[0] * (nodes / 15) ** 0.5
    mobility = RandomWalk(nodes, (side_m, side_m), 0.1, leg_s=1.0, seed=seed)
    neighbours = min(NEIGHBOURS, nodes - 1)
    places = mobility.positions_m(0.0)
    near = np.asarray(cKDTree(places).query(places, neighbours + 1)[1])[:, 1:].ravel()
    everyone = np.arange(nodes)
    ends = np.concatenate(
        [
            np.column_stack([np.repeat(everyone, neighbours), near]),
            np.column_stack([everyone, np.roll(everyone, 1)]),
        ]
    )
    ends = np.unique(np.concatenate([ends, ends[:, ::-1]]), axis=0)
    topology = Topology(nodes, ends[:, 0], ends[:, 1])
    return RadioWorld(mobility, processing=NormalProcessing(nodes, seed=seed), topology=topology)


def measure_speed(
    sizes: Sequence[int], say: Callable[[str], None], *, networkx_at: int = NETWORKX_NODES, rounds: int | None = None
) -> dict[str, Any]:
    """Figures of networks of these sizes, the smallest of which is only there for how time grows.

    Args:
        sizes: nodes, ascending.
        say: is told what was measured.
        networkx_at: the size at which networkx runs, too.
        rounds: measured rounds; by default fewer, the larger the network.
    """
    speeds = []
    for nodes in sizes:
        speeds.append(measure_network(nodes, with_networkx=nodes == networkx_at, rounds=rounds))
        say(f"    speed: {nodes} nodes, {speeds[-1].links} links, {speeds[-1].round_ms:.2f} ms")
    figures: dict[str, Any] = {}
    for speed in speeds[1:]:
        key = f"{speed.nodes // 1000}k"
        figures[f"control_ms_{key}"], figures[f"control_ms_{key}_se"] = speed.round_ms, speed.error_ms
        if speed.networkx_ms:
            ratio = speed.networkx_ms / speed.twin_ms
            apart = math.hypot(speed.networkx_error_ms / speed.networkx_ms, speed.twin_error_ms / speed.twin_ms)
            figures[f"networkx_ratio_{key}"], figures[f"networkx_ratio_{key}_se"] = ratio, ratio * apart
    told: dict[str, Any] = {str(speed.nodes): asdict(speed) for speed in speeds}
    if len(speeds) > 1:
        before, last = speeds[-2:]
        told["growth"] = float(np.log(last.round_ms / before.round_ms) / np.log(last.links / before.links))
    return figures | {"speed": told}


def measure_network(nodes: int, *, with_networkx: bool = False, rounds: int | None = None) -> Speed:
    """A network's round, alone or beside networkx."""
    world = big_world(nodes)
    start = first_look(world)
    seen = [observe(world, t, start.payload_bits) for t in range(1, _SEEN + 1)]
    count = rounds or _ROUNDS.get(nodes, 20)
    begin_s = time.process_time()
    steps, looks = _rounds(Dcent(), start, seen, count)
    cpu_s = time.process_time() - begin_s
    round_ms, error_ms = _median_ms([a + b for a, b in zip(steps, looks, strict=True)])
    speed = Speed(
        nodes=nodes,
        links=world.topology.links,
        step_ms=_median_ms(steps)[0],
        connectivity_ms=_median_ms(looks)[0],
        round_ms=round_ms,
        error_ms=error_ms,
        cpu_ms=cpu_s / (count + _WARM) * 1e3,
    )
    if not with_networkx:
        return speed
    twin_ms, twin_error_ms = _median_ms([a + b for a, b in zip(*_rounds(_TWIN, start, seen, count), strict=True)])
    (networkx_ms, networkx_error_ms), build_ms = _networkx(start, seen, networkx_round)
    (walked_ms, _), _ = _networkx(start, seen, walked_round)
    return replace(
        speed,
        twin_ms=twin_ms,
        twin_error_ms=twin_error_ms,
        networkx_ms=networkx_ms,
        networkx_error_ms=networkx_error_ms,
        walked_ms=walked_ms,
        build_ms=build_ms,
    )


def _median_ms(seconds: Sequence[float]) -> tuple[float, float]:
    """In milliseconds; and its standard error, from the quartiles, which what else the machine did disturbs least."""
    low, middle, high = np.percentile(seconds, (25, 50, 75)) * 1e3
    # Of normal values: the quartiles lie 1.349 deviations apart, a median errs 1.2533 times as much as a mean.
    return float(middle), float(high - low) / 1.349 * 1.2533 / len(seconds) ** 0.5


def _rounds(controller: Dcent, start: Start, seen: list[Observation], count: int) -> tuple[list[float], list[float]]:
    """Seconds of each step, and of each look at connectivity; the first few are not counted."""
    control, state = controller.init(start)
    steps, looks = [], []
    for t in range(_WARM + count):
        begin_s = time.perf_counter()
        control, state = controller.step(state, seen[t % len(seen)])
        stepped_s = time.perf_counter()
        whole = connected(start.topology, control.in_use)
        looked_s = time.perf_counter()
        if not whole:
            raise SpeedMismatch(f"{start.topology.nodes} nodes: the links in use do not connect them")
        steps.append(stepped_s - begin_s)
        looks.append(looked_s - stepped_s)
    return steps[_WARM:], looks[_WARM:]


def _networkx(
    start: Start, seen: list[Observation], round_of: Callable[..., tuple[float, bool]]
) -> tuple[tuple[float, float], float]:
    """Milliseconds of a round and their error; of making the graph."""
    topology = start.topology
    control, state = _TWIN.init(start)
    ends = list(zip(topology.sender.tolist(), topology.receiver.tolist(), strict=True))
    begin_s = time.perf_counter()
    graph = graph_of(
        ends,
        control.weights.tolist(),
        control.bandwidth_hz.tolist(),
        control.self_weights.tolist(),
        start.budget_hz.tolist(),
    )
    build_s = time.perf_counter() - begin_s
    took = []
    for t in range(_NETWORKX_ROUNDS):
        now = seen[t % len(seen)]
        tell(graph, ends, now.processing_s.tolist(), now.spectral_efficiency.tolist(), now.payload_bits.tolist())
        begin_s = time.perf_counter()
        _, whole = round_of(graph, eta=_TWIN.eta, cap=_TWIN.step_cap)
        took.append(time.perf_counter() - begin_s)
        control, state = _TWIN.step(state, now)
        _same(control, graph, ends)
        if not whole:
            raise SpeedMismatch("networkx finds the links in use not to connect all nodes")
    return _median_ms(took), build_s * 1e3


def _same(control: Control, graph: Any, ends: list[tuple[int, int]]) -> None:
    weights = np.array([graph.edges[j, i]["weight"] for j, i in ends])
    bands_hz = np.array([graph.edges[j, i]["band"] for j, i in ends])
    if not (
        np.allclose(weights, control.weights, rtol=1e-9, atol=1e-12)
        and np.allclose(bands_hz, control.bandwidth_hz, rtol=1e-9, atol=1e-3)
    ):
        raise SpeedMismatch("networkx and the arrays come to different weights or bands after the same round")
