"""`Merges`: what the model would be if only some of a round's replies were merged. Nothing here trains or evaluates.

The weighted mean of FedAvg, coordinate by coordinate over those replies that hold it; a coordinate that none of them
holds stays as it was. Tests that leave one reply out and contributions ask for many such merges of one round.

Letters:
    n[i]      weight of reply i                       its number of examples
    w[i, c]   reply i at coordinate c                 where its training ended

    merge(S)[c] = sum over i in S that hold c of n[i] w[i, c] / sum over the same i of n[i]

Replies that are idle count as if they had sent back what the model was before the round.

Sums are float64 and are cast to the base's dtype once; whole numbers are rounded. Small rounds are kept side by side in
float64. Large whole replies are merged a chunk at a time, and only the merge itself is allocated; large sub-models, and
every running merge, keep their sums: for a float32 model 2 to 5 times its size.

Source: McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017,
algorithm 1; by coordinate: Diao, Ding, Tarokh, "HeteroFL", ICLR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from .ends import Ends, divide
from .places import brackets
from .update import Arrays, Update

__all__ = ["Merges", "Running"]

#: Up to so many numbers, all replies together, they are kept side by side in float64: 16 MiB.
_MOST_KEPT: Final = 2_097_152


class Merges:
    """Merges of subsets of one round's replies.

    Args:
        base: the whole model from before the round; the merge has its names, shapes and dtypes.
        updates: the replies; members are named by their place in it. Their numbers have to be finite.

    Raises:
        ModelMismatch: a reply with an array that the base does not have, or of another shape than its manifest says.
        ConfigError: a weight that is negative, infinite or NaN.

    >>> from flower_edge.updates.manifest import whole_manifest
    >>> manifest, base = whole_manifest({"w": ((1,), "float32")}), {"w": np.float32([0])}
    >>> sent = [Update(key, {"w": np.float32([end])}, base, n, manifest) for key, end, n in (("1", 4, 1), ("2", 8, 3))]
    >>> merges = Merges(base, sent)
    >>> merges.of([0, 1]), merges.of([1]), merges.of([])
    ({'w': array([7.], dtype=float32)}, {'w': array([8.], dtype=float32)}, {'w': array([0.], dtype=float32)})
    """

    def __init__(self, base: Arrays, updates: Sequence[Update]) -> None:
        self._ends = Ends(base, updates)
        self._kept: npt.NDArray[Any] | None = None
        if self._ends.size * len(updates) <= _MOST_KEPT:
            self._kept = np.zeros((len(updates), self._ends.size), self._ends.dtype)
            for member, row in enumerate(self._kept):
                self._ends.add_to(row, member, 1)

    @property
    def kept(self) -> bool:
        """Whether the round is small and its replies lie side by side: then `of` is quick, and else `running` is."""
        return self._kept is not None

    def of(self, members: Iterable[int], idle: Iterable[int] = ()) -> dict[str, npt.NDArray[Any]]:
        """The merge of these replies, in the base's dtypes.

        The order of the members does not matter, not even in the last bit. A reply of weight 0 changes nothing. Without
        members it is a copy of the base, bit for bit.

        Args:
            members: places of the replies.
            idle: places of others that weigh in with the base's own numbers, where they hold any.

        >>> from flower_edge.updates.manifest import whole_manifest
        >>> manifest, base = whole_manifest({"w": ((1,), "float32")}), {"w": np.float32([0])}
        >>> sent = [Update(key, {"w": np.float32([8])}, base, 1.0, manifest) for key in ("1", "2")]
        >>> Merges(base, sent).of([0], idle=[1])
        {'w': array([4.], dtype=float32)}
        """
        ends = self._ends
        chosen = [member for member in sorted(set(members)) if ends.weights[member] > 0.0]
        resting = [member for member in sorted(set(idle) - set(chosen)) if ends.weights[member] > 0.0]
        if self._kept is None and ends.whole and chosen:
            merged = {name: ends.mean(name, chosen) for name in ends.base}
            ends.rest(merged, chosen, resting)
            return merged
        running = Running(ends)
        if self._kept is None:
            for member in chosen:
                running.add(member)
        else:
            running._fill(chosen, np.add.reduce(self._kept[chosen], axis=0))
        return running.model(resting)

    def running(self) -> Running:
        """A merge of nobody, to add replies to one at a time."""
        return Running(self._ends)


class Running:
    """A merge that replies are added to and taken from, each for the price of reading one reply.

    `Merges.running` makes one. Before the cast to the base's dtype it agrees with `Merges.of` to 1e-12 of the largest
    number that was ever in it.
    """

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._members: set[int] = set()
        self._sum = np.zeros(ends.size, ends.dtype)
        # Whole replies weigh the same everywhere. Else: by coordinate what those that hold it weigh, and how many
        # they are, for a weight that was added and taken away again need not be zero.
        self._weight = np.zeros(0 if ends.whole else ends.size)
        self._holders = np.zeros(0 if ends.whole else ends.size, np.int32)

    @property
    def members(self) -> frozenset[int]:
        """Who is in it."""
        return frozenset(self._members)

    def add(self, member: int) -> None:
        """Put a reply in.

        Raises:
            ConfigError: it is in already.
        """
        if member in self._members:
            raise ConfigError(f"reply {member} is in the merge already; it has {sorted(self._members)}")
        self._members.add(member)
        self._ends.add_to(self._sum, member, 1)
        self._hold(member, 1)

    def without(self, member: int) -> None:
        """Take a reply out again.

        Raises:
            ConfigError: it is not in.
        """
        if member not in self._members:
            raise ConfigError(f"reply {member} is not in the merge; it has {sorted(self._members)}")
        self._members.remove(member)
        self._ends.add_to(self._sum, member, -1)
        self._hold(member, -1)

    def model(self, idle: Iterable[int] = ()) -> dict[str, npt.NDArray[Any]]:
        """The merge as it is now, in the base's dtypes; without members a copy of the base, bit for bit.

        Args:
            idle: as for `Merges.of`.
        """
        ends = self._ends
        total = math.fsum(ends.weights[member] for member in self._members)
        out: dict[str, npt.NDArray[Any]] = {}
        for name, base in ends.base.items():
            merged = np.array(base, order="C")
            sums = ends.of_name(self._sum, name)
            if ends.whole:
                if total > 0.0:
                    divide(sums, total, merged)
            else:
                held = ends.of_name(self._holders, name) > 0
                if held.any():
                    divide(sums, np.where(held, ends.of_name(self._weight, name), 1.0), merged)
                    np.copyto(merged, base, where=~held)
            out[name] = merged
        ends.rest(out, sorted(self._members), sorted(set(idle) - self._members))
        return out

    def _fill(self, members: Sequence[int], total: npt.NDArray[Any]) -> None:
        """Put these in at once, whose weighted sum is known."""
        self._members.update(members)
        self._sum = total
        for member in members:
            self._hold(member, 1)

    def _hold(self, member: int, sign: int) -> None:
        ends = self._ends
        if ends.whole or not ends.weights[member]:
            return
        for name, part in ends.updates[member].manifest.arrays.items():
            where = brackets(part.whole, part.index)
            ends.of_name(self._weight, name)[where] += sign * ends.weights[member]
            ends.of_name(self._holders, name)[where] += sign
