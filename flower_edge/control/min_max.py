"""Exact min-max bandwidth: the split of each node's band that ends its wait for its neighbours soonest.

For a given set of links this is the least true time of each row. At the optimum all models arrive together, at T[i];
link j -> i then needs a[i, j] / (T[i] - P[j]) Hz, and T[i] is where the needs sum to the budget. Newton's method on the
reciprocal of that sum, which is concave, comes up to the root from below and never passes it; it ends at machine
precision, mostly after five to eight passes over the links. Weights play no role here, and no link is chosen or
dropped.

Letters as in `control.controller`; a[i, j] = D[j] / S[i, j], the band-seconds a model needs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..topology.rows import Floats, largest_in_rows, spread, sum_rows
from ..topology.topology import Topology
from .controller import Observation

__all__ = ["band_seconds", "min_max_bandwidth", "usable"]

_PASSES = 200
# A link without anything to carry has this, so that it still gets its trickle of band.
_LEAST_HZ_S, _LEAST_BITS = 1e-12, 1e-300


def band_seconds(topology: Topology, observation: Observation) -> Floats:
    """a = D / S of every link, Hz s, float64 [links]: C = a / B. Infinite where S = 0, NaN where S is not known.

    Never quite 0, so that no link in use is left without band.
    """
    bits = observation.payload_bits
    # Payloads are mostly of one size; and nothing over a link that carries nothing is as hopeless as anything.
    same = len(bits) > 0 and bool((bits == bits[0]).all())
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.maximum(bits, _LEAST_BITS)
        need = (bits[0] if same else bits[topology.sender]) / observation.spectral_efficiency
    return np.asarray(np.maximum(need, _LEAST_HZ_S, out=need))


def usable(topology: Topology, observation: Observation) -> npt.NDArray[np.bool_]:
    """Links that carry data and whose sender was heard, bool [links]."""
    efficiency = observation.spectral_efficiency
    with np.errstate(invalid="ignore"):
        return np.asarray((efficiency > 0.0) & np.isfinite(observation.ready_s(topology)))


def min_max_bandwidth(
    topology: Topology, in_use: npt.NDArray[np.bool_], budget_hz: Floats, observation: Observation
) -> tuple[Floats, Floats]:
    """The bandwidth with which each node has all its neighbours' models soonest, and when that is.

    Args:
        topology: the links.
        in_use: those that share a band, bool [links].
        budget_hz: band of each node, float64 [nodes].
        observation: P, S and D to plan with: measured ones, or forecasts.

    Returns:
        B, float64 [links]; a row with a usable link sums to its budget. A link that is not in use, that carries
        nothing (S = 0) or whose P or S is not known (NaN) gets none: take its weight away, too.
        T, float64 [nodes], seconds; 0 where there is nothing to wait for.

    Source: docs/controllers.md, "True time".
    """
    taken = in_use & usable(topology, observation) & (spread(budget_hz, topology.indptr) > 0.0)
    ready_s = np.where(taken, observation.ready_s(topology), -np.inf)
    last_s = largest_in_rows(ready_s, topology.indptr)
    busy = np.isfinite(last_s)
    last_s = np.where(busy, last_s, 0.0)
    # Seconds that the transfer would take over the whole budget; how much earlier than the last a sender is ready.
    with np.errstate(divide="ignore", invalid="ignore"):
        whole_s = np.where(taken, band_seconds(topology, observation) / spread(budget_hz, topology.indptr), 0.0)
    early_s = np.where(taken, spread(last_s, topology.indptr) - ready_s, 1.0)

    # T = last + u, with u counted from the last sender, so that nothing cancels where transfers are short.
    u = np.where(busy, largest_in_rows(np.where(taken, whole_s - early_s, -np.inf), topology.indptr), 1.0)
    for _ in range(_PASSES):
        until_s = spread(u, topology.indptr) + early_s
        share = whole_s / until_s
        need = sum_rows(share, topology.indptr)
        slope = sum_rows(share / until_s, topology.indptr)
        rise = np.where(busy & (need > 1.0), (need - 1.0) * need / np.where(slope > 0.0, slope, 1.0), 0.0)
        u = u + rise
        if (rise <= 4e-16 * u).all():
            break
    share = whole_s / (spread(u, topology.indptr) + early_s)
    total = sum_rows(share, topology.indptr)
    bandwidth_hz = share / spread(np.where(busy, total, 1.0), topology.indptr) * spread(budget_hz, topology.indptr)
    return bandwidth_hz, np.where(busy, last_s + u, 0.0)
