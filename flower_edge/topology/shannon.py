"""From places to spectral efficiencies: a radio after Shannon, and what every kind of radio promises.

[1] ¶49: "The communication model followed the Shannon Theorem". No interference, no fading within a round, no coding
loss but what a cap or a noise figure stands for. Where nodes are and what shadows them is handed in.

Letters:
    S[i, j]   spectral efficiency of the link j -> i, bit/s/Hz: log2(1 + SNR)   [links]
    SNR       power that arrives over noise, over the same band; a plain ratio
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..units import dbm_to_ws
from .path_loss import D2D_NLOS, PathLoss
from .rows import Floats, Indices
from .topology import Topology

__all__ = ["NOISE_DBM_PER_HZ", "Carried", "Radio", "Shadow", "ShannonRadio", "distances_m", "shannon"]

#: Thermal noise at room temperature.
NOISE_DBM_PER_HZ = -174.0

#: (receivers, senders) to the factor on the power that arrives, float64 [links].
Shadow = Callable[[Indices, Indices], Floats]


@dataclass(frozen=True, eq=False)
class Carried:
    """What links can carry in a round.

    Attributes:
        spectral_efficiency: S, bit/s/Hz of the receiver's budget, float64 [links]; 0 where nothing is carried.
        latency_s: what a link takes beside, float64 [links].
        carrier: which of the radio's `names` each link uses, int64 [links]; -1 where nothing is carried.
    """

    spectral_efficiency: Floats
    latency_s: Floats
    carrier: Indices


class Radio(Protocol):
    """How well links carry, given where nodes are. A value; pure."""

    @property
    def names(self) -> tuple[str, ...]:
        """The ways a link can be carried."""
        ...

    def over(self, topology: Topology, positions_m: Floats, budget_hz: Floats, shadow: Shadow | None) -> Carried:
        """What each link of a topology can carry.

        Args:
            topology: the links.
            positions_m: where nodes are now, [nodes, 2].
            budget_hz: band of each node, [nodes].
            shadow: what stands between nodes; None for nothing.
        """
        ...


@dataclass(frozen=True, eq=False)
class ShannonRadio:
    """One radio for all links: S = log2(1 + SNR).

    A node spreads its whole power evenly over its whole budget, and keeps that power density whatever the budget is
    split into; S does then not depend on the split, and bandwidth alone decides a link's rate.

    Args:
        path_loss: how power fades.
        tx_dbm: power of a sender over its whole budget; one for all, or one per node [nodes], with which a link and
            its counterpart differ.
        noise_figure_db: what a receiver adds to thermal noise; one for all, or one per node [nodes].
        noise_dbm_per_hz: thermal noise.
        cap: bit/s/Hz that the modulation does not exceed; 7.4 for 256-QAM with little coding.
        least: bit/s/Hz below which a link carries nothing.
        range_m: beyond this a link carries nothing.

    Raises:
        ConfigError: a number out of range.
    """

    path_loss: PathLoss = D2D_NLOS
    tx_dbm: npt.ArrayLike = 23.0
    noise_figure_db: npt.ArrayLike = 0.0
    noise_dbm_per_hz: float = NOISE_DBM_PER_HZ
    cap: float = math.inf
    least: float = 0.0
    range_m: float = math.inf

    def __post_init__(self) -> None:
        for name in ("tx_dbm", "noise_figure_db", "noise_dbm_per_hz"):
            if not np.isfinite(np.asarray(getattr(self, name), np.float64)).all():
                raise ConfigError(f"{name} = {getattr(self, name)}; give finite decibels")
        for name in ("cap", "range_m"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}; give a number above 0, or leave it out")
        if not 0 <= self.least <= self.cap:
            raise ConfigError(f"least = {self.least}; give 0 or more, and not above the cap")

    @property
    def names(self) -> tuple[str, ...]:
        """The one way a link is carried."""
        return ("radio",)

    def over(self, topology: Topology, positions_m: Floats, budget_hz: Floats, shadow: Shadow | None) -> Carried:
        """What each link of a topology can carry; latency is 0.

        Raises:
            ConfigError: as many powers or noise figures as there are no nodes.
        """
        receiver, sender, nodes = topology.receiver, topology.sender, topology.nodes
        sent_w_per_hz = dbm_to_ws(_per_node("tx_dbm", self.tx_dbm, nodes)) / budget_hz
        noise_dbm_per_hz = _per_node("noise_figure_db", self.noise_figure_db, nodes) + self.noise_dbm_per_hz
        distance_m = distances_m(positions_m, receiver, sender)
        snr = self.path_loss.gain_ratio(distance_m)
        snr *= sent_w_per_hz[sender]
        snr /= dbm_to_ws(noise_dbm_per_hz)[receiver]
        if shadow is not None:
            snr *= shadow(receiver, sender)
        efficiency = shannon(snr, self.cap)
        out = efficiency < self.least
        if math.isfinite(self.range_m):
            out |= distance_m > self.range_m
        efficiency[out] = 0.0
        return Carried(efficiency, np.zeros(topology.links), np.where(efficiency > 0, 0, -1))


def shannon(snr: npt.ArrayLike, cap: float = math.inf) -> Floats:
    """Spectral efficiency log2(1 + SNR), bit/s/Hz, not above a cap.

    >>> shannon([3.0, 1.0, 0.0, 255.0], cap=7.4)
    array([2. , 1. , 0. , 7.4])
    """
    # log1p keeps what a weak link has: log2(1 + 1e-17) would be 0.
    return np.asarray(np.minimum(np.log1p(np.asarray(snr, np.float64)) / math.log(2.0), cap))


def distances_m(positions_m: Floats, receiver: Indices, sender: Indices) -> Floats:
    """Length of each link in metres, float64 [links].

    >>> distances_m(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([0]), np.array([1]))
    array([5.])
    """
    x, y = np.ascontiguousarray(positions_m[:, 0]), np.ascontiguousarray(positions_m[:, 1])
    return np.asarray(np.sqrt(np.square(x[receiver] - x[sender]) + np.square(y[receiver] - y[sender])))


def _per_node(name: str, value: npt.ArrayLike, nodes: int) -> Floats:
    given = np.asarray(value, np.float64)
    if given.shape not in ((), (nodes,)):
        raise ConfigError(f"{name} has shape {given.shape}; give one number, or one for each of the {nodes} nodes")
    return np.broadcast_to(given, (nodes,))
