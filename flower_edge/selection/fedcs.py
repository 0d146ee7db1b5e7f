"""FedCS: pack as many uploads as fit before a deadline, over the uplink that the nodes of an edge share.

Reckons with seconds that others have measured or told. Nothing here sends.

Letters, as in the paper's Algorithm 3:
    t_UD   seconds a node computes                       `compute_s`
    t_UL   seconds its upload takes                      `up_s`, but at least `up_bits` / `uplink_bps`
    Θ      seconds until the uploads packed so far are in

All compute at the same time and upload one after the other, so adding node k costs t_UL + max(0, t_UD − Θ): its upload,
and the time for which the uplink has nothing to carry before it.

Source: Nishio, Yonetani, "Client selection for federated learning with heterogeneous resources in mobile edge", ICC
2019. The time to hand out the model is left out: it does not depend on who is chosen where the downlink is broadcast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .candidates import Candidates, Positions
from .drawing import known_or_mean

__all__ = ["FedCS", "pack"]


def pack(
    compute_s: NDArray[np.float64],
    up_s: NDArray[np.float64],
    count: int,
    deadline_s: float = math.inf,
    *,
    shared: bool = True,
) -> tuple[Positions, float]:
    """Greedily the nodes that add the least time, until there are `count` or the next would miss the deadline.

    Args:
        compute_s, up_s: float64 [nodes], no NaN.
        count: at most so many.
        deadline_s: by when the last upload must be in.
        shared: uploads go one after the other; otherwise each has a way of its own, and a node adds only what it
            needs longer than the slowest so far.

    Returns:
        Positions in the order of packing (equal ones in that of the arrays), and when the last upload is in.

    >>> pack(np.array([5.0, 1.0, 2.0]), np.array([1.0, 2.0, 1.0]), count=3, deadline_s=4.5)
    (array([1, 2]), 4.0)
    """
    if not shared:
        total_s = compute_s + up_s
        order = np.argsort(total_s, kind="stable")[: max(0, count)]
        order = order[total_s[order] <= deadline_s]
        return order, float(total_s[order[-1]]) if len(order) else 0.0
    picked: list[int] = []
    done_s = 0.0
    open_up_s = up_s.astype(np.float64)
    while len(picked) < min(count, len(up_s)):
        adds_s = open_up_s + np.maximum(compute_s - done_s, 0.0)
        best = int(adds_s.argmin())
        # Who adds the least is over the deadline: so is everybody else.
        if done_s + adds_s[best] > deadline_s:
            break
        done_s += float(adds_s[best])
        open_up_s[best] = np.inf
        picked.append(best)
    return np.array(picked, np.int64), done_s


@dataclass(frozen=True)
class FedCS:
    """Who can be packed before the deadline, among some candidates drawn by lot.

    Args:
        deadline_s: seconds from the start of computing to the last upload; infinite packs the `count` fastest.
        pool: how many candidates are drawn by lot to be packed from: an int is a number of nodes, a float a multiple
            of `count`. The paper asks a random part of the clients too; with a pool of all nodes the fastest would be
            chosen again and again, and what the others know would never be learned.
        shared_uplink: whether the nodes' uploads share the edge's uplink, one after the other.
        uplink_bps: what that uplink carries, bits per second: an upload goes at this rate or at the node's own,
            whichever is lower. `None`: the uplink is never the slower one. Each edge's pipeline may have its own.

    Of nodes that take equally long, the one asked longest ago goes first. Where it is not known how long a node takes,
    the mean of the others is taken. Fewer than `count` are chosen where no more fit, but one at least. Without a
    deadline those not packed are the reserve, with one there is none.

    Raises:
        ConfigError: a deadline or a rate that is not above 0, a pool below 1, or a rate though nothing is shared.

    Two of three uploads of 4 Mbit fit into 8 s on an uplink of 2 Mbit/s: the first is in after 1 + 2 s, the second,
    which was computed meanwhile, 2 s later, and the third would take another 4 s at the 1 Mbit/s of its node.

    >>> table = Candidates(
    ...     np.array([5, 6, 7]),
    ...     {"compute_s": np.array([1.0, 1.0, 3.0]), "up_s": np.array([4.0, 0.5, 1.0]), "up_bits": np.full(3, 4e6)},
    ... )
    >>> order, _ = FedCS(8.0, uplink_bps=2e6).rank(table, 3, None, 1, np.random.default_rng(0))
    >>> table.nodes[order]
    array([6, 7])
    """

    deadline_s: float = math.inf
    pool: int | float = 2.0
    shared_uplink: bool = True
    uplink_bps: float | None = None

    def __post_init__(self) -> None:
        if not self.deadline_s > 0:
            raise ConfigError(f"FedCS(deadline_s={self.deadline_s}): expected more than 0 s")
        if not self.pool >= 1:
            raise ConfigError(
                f"FedCS(pool={self.pool}): expected a number of nodes, or a multiple of count such as 3.0"
            )
        if self.uplink_bps is not None and not self.uplink_bps > 0:
            raise ConfigError(f"FedCS(uplink_bps={self.uplink_bps}): expected more than 0 bit/s, or None")
        if self.uplink_bps is not None and not self.shared_uplink:
            raise ConfigError(
                f"FedCS(uplink_bps={self.uplink_bps}, shared_uplink=False): the rate is that of the uplink the nodes "
                "share; leave out one of the two"
            )

    @property
    def needs(self) -> frozenset[str]:
        """How long each node computes and uploads."""
        return frozenset({"compute_s", "up_s"})

    def init(self) -> None:
        """No state."""

    def rank(
        self, table: Candidates, count: int, state: None, round: int, rng: np.random.Generator
    ) -> tuple[Positions, None]:
        """The packed, in the order of packing; behind them, where there is no deadline, the others by total time."""
        lot = rng.permutation(len(table))
        pool = lot[: max(count, math.ceil(self.pool * count if isinstance(self.pool, float) else self.pool))]
        # Among nodes that take equally long, who was asked longest ago goes first.
        pool = pool[np.argsort(np.nan_to_num(table.column("last_asked")[pool], nan=0.0), kind="stable")]
        compute_s, up_s = known_or_mean(table.column("compute_s"), 0.0), known_or_mean(table.column("up_s"), 0.0)
        if self.uplink_bps is not None:
            # The slower of the two ways decides; where the size is not known yet, the node's own.
            up_s = np.fmax(up_s, table.column("up_bits") / self.uplink_bps)
        packed, _ = pack(compute_s[pool], up_s[pool], count, self.deadline_s, shared=self.shared_uplink)
        if self.deadline_s < math.inf:
            # Nobody can keep it: one late reply is worth more than none.
            return pool[packed] if len(packed) else pool[[(compute_s + up_s)[pool].argmin()]], None
        left = np.delete(pool, packed)
        left = left[np.argsort((compute_s + up_s)[left], kind="stable")]
        return np.concatenate([pool[packed], left, lot[len(pool) :]]), None
