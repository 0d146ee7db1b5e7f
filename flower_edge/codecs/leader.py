"""`LaggedLeader`: the support that one node used in the round before, made public for all nodes of the next.

    round t      node l, whose turn it is, sends its own largest places; the others do not wait for it
    round t + 1  everybody sends values at those places, and no index

So no message depends on another one of its own round, and a leader that drops out costs little: its places came with a
message that has arrived, and where no leader arrives, the crowd leads: the places where all nodes together sent most,
shared ones and innovations. Whose turn it is follows from the numbers of round and node alone. Nothing here encodes.

Source: the cyclic leader of ScaleCom (Chen et al., NeurIPS 2020) and of LGC (docs/codecs_shared.md), there within one
round; here one round later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CodecError
from .layout import Floats, Layout
from .moment import Moment
from .sparse import Sparse, Update
from .teacher import Told

__all__ = ["LaggedLeader", "leader_places", "leads", "share_of", "used_places"]

State = dict[str, Any]
Places = npt.NDArray[np.int64]


def leads(node: int, round: int, turn: int) -> bool:
    """Whether it is this node's turn to send its own support: each node's turn comes every `turn` rounds; never for 0.

    >>> [leads(node, round=0, turn=4) for node in range(6)]
    [True, False, False, False, True, False]
    >>> [round for round in range(9) if leads(1, round, turn=4)]
    [3, 7]
    """
    return turn > 0 and (node + round) % turn == 0


def share_of(fraction: float, size: int) -> int:
    """How many places a fraction of a vector is: at least one, where there is one.

    >>> share_of(0.01, 250), share_of(0.01, 3), share_of(0.01, 0)
    (2, 1, 0)
    """
    return min(size, max(1, round(fraction * size)))


def used_places(update: Update, most: int) -> Places:
    """Places at which an update is not zero, sorted; of more than `most` the largest, of equal ones the lower places.

    >>> used_places(np.array([0, 2, 0, -3, 2], np.float32), most=2)
    array([1, 3])
    """
    if isinstance(update, Sparse):
        indices, values = update.indices, update.values
    else:
        indices, values = np.flatnonzero(update), update[np.flatnonzero(update)]
    kept: Places = indices[values != 0].astype(np.int64, copy=False)
    if kept.size > most:
        size = np.abs(values[values != 0])
        kept = np.sort(kept[np.argsort(-size, kind="stable")[:most]])
    return kept


def leader_places(at: Moment, layout: Layout) -> Places | None:
    """The places that the leader published, checked; `None` where there is no leader.

    Raises:
        CodecError: they are not strictly increasing places of this vector.
    """
    places = at.public.leader
    if places is None or places.size == 0:
        return None
    if places.ndim != 1 or places.dtype != np.int64:
        raise CodecError(f"leader's places are {places.dtype} of {places.ndim} axes, expected int64 of one axis")
    if places[0] < 0 or places[-1] >= layout.size or not (places[1:] > places[:-1]).all():
        raise CodecError(
            f"leader's places do not increase from 0 on below {layout.size}; "
            "build the model with the same name and options on both sides"
        )
    return places


@dataclass(frozen=True)
class LaggedLeader:
    """Teacher of `SharedSupport`: publishes the places of the node whose turn it was, one round later.

    Attributes:
        fraction: of the vector, how many places are published at most, the largest of the leader's.
        turn: rounds between two turns of one node; 0: nobody's, the crowd leads. Take the number of nodes that take
            part in a round, so that about one of them leads; 0 where few of many nodes take part.

    >>> teacher = LaggedLeader(fraction=0.5, turn=2)
    >>> state = teacher.init(Layout.flat(4))
    >>> teacher.tell(state, 0)[0].leader is None
    True
    >>> sent = {0: np.array([0, 0, 0, 1], np.float32), 1: np.array([1, 0, 0, 0], np.float32)}
    >>> teacher.tell(teacher.learn(state, 0, sent), 1)[0].leader  # it was node 0's turn
    array([3])
    """

    fraction: float = 0.05
    turn: int = 8

    def init(self, layout: Layout) -> State:
        """No leader yet."""
        return {"size": layout.size, "places": np.zeros(0, np.int64), "node": -1, "missed": 0}

    def learn(self, state: State, round: int, updates: Mapping[int, Update]) -> State:
        """The places of the node whose turn it was; where there are several, another one of them each time.

        Where none of them arrived, or the one that did sent nothing but zeros, the crowd's. Nobody at all
        changes nothing.
        """
        most = share_of(self.fraction, state["size"])
        arrived = [node for node in sorted(updates) if leads(node, round, self.turn)]
        if arrived:
            node = arrived[round // self.turn % len(arrived)]
            places = used_places(updates[node], most)
            if places.size:
                return {**state, "places": places, "node": node}
        missed = {"node": -1, "missed": state["missed"] + int(self.turn > 0)}
        places = used_places(_crowd(updates, state["size"]), most) if updates else state["places"][:0]
        return {**state, **missed, "places": places if places.size else state["places"]}

    def tell(self, state: State, round: int) -> tuple[Told, State]:
        """The places, for that round."""
        places = state["places"]
        return Told(leader=places if places.size else None), state

    def metrics(self, state: State) -> Mapping[str, float]:
        """`leader_places`; `leader_node`, -1: the crowd, or none yet; `leader_missed`: rounds without a leader."""
        return {
            "leader_places": float(state["places"].size),
            "leader_node": float(state["node"]),
            "leader_missed": float(state["missed"]),
        }


def _crowd(updates: Mapping[int, Update], size: int) -> Floats:
    """Where all nodes together sent most: magnitude of the mean, and the largest that any of them sent."""
    mean, largest = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for _, update in sorted(updates.items()):
        if isinstance(update, Sparse):
            mean[update.indices] += update.values / np.float32(len(updates))
            largest[update.indices] = np.maximum(largest[update.indices], np.abs(update.values))
        else:
            mean += update / np.float32(len(updates))
            np.maximum(largest, np.abs(update), out=largest)
    return np.abs(mean) + largest
