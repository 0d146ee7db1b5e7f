"""`Grouped`: arrays in groups, each group a vector and a codec of its own, their bytes one after the other.

What decides on groups is a subclass: `ByLayer`, `BySize`. Nothing here codes numbers itself.

    payload: the groups' bytes in order, each but the last with its length (varint)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..errors import CodecError
from .group_teacher import GroupTeacher
from .layout import Floats, Layout
from .moment import Moment
from .sections import join, split
from .sparse import Sparse, Update
from .teacher import Teacher
from .vector_codec import State, VectorCodec

__all__ = ["Group", "Grouped", "combine"]


@dataclass(frozen=True)
class Group:
    """Some arrays of a layout, coded together.

    Attributes:
        codec: which of its owner's codecs.
        arrays: their places among the arrays, increasing.
    """

    codec: int
    arrays: tuple[int, ...]

    def within(self, layout: Layout, at: Moment) -> tuple[Layout, Moment]:
        """Layout and moment of the group's vector."""
        if len(self.arrays) == len(layout.names):
            return layout, at
        return layout.select(self.arrays), at.select(layout, self.arrays)

    def take(self, v: Floats, layout: Layout) -> Floats:
        """The numbers of the arrays as one vector: `v`'s own where they lie together, else a copy."""
        whole = layout.slices()
        parts = [whole[i] for i in self.arrays]
        if not parts:
            return v[:0]
        if all(one.stop == other.start for one, other in pairwise(parts)):
            return v[parts[0].start : parts[-1].stop]
        return np.concatenate([v[part] for part in parts])

    def put(self, values: Floats, out: Floats, layout: Layout) -> None:
        """Inverse of `take`, into a whole vector."""
        begin, parts = 0, layout.slices()
        for i in self.arrays:
            out[parts[i]] = values[begin : begin + layout.sizes[i]]
            begin += layout.sizes[i]

    def places(self, indices: npt.NDArray[np.int64], layout: Layout) -> npt.NDArray[np.int64]:
        """Where places of the group's vector lie in the whole one."""
        if not indices.size:
            return indices
        own = layout.select(self.arrays)
        starts = np.array(own.offsets, np.int64)
        shifts = np.array([layout.offsets[i] for i in self.arrays], np.int64) - starts
        ends = starts + np.array(own.sizes, np.int64)
        return indices + shifts[np.searchsorted(ends, indices, side="right")]

    def narrowed(self, update: Update, layout: Layout) -> Update:
        """The group's part of an update of the whole vector."""
        if not isinstance(update, Sparse):
            return self.take(update, layout)
        indices, values, begin, parts = [], [], 0, layout.slices()
        for i in self.arrays:
            low, high = np.searchsorted(update.indices, [parts[i].start, parts[i].stop])
            indices.append(update.indices[low:high] - parts[i].start + begin)
            values.append(update.values[low:high])
            begin += layout.sizes[i]
        if not indices:
            return Sparse(update.indices[:0], update.values[:0], 0)
        return Sparse(np.concatenate(indices), np.concatenate(values), begin)


def combine(updates: Sequence[Update], groups: Sequence[Group], layout: Layout) -> Update:
    """The whole vector of its groups' ones. Sparse if they all are."""
    if len(updates) == 1 and len(groups[0].arrays) == len(layout.names):
        return updates[0]
    sparse = [update for update in updates if isinstance(update, Sparse)]
    if sparse and len(sparse) == len(updates):
        indices = np.concatenate([g.places(u.indices, layout) for g, u in zip(groups, sparse, strict=True)])
        order = np.argsort(indices, kind="stable")
        return Sparse(indices[order], np.concatenate([u.values for u in sparse])[order], layout.size)
    out = np.zeros(layout.size, np.float32)
    for group, update in zip(groups, updates, strict=True):
        if isinstance(update, Sparse):
            out[group.places(update.indices, layout)] = update.values
        else:
            group.put(update, out, layout)
    return out


class Grouped(VectorCodec):
    """A codec per group of arrays."""

    @abstractmethod
    def codecs(self) -> tuple[VectorCodec, ...]:
        """Those that groups may have."""

    @abstractmethod
    def groups(self, layout: Layout) -> list[Group]:
        """The groups of a layout, none without arrays; every array is in one."""

    @property
    def unbiased(self) -> bool:
        """If all codecs are."""
        return all(codec.unbiased for codec in self.codecs())

    @property
    def linear(self) -> bool:
        """If all codecs are."""
        return all(codec.linear for codec in self.codecs())

    def teacher(self) -> Teacher | None:
        """That of the one codec that has one; it sees the arrays of that codec alone.

        Raises:
            CodecError: several have one, but a message has room for one leader and one codebook.
        """
        found = [(i, t) for i, t in enumerate(codec.teacher() for codec in self.codecs()) if t is not None]
        if len(found) > 1:
            raise CodecError(
                f"{len(found)} of the codecs in {self.kind!r} live on shared information, expected at most one; "
                "give the arrays of both to one codec, or let one be TopK"
            )
        return GroupTeacher(found[0][1], self, found[0][0]) if found else None

    def group_of(self, codec: int, layout: Layout) -> Group:
        """The arrays that a codec has; perhaps none."""
        return next((group for group in self.groups(layout) if group.codec == codec), Group(codec, ()))

    def start(self, layout: Layout) -> State:
        """`groups`: a state for each."""
        codecs = self.codecs()
        return {"groups": [codecs[g.codec].start(layout.select(g.arrays)) for g in self.groups(layout)]}

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """The groups' bytes, joined."""
        codecs, parts, states = self.codecs(), [], []
        for group, own in zip(self.groups(layout), state["groups"], strict=True):
            within, moment = group.within(layout, at)
            part, after = codecs[group.codec].pack(group.take(v, layout), within, own, moment)
            parts.append(part)
            states.append(after)
        return join(parts), {"groups": states}

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Update, State]:
        """The groups' vectors, each where its arrays are."""
        codecs, groups = self.codecs(), self.groups(layout)
        updates, states = [], []
        for group, own, part in zip(groups, state["groups"], split(data, len(groups)), strict=True):
            within, moment = group.within(layout, at)
            update, after = codecs[group.codec].unpack(part, within, own, moment)
            updates.append(update)
            states.append(after)
        return combine(updates, groups, layout), {"groups": states}

    def feed(
        self, v: Floats, memory: Floats | None, layout: Layout, state: State, at: Moment
    ) -> tuple[bytes, Floats, State]:
        """Each codec in its own one pass."""
        codecs, parts, states = self.codecs(), [], []
        left = np.empty(layout.size, np.float32)
        for group, own in zip(self.groups(layout), state["groups"], strict=True):
            within, moment = group.within(layout, at)
            kept = None if memory is None else group.take(memory, layout)
            part, rest, after = codecs[group.codec].feed(group.take(v, layout), kept, within, own, moment)
            group.put(rest, left, layout)
            parts.append(part)
            states.append(after)
        return join(parts), left, {"groups": states}
