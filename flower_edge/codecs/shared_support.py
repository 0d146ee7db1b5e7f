"""`SharedSupport`: all nodes send values at one set of places, so that nobody sends it.

    leader's places (public)     the node's own values there, no index              `values`
    outside                      its innovation: the few largest left, with indices  `own`
    its turn to lead             its own largest places instead, with indices: next round's leader
    no leader                    its own largest values: `fallback`

The places come from a lagged leader (leader.py), which `teacher()` provides. Meant inside error feedback:
`ErrorFeedback(SharedSupport())`. It gains most where nodes are many and alike, see docs/codecs_shared.md.

Source: CLT-k of ScaleCom (Chen et al., NeurIPS 2020); common part and innovation of LGC (docs/codecs_shared.md). Own
departures: the leader is one round old, and each node sends its own values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ..errors import CodecError
from .layout import Floats, Layout, refuse_non_finite
from .leader import LaggedLeader, Places, leader_places, leads
from .moment import Moment
from .nested import check_codec, check_number
from .once import packed, unpacked
from .sections import join, split
from .sign import Sign
from .sparse import Sparse, Update, dense
from .top_k import TopK
from .vector_codec import State, VectorCodec

__all__ = ["SharedSupport", "beside"]

#: First byte of a payload.
_ALONE, _SHARED, _LEADS = 0, 1, 2


@dataclass(frozen=True)
class SharedSupport(VectorCodec):
    """Values at the leader's places, and the node's own innovation outside them.

    Attributes:
        fraction: of the vector, how many places a leader publishes.
        innovation: of the vector, how many places each node adds; 0 for none, and then what the leader never sends is
            never sent.
        values: codes values at the leader's places.
        own: codes values at the node's own places.
        fallback: codes the whole where there is no leader.
        turn: rounds between two turns of one node to lead, see `LaggedLeader`.

    Raises:
        CodecError: a fraction beyond (0, 1], a turn below 1.
    """

    kind: ClassVar[str] = "shared_support"

    fraction: float = 0.05
    innovation: float = 0.002
    values: VectorCodec = field(default_factory=Sign)
    own: VectorCodec = field(default_factory=Sign)
    fallback: VectorCodec = field(default_factory=lambda: TopK(0.01))
    turn: int = 8

    def __post_init__(self) -> None:
        check_number(self.fraction, "fraction", 0.0, 1.0)
        check_number(self.innovation, "innovation", 0.0, 1.0)
        check_number(self.turn, "turn", 0, math.inf, whole=True)
        check_codec(self.values, "values")
        check_codec(self.own, "own")
        check_codec(self.fallback, "fallback")
        _ = self._lead(), self.innovation and self._innovation()  # their own checks, now rather than in round 5

    def contraction(self, size: int) -> float | None:
        """The least of the parts': places of leader and innovation never meet, so that errors add."""
        parts = [self.fallback.contraction(size), self._lead().contraction(size), self.values.contraction(size)]
        if self.innovation:
            parts.append(self._innovation().contraction(size))
        known = [part for part in parts if part is not None]
        return min(known) if len(known) == len(parts) and self.innovation else None

    def teacher(self) -> LaggedLeader:
        """The lagged leader."""
        return LaggedLeader(self.fraction, self.turn)

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """By turn and by what is public: a leader's support, values at the leader's places, or neither."""
        refuse_non_finite(v, layout)
        if leads(at.node, at.round, self.turn):
            return bytes([_LEADS]) + packed(self._lead(), v, layout, at), state
        places = leader_places(at, layout)
        if places is None:
            return bytes([_ALONE]) + packed(self.fallback, v, layout, at), state
        shared = packed(self.values, v[places], Layout.flat(places.size), at.without_public())
        if not self.innovation:
            return bytes([_SHARED]) + shared, state
        rest = v.copy()
        rest[places] = 0.0
        return bytes([_SHARED]) + join([shared, packed(self._innovation(), rest, layout, at)]), state

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Update, State]:
        """Sparse, unless the fallback is dense."""
        if not len(data) or data[0] > _LEADS:
            raise CodecError(f"shared support of kind {data[0] if len(data) else None}: expected 0, 1 or 2")
        if data[0] == _ALONE:
            return unpacked(self.fallback, data[1:], layout, at), state
        if data[0] == _LEADS:
            return unpacked(self._lead(), data[1:], layout, at), state
        places = leader_places(at, layout)
        if places is None:
            raise CodecError(
                "values at the places of a leader that is not known here; ask the node to send its own support"
            )
        parts = split(data[1:], 2) if self.innovation else [data[1:]]
        flat = Layout.flat(places.size)
        values = dense(unpacked(self.values, parts[0], flat, at.without_public()))
        update = Sparse(places, values, layout.size)
        if not self.innovation:
            return update, state
        return beside(update, unpacked(self._innovation(), parts[1], layout, at)), state

    def _lead(self) -> VectorCodec:
        return TopK(self.fraction, self.own)

    def _innovation(self) -> VectorCodec:
        return TopK(self.innovation, self.own)


def beside(shared: Sparse, innovation: Update) -> Sparse:
    """Both; where an innovation names a shared place (it was zero there), the shared value counts."""
    if not isinstance(innovation, Sparse):
        indices = np.flatnonzero(innovation)
        innovation = Sparse(indices, innovation[indices], shared.size)
    outside = ~_contains(shared.indices, innovation.indices)
    indices = np.concatenate([shared.indices, innovation.indices[outside]])
    values = np.concatenate([shared.values, innovation.values[outside]])
    order = np.argsort(indices, kind="stable")
    return Sparse(indices[order], values[order], shared.size)


def _contains(places: Places, wanted: Places) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of the wanted places are among `places`, both sorted."""
    where = np.minimum(np.searchsorted(places, wanted), places.size - 1)
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = places[where] == wanted
    return found
