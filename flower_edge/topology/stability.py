"""Which nodes keep their links: a measure by which workers are chosen.

[1] ¶35: the server may choose "those devices which the collected data indicated were likely to maintain network
connections to the edge server". Where workers talk to one another, it is the links between them that have to last. What
is counted here is what was seen in some rounds; whether it goes on like that, nobody can promise.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from .rows import Floats
from .topology import Topology
from .world import World

__all__ = ["link_stability", "stability_seen"]


def link_stability(world: World, rounds: int, *, least: float = 0.0, since: int = 1) -> Floats:
    """Share of its links, over some rounds, that carried at least so much; float64 [nodes], 0 to 1.

    Links a node hears by and links it is heard by count alike; a node without any link has 0.

    Args:
        world: what is looked at.
        rounds: how many rounds, from `since` on.
        least: bit/s/Hz; a link that carries nothing never counts.
        since: the first round.

    Raises:
        ConfigError: no round to look at.
    """
    if rounds < 1 or since < 1:
        raise ConfigError(f"rounds = {rounds}, since = {since}; give 1 or more")
    seen = (world.spectral_efficiency(round) for round in range(since, since + rounds))
    return stability_seen(world.topology, seen, least=least)


def stability_seen(topology: Topology, seen: Iterable[npt.ArrayLike], *, least: float = 0.0) -> Floats:
    """As `link_stability`, of spectral efficiencies that were measured.

    Args:
        topology: the links.
        seen: S of each round, [links] each; NaN where nothing was measured, which counts as nothing carried.
        least: bit/s/Hz; a link that carries nothing never counts.

    Raises:
        ConfigError: nothing was seen, or not one value per link.

    >>> path = Topology(3, receiver=[1, 2], sender=[0, 1])
    >>> stability_seen(path, [[5.0, 0.1], [5.0, 0.0]], least=1.0)
    array([1. , 0.5, 0. ])
    """
    times, rounds = np.zeros(topology.links), 0
    for measured in seen:
        efficiency = np.asarray(measured, np.float64)
        if efficiency.shape != times.shape:
            raise ConfigError(
                f"spectral efficiencies of shape {efficiency.shape}; expected one for each of {topology.links} links"
            )
        times += (efficiency > 0) & (efficiency >= least)
        rounds += 1
    if not rounds:
        raise ConfigError("no round was seen; give the spectral efficiencies of at least one")
    held = np.bincount(topology.receiver, times, topology.nodes) + np.bincount(topology.sender, times, topology.nodes)
    links = topology.in_degree + topology.out_degree
    return np.asarray(held / np.maximum(rounds * links, 1))
