"""Bridges: the few links that join a network back together which a plan would leave in parts.

Nothing here weighs or times a link beyond the cost it is handed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..topology.connectivity import components
from ..topology.rows import Floats
from ..topology.topology import Topology

__all__ = ["bridges"]

Mask = npt.NDArray[np.bool_]


def bridges(topology: Topology, in_use: Mask, allowed: Mask, cost: Floats) -> Mask:
    """Links to add to those in use so that every node hears of every other, directly or through others.

    Every part of the network that hears nobody outside gets its cheapest link from outside, every part that nobody
    outside hears its cheapest link to the outside, until one part is left or no allowed link joins two of them. Few
    links and cheap ones, not provably the fewest.

    Args:
        in_use: bool [links].
        allowed: links that may be added, bool [links].
        cost: of each link, float64 [links].

    Returns:
        bool [links]; all False where the network is in one part already, or cannot be.

    >>> path = Topology(3, receiver=[1, 0, 2, 1], sender=[0, 1, 1, 2])
    >>> used = np.array([True, True, False, False])  # 0 and 1 hear each other, 2 is alone
    >>> extra = bridges(path, used, np.ones(4, bool), np.ones(4))
    >>> [(int(i), int(j)) for i, j in zip(path.receiver[extra], path.sender[extra])]
    [(1, 2), (2, 1)]
    """
    added = np.zeros(topology.links, np.bool_)
    while True:
        used = in_use | added
        part = components(topology, used)
        parts = int(part.max(initial=0)) + 1
        if parts == 1:
            return added
        into, out_of = part[topology.receiver], part[topology.sender]
        between = into != out_of
        deaf = np.bincount(into[used & between], minlength=parts) == 0
        unheard = np.bincount(out_of[used & between], minlength=parts) == 0
        joins = allowed & ~used & between
        before = int(added.sum())
        for needy, end in ((deaf, into), (unheard, out_of)):
            candidates = np.flatnonzero(joins & needy[end])
            candidates = candidates[np.lexsort((cost[candidates], end[candidates]))]
            _, first = np.unique(end[candidates], return_index=True)
            added[candidates[first]] = True
        if int(added.sum()) == before:
            return added
