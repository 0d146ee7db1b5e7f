"""`World`: what a network does, seen from a controller: how fast nodes compute and links carry in each round.

A promise only. `RadioWorld` models it from places, path loss and devices; a recorded trace or a test may answer it,
too. Pure in the round: the same round gives the same arrays, whatever was asked before. Rounds count from 1.
"""

from __future__ import annotations

from typing import Protocol

from .rows import Floats
from .topology import Topology

__all__ = ["World"]


class World(Protocol):
    """The radio and the clocks of a network.

    Letters, as in [1] (docs/sources.md):
        P[j]      seconds from the start of a round until node j's model is ready   [nodes]
        S[i, j]   spectral efficiency of the link j -> i, bit/s/Hz                  [links]
        budget    the band that node i may share out among its links, Hz            [nodes]
    """

    @property
    def topology(self) -> Topology:
        """Every link that can ever be used in this run; where nodes are when it begins."""
        ...

    @property
    def budget_hz(self) -> Floats:
        """Band of each node, float64 [nodes]."""
        ...

    def positions_m(self, round: int) -> Floats | None:
        """Where nodes are, float64 [nodes, 2]; None where it is not known."""
        ...

    def processing_s(self, round: int) -> Floats:
        """P, float64 [nodes]."""
        ...

    def spectral_efficiency(self, round: int) -> Floats:
        """S, float64 [links]; 0 for a link that carries nothing in this round."""
        ...

    def latency_s(self, round: int) -> Floats:
        """What a link takes beside P and the transfer itself, float64 [links]; mostly 0."""
        ...
