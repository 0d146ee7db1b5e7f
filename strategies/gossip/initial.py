"""Rows to begin with: weights and bands that the edge server hands out before anything was measured.

[1] ¶38 names three ways: equal rows, a static optimum for what is known, and rows that are re-drawn until the
constraints of its Table 1 hold. Nothing here looks at a controller, which may begin with others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from flower_edge.control.baselines import equal_control
from flower_edge.control.controller import Control, Observation, Start
from flower_edge.control.optimum import weighted_optimum
from flower_edge.errors import ConfigError, TopologyError
from flower_edge.runtime.generators import derive_seed
from flower_edge.topology.connectivity import connected
from flower_edge.topology.rows import spread, sum_rows

__all__ = ["INITIAL", "Initial", "initial_control"]

#: The ways by name.
INITIAL = ("equal", "static", "drawn")
#: One of them, or a function of one's own.
Initial = Literal["equal", "static", "drawn"] | Callable[[Start], Control]
#: How often rows are drawn before it is given up.
DRAWS = 200


def initial_control(how: Initial, start: Start, *, seed: int = 0) -> Start:
    """`start` with the rows to begin with, checked against Table 1.

    Args:
        how: `equal`; `static`, the least weighted cost for the S that was measured and the P expected (1 s each, where
            nothing is); `drawn`, each link with even odds, weights and bands at random, until the network is
            connected; or a function.
        start: what is known; its own control is what equal rows are.
        seed: of the draws.

    Raises:
        ConfigError: no such way.
        TopologyError: rows that violate Table 1, or no connected network in 200 draws.
    """
    if callable(how):
        control = how(start)
    elif how == "equal":
        control = equal_control(start.topology, start.budget_hz, ~(start.spectral_efficiency <= 0.0))
    elif how == "static":
        expected = np.ones(start.topology.nodes) if start.processing_s is None else start.processing_s
        seen = Observation(expected, start.spectral_efficiency, start.payload_bits)
        control = weighted_optimum(start.topology, start.budget_hz, seen)
    elif how == "drawn":
        return replace(start, control=_drawn(start, seed))
    else:
        raise ConfigError(f"initial = {how!r}: expected one of {', '.join(INITIAL)}, or a function of a Start")
    control.check(start.topology, start.budget_hz)
    if start.topology.nodes > 1 and not connected(start.topology, control.in_use):
        raise TopologyError(
            "the rows to begin with do not connect all workers: what one learns would never reach some others; "
            "let more links be used, or choose other workers"
        )
    return replace(start, control=control)


def _drawn(start: Start, seed: int) -> Control:
    topology = start.topology
    rng = np.random.default_rng(derive_seed(seed, "gossip rows"))
    able = ~(start.spectral_efficiency <= 0.0) & (spread(start.budget_hz, topology.indptr) > 0.0)
    for _ in range(DRAWS):
        used = able & (rng.random(topology.links) < 0.5)
        if topology.nodes > 1 and not connected(topology, used):
            continue
        weight = np.where(used, rng.exponential(size=topology.links), 0.0)
        own = rng.exponential(size=topology.nodes)
        total = sum_rows(weight, topology.indptr) + own
        band = np.where(used, rng.exponential(size=topology.links) + 1e-3, 0.0)
        share = sum_rows(band, topology.indptr)
        control = Control(
            weight / spread(total, topology.indptr),
            own / total,
            band * spread(start.budget_hz / np.where(share > 0.0, share, 1.0), topology.indptr),
        )
        control.check(topology, start.budget_hz)
        return control
    raise TopologyError(
        f"no connected network in {DRAWS} draws over {int(able.sum())} links between {topology.nodes} workers; "
        "let more links be used, or choose other workers"
    )
