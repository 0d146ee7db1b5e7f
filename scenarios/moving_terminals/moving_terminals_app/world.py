"""The world the terminals live in: where they are, how busy they are, who would take part. Functions of time alone.

Simulation only. On real devices the coverage is told by the network (`ByTrace`, or a function of yours), and the
conditions are measured (`measure_conditions`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flower_edge.coverage import ByPosition, OutOfCoverage, RandomWaypoint, Regions, plot_attachment, plot_map
from flower_edge.runtime.clock.load_model import LoadModel
from flower_edge.runtime.generators import derive_seed
from moving_terminals_app.config import MovingTerminals


def located(config: MovingTerminals, terminals: int) -> OutOfCoverage:
    """Terminals on their ways between random places, edges with a radius, and tunnels."""
    area = config.area
    area_m = (area.width_m, area.height_m)
    people = RandomWaypoint(
        terminals,
        area_m,
        speed_mps=(area.slowest_mps, area.fastest_mps),
        pause_s=(0.0, area.longest_pause_s),
        seed=derive_seed(config.seed, "mobility"),
    )
    edges = Regions.grid(area.edges, area_m, radius_m=area.radius_m, margin_m=area.margin_m)
    on_map = ByPosition(people, edges)
    return OutOfCoverage(on_map, area.away_share, area.away_s, seed=derive_seed(config.seed, "away"))


def load_model(config: MovingTerminals, terminals: int) -> LoadModel:
    """Loads that change every ten seconds, and batteries that last a quarter of an hour."""
    return LoadModel(
        terminals,
        seed=config.seed,
        mean=config.devices.load,
        spread=0.1,
        noise=0.15,
        memory_s=60.0,
        tick_s=10.0,
        drain_s=900.0,
        charge_s=300.0,
    )


def willing(config: MovingTerminals, terminal: int) -> bool:
    """Whether the terminal's owner would take part."""
    return bool(np.random.default_rng(derive_seed(config.seed, "willing", terminal)).random() < config.select.willing)


def draw(config: MovingTerminals, terminals: int, end_s: float, folder: Path) -> None:
    """A map of cells and ways, and who was in which cell, from the beginning of the run to its end."""
    times_s = np.linspace(0.0, end_s, 1 + max(1, round(end_s)))
    title = f"{terminals} terminals and {config.area.edges} edges, 0 to {end_s:.0f} s"
    plot_map(located(config, terminals), times_s, folder / "map.png", title=title)
    plot_attachment(located(config, terminals), times_s, folder / "attachment.png")
