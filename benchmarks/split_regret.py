"""How far planned cuts are from the best there are: the slowest device's step as planned, over every choice tried.

200 worlds, each drawn anew: two to four devices of 0.05 to 20 GFLOP/s behind links of 1 to 500 Mbit/s with delays up to
20 ms; in half of the worlds all links meet in one that is too narrow for all; in a third a device has too little
memory for the whole model; a cloud of 2 to 200 GFLOP/s; one codec, or two to choose from. Nothing here trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from flower_edge.splitting.capacity import Capacity, Cloud
from flower_edge.splitting.codec_pairs import codecs_named
from flower_edge.splitting.costs import CutCodecs, costs_of, memory_bytes
from flower_edge.splitting.dynamic import Dynamic
from flower_edge.splitting.exhaustive import least_by_trying
from flower_edge.splitting.plan import DeviceView
from flower_edge.splitting.profile import ModelProfile

from .split_planning import INT8, JOB
from .split_task import profile

__all__ = ["WORLDS", "World", "draw_world", "regret_figures", "run_regret"]

WORLDS: Final = 200
INT4: Final = codecs_named("int4")


@dataclass(frozen=True)
class World:
    """One draw."""

    devices: tuple[DeviceView, ...]
    cloud: Cloud
    codecs: tuple[CutCodecs, ...]


def draw_world(seed: int, model: ModelProfile) -> World:
    """The world of a number."""
    draw = np.random.default_rng([seed, 200])
    count = int(draw.integers(2, 5))
    links = 10.0 ** draw.uniform(6.0, np.log10(5e8), count)
    shared = bool(draw.random() < 0.5)
    cloud = Cloud(
        flops_per_s=float(10.0 ** draw.uniform(np.log10(2e9), np.log10(2e11))),
        links={"radio": float(links.sum() * draw.uniform(0.2, 0.9))} if shared else {},
    )
    room: list[int | None] = [None] * count
    if draw.random() < 1 / 3:
        whole, least = memory_bytes(model, model.last, JOB), memory_bytes(model, 1, JOB)
        room[int(draw.integers(count))] = int(draw.uniform(least, whole))
    ways = ("radio",) if shared else ()
    devices = tuple(
        DeviceView(
            Capacity(
                float(10.0 ** draw.uniform(np.log10(5e7), np.log10(2e10))),
                float(rate_bps),
                float(rate_bps * draw.uniform(0.5, 2.0)),
                float(draw.uniform(0.0, 0.02)),
                room[number],
            ),
            up_links=ways,
            down_links=ways,
        )
        for number, rate_bps in enumerate(links)
    )
    # Every further codec multiplies what has to be tried.
    codecs = (INT8, INT4) if count < 4 and draw.random() < 0.5 else (INT8,)
    return World(devices, cloud, codecs)


def run_regret(seeds: Sequence[int]) -> list[float]:
    """Planned over tried, of some worlds."""
    model = profile()
    found = []
    for seed in seeds:
        world = draw_world(seed, model)
        devices = dict(enumerate(world.devices))
        # Plain federated training is one of the choices, whether or not a round of it is quicker.
        plan = Dynamic(world.cloud, JOB, codecs=world.codecs, fallback=False).plan(model, devices, 1)
        _, best_s = least_by_trying(costs_of(model, devices, world.cloud, JOB, world.codecs), most=20_000_000)
        found.append(plan.step_s / best_s)
    return found


def regret_figures(ratios: Sequence[float]) -> dict[str, Any]:
    """The greatest, and the mean."""
    return {
        "cut_regret": float(np.max(ratios)),
        "cut_regret_mean": float(np.mean(ratios)),
        "cut_regret_worlds": len(ratios),
    }
