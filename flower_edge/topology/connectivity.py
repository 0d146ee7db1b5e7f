"""Connectivity: can what one node knows reach every other one over the links in use, at once or within tau rounds.

Answers about directed links; weights, bandwidth and radio play no part. Nothing is dense in nodes x nodes but
`reaches_all`, which follows every piece of news and is for small networks.

A network whose links change has to connect its nodes periodically ([1] (docs/sources.md), Table 1, 1, and eq. 3 with
¶45). Two readings of it run here: the union of the links of any tau rounds in a row is strongly connected (`union`,
the usual one), or what a node knows does reach every other one within any tau rounds in a row (`reach`, stricter: the
links have to come in an order that carries it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ..errors import TopologyError
from .rows import Indices, entries_of
from .topology import Topology

__all__ = [
    "UnionWindow",
    "components",
    "connected",
    "periodically_connected",
    "reaches_all",
    "require_connected",
    "safe_prunes",
]

Mask = npt.NDArray[np.bool_]


def components(topology: Topology, in_use: Mask | None = None) -> Indices:
    """Which strongly connected component each node belongs to, numbered from 0. int64 [nodes].

    Two nodes share one where each can reach the other over the links marked, bool [links]; all links by default.

    >>> path = Topology(3, receiver=[1, 0, 2], sender=[0, 1, 1])
    >>> labels = components(path)
    >>> labels[0] == labels[1], labels[1] == labels[2]
    (np.True_, np.False_)
    """
    return _components(topology, in_use)[1].astype(np.int64)


def connected(topology: Topology, in_use: Mask | None = None) -> bool:
    """Whether every node reaches every other one over the links marked, bool [links]; all links by default.

    >>> connected(Topology(2, receiver=[1], sender=[0]))
    False
    """
    if topology.nodes <= 1:
        return True
    return _components(topology, in_use)[0] == 1


def require_connected(topology: Topology, in_use: Mask | None = None) -> None:
    """Refuse links that leave the network in pieces.

    Raises:
        TopologyError: names two nodes of which one does not reach the other.
    """
    pieces, labels = _components(topology, in_use)
    if pieces > 1:
        other = int((labels != labels[0]).argmax())
        raise TopologyError(
            f"the links leave {pieces} pieces, nodes 0 and {other} among them do not reach each other; add links "
            "until connected(topology, in_use) is true"
        )


def _components(topology: Topology, in_use: Mask | None) -> tuple[int, npt.NDArray[np.int32]]:
    if topology.nodes == 0:
        return 0, np.zeros(0, np.int32)
    sender, indptr = topology.sender, topology.indptr
    if in_use is not None:
        _check(topology, in_use)
        if not in_use.all():
            used = np.flatnonzero(in_use)
            sender, indptr = sender[used], np.searchsorted(used, indptr)
    graph = sparse.csr_matrix((np.ones(len(sender)), sender, indptr), shape=(topology.nodes, topology.nodes))
    pieces, labels = connected_components(graph, directed=True, connection="strong")
    return int(pieces), labels


def _check(topology: Topology, in_use: Mask) -> None:
    if in_use.shape != (topology.links,) or in_use.dtype != np.bool_:
        raise TopologyError(f"links in use: {in_use.dtype} {in_use.shape}, expected bool [{topology.links}]")


# -- pruning -------------------------------------------------------------------------------------------------------


def safe_prunes(topology: Topology, in_use: Mask, candidates: npt.ArrayLike, also: Mask | None = None) -> Mask:
    """Which links of a list can go without cutting any node off: greedily, in the order given.

    A link j -> i is let go if j still reaches i over the links that then remain, so a network that is connected stays
    connected. What remains is what every later round has, whatever tau is: a check of the union of the last tau
    rounds alone would pass a fatal prune, because the union still remembers the link, and fail tau rounds later.

    Args:
        in_use: the links there are now, bool [links].
        candidates: indices of links, in the order in which they should go; one that is not in use is safe.
        also: links that are promised to be used at least once in any tau rounds (probed, scheduled), bool [links].

    Returns:
        bool [candidates], True for each that is let go.

    >>> ring = Topology.complete(3)
    >>> safe_prunes(ring, np.ones(6, bool), [0, 1]).tolist()  # node 0 must hear somebody
    [True, False]
    """
    _check(topology, in_use)
    asked = np.asarray(candidates, np.int64).ravel()
    if ((asked < 0) | (asked >= topology.links)).any():
        raise TopologyError(f"candidates are indices of links, 0 to {topology.links - 1}")
    kept = np.zeros(topology.links, bool)
    if also is not None:
        _check(topology, also)
        kept |= also
    alive = in_use | kept
    fewer = alive.copy()
    fewer[asked] = kept[asked]
    if connected(topology, fewer):
        return np.ones(len(asked), bool)
    search = _Search(topology, alive)
    out = np.ones(len(asked), bool)
    for position, link in enumerate(asked.tolist()):
        if not alive[link] or kept[link]:
            continue
        alive[link] = False
        if not search.reaches(int(topology.sender[link]), int(topology.receiver[link])):
            alive[link] = True
            out[position] = False
    return out


class _Search:
    """Finds paths over the links alive, from both ends at once: a refusal or a detour is mostly found nearby."""

    def __init__(self, topology: Topology, alive: Mask) -> None:
        self._alive = alive
        every = np.arange(topology.links)
        self._onward = (topology.out_indptr, topology.by_sender, topology.receiver)
        self._back = (topology.indptr, every, topology.sender)
        self._seen = np.zeros((2, topology.nodes), np.int64)
        self._searches = 0

    def reaches(self, start: int, goal: int) -> bool:
        self._searches += 1
        stamp, seen = self._searches, self._seen
        seen[0, start] = seen[1, goal] = stamp
        frontiers = [np.array([start]), np.array([goal])]
        while True:
            side = int(len(frontiers[1]) < len(frontiers[0]))
            found = self._step(frontiers[side], *(self._onward, self._back)[side])
            if (seen[1 - side, found] == stamp).any():
                return True
            found = np.unique(found[seen[side, found] != stamp])
            if not len(found):
                return False
            seen[side, found] = stamp
            frontiers[side] = found

    def _step(self, nodes: Indices, indptr: Indices, order: Indices, ends: Indices) -> Indices:
        links = order[entries_of(nodes, indptr)[0]]
        return np.asarray(ends[links[self._alive[links]]], np.int64)


# -- over rounds -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class UnionWindow:
    """The links used in the last tau rounds, and whether together they connect every node. A value.

    Holds for each link the last round in which it was used, so its size does not depend on tau.

    Attributes:
        topology: the links.
        tau: length of the window in rounds, the candidate for the next round included; 1 looks at that one only.
        round: how many rounds have been pushed.
        last_used: the last round in which each link was used, counted from 1; 0 for never. int64 [links].

    >>> there_and_back = Topology(2, receiver=[0, 1], sender=[1, 0])
    >>> window = UnionWindow.empty(there_and_back, tau=2).push(np.array([True, False]))
    >>> window.connected_with(np.array([False, True])), window.connected_with(np.array([True, False]))
    (True, False)
    """

    topology: Topology
    tau: int
    round: int
    last_used: Indices

    def __post_init__(self) -> None:
        if self.tau < 1:
            raise TopologyError(f"tau = {self.tau}: expected 1 round or more")

    @classmethod
    def empty(cls, topology: Topology, tau: int) -> UnionWindow:
        """Before the first round."""
        return cls(topology, tau, 0, np.zeros(topology.links, np.int64))

    def push(self, in_use: Mask) -> UnionWindow:
        """With one more round, in which the links marked were used, bool [links]."""
        _check(self.topology, in_use)
        return UnionWindow(self.topology, self.tau, self.round + 1, np.where(in_use, self.round + 1, self.last_used))

    def without(self, links: Indices) -> UnionWindow:
        """As if some links had never been used: what carries nothing any more connects nobody. int64 [some]."""
        if not len(links):
            return self
        last_used = self.last_used.copy()
        last_used[links] = 0
        return UnionWindow(self.topology, self.tau, self.round, last_used)

    def union(self) -> Mask:
        """Links used in the last tau rounds, bool [links]."""
        return self.last_used > max(self.round - self.tau, 0)

    def union_with(self, in_use: Mask) -> Mask:
        """Links used in the last tau - 1 rounds or marked for the next one, bool [links]."""
        _check(self.topology, in_use)
        return in_use | (self.last_used > max(self.round + 1 - self.tau, 0))

    def connected_with(self, in_use: Mask) -> bool:
        """Whether the union stays strongly connected if the next round uses the links marked, bool [links]."""
        return connected(self.topology, in_use) or (self.tau > 1 and connected(self.topology, self.union_with(in_use)))

    def state(self) -> dict[str, Any]:
        """Plain values and arrays, for a checkpoint."""
        return {"tau": self.tau, "round": self.round, "last_used": self.last_used}

    @classmethod
    def from_state(cls, topology: Topology, state: dict[str, Any]) -> UnionWindow:
        """What `state` gave, over the same topology."""
        return cls(topology, int(state["tau"]), int(state["round"]), np.asarray(state["last_used"], np.int64))


def periodically_connected(
    topology: Topology, rounds: Sequence[Mask], tau: int, reading: Literal["union", "reach"] = "union"
) -> bool:
    """Whether the nodes are connected over any tau rounds in a row: [1], Table 1, 1.

    Args:
        rounds: links used in each round, bool [links] each; at least tau of them.
        reading: `union`, the links of tau rounds together are strongly connected; `reach`, news of every node gets to
            every other one within them.

    Raises:
        TopologyError: fewer rounds than tau.
    """
    if not 1 <= tau <= len(rounds):
        raise TopologyError(f"tau = {tau} over {len(rounds)} rounds: expected 1 to {len(rounds)}")
    if reading == "reach":
        return all(reaches_all(topology, rounds[k : k + tau]) for k in range(len(rounds) - tau + 1))
    window = UnionWindow.empty(topology, tau)
    for number, in_use in enumerate(rounds, 1):
        if number >= tau and not window.connected_with(in_use):
            return False
        window = window.push(in_use)
    return True


def reaches_all(topology: Topology, rounds: Sequence[Mask]) -> bool:
    """Whether what every node knows gets to every other one in these rounds, a step per round; in their order.

    Dense in nodes x nodes: for networks up to a few thousand nodes.

    >>> chain = Topology(3, receiver=[1, 2, 0], sender=[0, 1, 2])
    >>> reaches_all(chain, [np.ones(3, bool)]), reaches_all(chain, [np.ones(3, bool)] * 2)
    (False, True)
    """
    knows = np.eye(topology.nodes, dtype=np.float32)
    for in_use in rounds:
        _check(topology, in_use)
        heard = topology.matrix(in_use.astype(np.float64)).astype(np.float32) @ knows
        knows = ((heard + knows) > 0).astype(np.float32)
    return bool((knows > 0).all())
