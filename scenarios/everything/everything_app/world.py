"""The world the terminals live in: where they are, which edge reaches them, what links carry, how busy they are.

Simulation only; functions of time and a seed. The same ways decide which edge reaches a terminal and how good its links
to its neighbours are.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from everything_app.config import Everything
from flower_edge.coverage import ByPosition, OutOfCoverage, RandomWaypoint, Regions, plot_attachment, plot_map
from flower_edge.coverage.located import Located
from flower_edge.runtime import LoadModel, VirtualClock, draw_devices, draw_links
from flower_edge.runtime.generators import derive_seed
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.topology.radio_world import RadioWorld


@lru_cache(maxsize=1)
def people(config: Everything, terminals: int) -> RandomWaypoint:
    """Terminals on their ways between random places."""
    area = config.area
    return RandomWaypoint(
        terminals,
        (area.width_m, area.height_m),
        speed_mps=(area.slowest_mps, area.fastest_mps),
        pause_s=(0.0, 20.0),
        seed=derive_seed(config.seed, "mobility"),
    )


def located(config: Everything, terminals: int) -> Located:
    """Who is in which cell: the nearest edge that reaches; some are out of coverage for a while."""
    area = config.area
    edges = Regions.grid(area.edges, (area.width_m, area.height_m), radius_m=area.radius_m, margin_m=20.0)
    on_map = ByPosition(people(config, terminals), edges)
    if not area.away_share:
        return on_map
    return OutOfCoverage(on_map, area.away_share, area.away_s, seed=derive_seed(config.seed, "away"))


def radio(config: Everything, terminals: int) -> RadioWorld:
    """What links between terminals carry, by Shannon and the distance between them."""
    return RadioWorld(people(config, terminals))


def clock(config: Everything, grid: GridProxy, terminals: int) -> VirtualClock:
    """Uneven devices whose load slows them down, on links of 2 to 20 Mbit/s to their edge."""
    devices = draw_devices(terminals, config.seed, 0.5, median_step_s=0.5)
    links = draw_links(terminals, config.seed, 2e6, 20e6)
    return VirtualClock(grid, devices, links, seed=config.seed, slowdown=load(config, terminals).slowdown)


def load(config: Everything, terminals: int) -> LoadModel:
    """Loads that change every ten seconds, and batteries that last ten minutes."""
    return LoadModel(terminals, seed=config.seed, mean=0.3, spread=0.1, noise=0.15, drain_s=600.0, charge_s=300.0)


def draw(config: Everything, terminals: int, end_s: float, folder: Path) -> None:
    """A map of cells and ways, and who was in which cell."""
    times_s = np.linspace(0.0, end_s, 1 + max(1, round(end_s)))
    title = f"{terminals} terminals and {config.area.edges} edges, 0 to {end_s:.0f} s"
    plot_map(located(config, terminals), times_s, folder / "map.png", title=title)
    plot_attachment(located(config, terminals), times_s, folder / "attachment.png")
