"""`Moment`: which round and node a payload belongs to, and what both ends know without sending it.

Nothing here travels: whoever carries the payload (a packet, an envelope) names round and node beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .layout import Floats, Layout

__all__ = ["NO_MOMENT", "Moment", "Public"]


_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Public:
    """What a node and the server both know, bit for bit, when a payload is made. The flat vector's own order.

    Attributes:
        aggregates: by what the model moved in the last rounds, newest first, [params] each; those that *both* ends
            have. None at the beginning, after a plain model, or where a node missed rounds.
        leader: sorted places of the support that the lagged leader published for this round, or `None`.
        codebook: what a codec's teacher published last, such as the weights of an autoencoder, or `None`. Never
            executable, always checked by who reads it.

    What codecs find out about it is kept with it, see `once`: hand one `Public` to all messages that have it in common.
    """

    aggregates: tuple[Floats, ...] = ()
    leader: npt.NDArray[np.int64] | None = None
    codebook: bytes | None = None
    _known: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, question: Hashable, answer: Callable[[], _Found]) -> _Found:
        """What `answer` returns, from an earlier call if there was one; it must depend on nothing but `self` and
        `question`. Nothing is kept where nothing is known.

        >>> public = Public((np.ones(2, np.float32),))
        >>> public.once("sum", lambda: float(public.aggregates[0].sum())), public.once("sum", lambda: 0.0)
        (2.0, 2.0)
        """
        if not self.aggregates:
            return answer()
        if question not in self._known:
            self._known[question] = answer()  # twice, if two threads ask at once: the same
        found: _Found = self._known[question]
        return found

    def select(self, layout: Layout, arrays: Sequence[int]) -> Public:
        """What is known of some of the arrays, as one vector of theirs."""
        return self.once((layout, *arrays), lambda: self._selected(layout, arrays))

    def _selected(self, layout: Layout, arrays: Sequence[int]) -> Public:
        slices = layout.slices()
        parts = [slices[i] for i in arrays]

        def gathered(vector: Floats) -> Floats:
            return np.concatenate([vector[part] for part in parts]) if parts else vector[:0]

        leader = self.leader
        if leader is not None:
            begin, found = 0, []
            for part in parts:
                inside = leader[np.searchsorted(leader, part.start) : np.searchsorted(leader, part.stop)]
                found.append(inside - part.start + begin)
                begin += part.stop - part.start
            leader = np.concatenate(found) if found else leader[:0]
        return Public(tuple(map(gathered, self.aggregates)), leader, self.codebook)


@dataclass(frozen=True)
class Moment:
    """When and by whom something is encoded.

    Attributes:
        round: counts from 0 on; two payloads of one node never share it.
        node: a stable number of the node (its partition, its place in a topology); the server's own is 0xFFFFFFFF.
        public: see `Public`.
    """

    round: int = 0
    node: int = 0
    public: Public = Public()

    def seeds(self, seed: int, *parts: int) -> list[int]:
        """Seed material for what is drawn at this moment: `np.random.default_rng(at.seeds(self.seed, 3))`."""
        return [seed, self.round, self.node, *parts]

    def select(self, layout: Layout, arrays: Sequence[int]) -> Moment:
        """The same moment for some of the arrays."""
        return replace(self, public=self.public.select(layout, arrays))

    def without_public(self) -> Moment:
        """The same moment for a vector of other places, such as the kept values of a sparse one."""
        return replace(self, public=Public())


#: For codecs that look at neither round nor node.
NO_MOMENT: Any = Moment()
