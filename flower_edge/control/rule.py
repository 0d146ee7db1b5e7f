"""From signals to a decision: the server's half of a round of DCENT, blocks 315 and 316 of [1], FIG. 3A.

Which step, which of the links that ask to go may go, and which have to be woken up, such that the network stays
connected. Knows the links in use and what the nodes signal; no weights, no bandwidth, no delays.

Letters as in `requirements`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import TopologyError
from ..topology.connectivity import UnionWindow, connected, safe_prunes
from ..topology.rows import Floats, Indices
from ..topology.topology import Topology
from .decision import Decision, Signals
from .moves import Per
from .pruning import LEAST_WEIGHT, Requests
from .step_size import largest_valid_step, one_step, row_steps

__all__ = ["Connect", "Failing", "Rule", "check_signals"]

#: Links in use connect all nodes in each round; or only those of `tau` rounds together do, for which links that were
#: dropped are woken up for a round.
Connect = Literal["each round", "within tau"]
#: What is done about a step on which links vanish that the network needs: the links stay; or a shorter step is sought.
Failing = Literal["refuse", "line search"]


@dataclass(frozen=True)
class Rule:
    """How signals become a decision: blocks 315 and 316 of [1], FIG. 3A. Knows no weights.

    Attributes:
        per: one step for all, or one per row; with "link" the nodes choose their own.
        cap, eta: see `step_size`.
        limit: weight at which a link goes.
        connect, tau: what has to stay connected.
        failing: what is done where it would not.
        non_increasing: a step for all is never longer than the one before.
    """

    per: Per
    cap: float
    eta: float
    limit: float
    connect: Connect
    tau: int
    failing: Failing
    non_increasing: bool

    def choose(
        self,
        topology: Topology,
        in_use: npt.NDArray[np.bool_],
        window: UnionWindow | None,
        signals: Signals,
        last_alpha: float,
        candidate: float | None = None,
        valid_without: Callable[[Indices], bool] | None = None,
    ) -> Decision:
        """The step, and which of the requests are granted.

        Args:
            in_use: links with weight now, bool [links].
            window: links of the rounds before; only for "within tau".
            last_alpha: the last step, for one that may not grow.
            candidate: a step to validate instead of the one reckoned from alpha_max.
            valid_without: a further condition on the links that are to go; asked with all that would be gone.
        """
        alpha = self._step(signals.alpha_max, last_alpha, candidate)
        requests = signals.requests
        lost = requests.link[requests.lost]
        alive = in_use
        if len(lost):
            alive = in_use.copy()
            alive[lost] = False
        dropped, refused = lost, np.zeros(0, np.int64)
        asking = np.flatnonzero(~requests.lost)
        if len(asking):
            mine = self._weight_after(topology, requests, alpha)
            limit = max(self.limit, LEAST_WEIGHT)
            if self.failing == "line search" and isinstance(alpha, float):
                moving = asking[(requests.slope[asking] < 0.0) & (requests.weight[asking] > limit)]
                asking = np.setdiff1d(asking, moving)
            else:
                moving = np.zeros(0, np.int64)
            wants = asking[(mine[asking] <= limit) | requests.always[asking]]
            wants = wants[np.lexsort((requests.link[wants], mine[wants]))]
            granted = self._granted(topology, alive, window, requests.link[wants], lost, valid_without)
            dropped = np.concatenate([lost, requests.link[wants[granted]]])
            refused = requests.link[wants[~granted]]
            if len(moving) and isinstance(alpha, float):
                alpha, vanished = self._searched(
                    topology, alive, requests, moving, dropped, alpha, limit, valid_without
                )
                dropped = np.concatenate([dropped, vanished])
        probes = np.union1d(signals.probes, self._woken(topology, in_use, window, dropped, signals.probes))
        return Decision(alpha, self.per, np.sort(dropped), np.sort(refused), probes)

    def _step(self, alpha_max: Floats, last_alpha: float, candidate: float | None) -> float | Floats | None:
        if self.per == "link":
            return None
        if self.per == "row":
            return row_steps(alpha_max, self.eta, self.cap)
        if candidate is not None:
            # Eq. 4 does not depend on the network: the longest step it allows is known.
            return float(min(1.0, candidate, alpha_max.min(initial=np.inf)))
        alpha = one_step(alpha_max, self.eta, self.cap)
        return min(alpha, last_alpha) if self.non_increasing else alpha

    @staticmethod
    def _weight_after(topology: Topology, requests: Requests, alpha: float | Floats | None) -> Floats:
        if alpha is None:
            return requests.weight
        step = alpha if isinstance(alpha, float) else alpha[topology.receiver[requests.link]]
        return requests.weight + requests.slope * step

    def _granted(
        self,
        topology: Topology,
        alive: npt.NDArray[np.bool_],
        window: UnionWindow | None,
        links: Indices,
        lost: Indices,
        valid_without: Callable[[Indices], bool] | None,
    ) -> npt.NDArray[np.bool_]:
        if not len(links):
            return np.zeros(0, bool)
        # Within tau rounds a link may sleep: it is woken when its turn has come, so all of them may go now.
        sleeps = window is not None and self.tau > 1
        granted = np.ones(len(links), bool) if sleeps else safe_prunes(topology, alive, links)
        if valid_without is None:
            return granted
        gone = lost
        for position in np.flatnonzero(granted).tolist():
            more = np.append(gone, links[position])
            granted[position] = valid_without(more)
            gone = more if granted[position] else gone
        return granted

    @staticmethod
    def _searched(
        topology: Topology,
        alive: npt.NDArray[np.bool_],
        requests: Requests,
        moving: Indices,
        dropped: Indices,
        alpha: float,
        limit: float,
        valid_without: Callable[[Indices], bool] | None,
    ) -> tuple[float, Indices]:
        """A shorter step, if links vanish on this one that are needed."""
        links = requests.link[moving]

        def valid(gone: npt.NDArray[np.int64]) -> bool:
            left = alive.copy()
            left[dropped] = False
            left[links[gone]] = False
            all_gone = np.concatenate([dropped, links[gone]])
            return connected(topology, left) and (valid_without is None or valid_without(all_gone))

        vanish_at = (limit - requests.weight[moving]) / requests.slope[moving]
        alpha, gone = largest_valid_step(alpha, vanish_at, valid)
        return alpha, links[gone]

    def _woken(
        self,
        topology: Topology,
        in_use: npt.NDArray[np.bool_],
        window: UnionWindow | None,
        dropped: Indices,
        probes: Indices,
    ) -> Indices:
        """Links to use again in the coming round, because without them the last tau rounds would not connect."""
        nothing = np.zeros(0, np.int64)
        if window is None or self.tau <= 1:
            return nothing
        coming = in_use.copy()
        coming[dropped] = False
        coming[probes] = True
        if window.connected_with(coming):
            return nothing
        oldest = window.round + 1 - self.tau
        expiring = np.flatnonzero((window.last_used == oldest) & ~coming) if oldest > 0 else nothing
        if not len(expiring):
            return nothing
        union = window.union_with(coming)
        union[expiring] = True
        return expiring[~safe_prunes(topology, union, expiring)]


def check_signals(topology: Topology, signals: Signals) -> None:
    """Refuse signals that do not belong to a topology.

    Raises:
        TopologyError: another number of nodes, or links that are none.
    """
    if signals.alpha_max.shape != (topology.nodes,):
        raise TopologyError(f"alpha_max of {len(signals.alpha_max)} nodes; the topology has {topology.nodes}")
    for links in (signals.requests.link, signals.probes):
        if len(links) and (links.min() < 0 or links.max() >= topology.links):
            raise TopologyError(f"a link outside 0 to {topology.links - 1}; gather() numbers links of single rows")
