"""`Coupling`: which channels are the same, found step by step while a model is followed. It knows axes and no model.

A group begins where channels are made (a convolution's output) and is joined with another where both have to keep the
same ones (a sum). It is whole where it meets an axis that is no channel of the model's own: the input, the classes. It
is *demanded* whole where a step cannot work on fewer channels: then the user has to say so, and else it is an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..errors import SplitError
from .groups import Axis, Segment

__all__ = ["Axes", "Coupling", "Demand", "Size", "reshaped"]

#: Of a tensor: an axis of channels, or `None`.
Axes = tuple[Axis | None, ...]


@dataclass(frozen=True)
class Size:
    """The length of an axis that the model's own code asked for."""

    axis: Axis | None
    length: int


@dataclass(frozen=True)
class Demand:
    """A step that needs all channels of an axis.

    Attributes:
        where: which step.
        why: what it does, as a clause.
        axis: what it needs whole.
    """

    where: str
    why: str
    axis: Axis


@dataclass
class Coupling:
    """What is known so far.

    Attributes:
        whole: of groups that are whole in any case, some name of each.
        demands: in the order in which they were made.
    """

    whole: set[str] = field(default_factory=set)
    demands: list[Demand] = field(default_factory=list)
    _sizes: dict[str, int] = field(default_factory=dict)
    _units: dict[str, int] = field(default_factory=dict)
    _above: dict[str, str] = field(default_factory=dict)

    def new(self, name: str, size: int) -> Axis:
        """A new group of that many channels; a name that is taken gets a number behind it."""
        unique, number = name, 1
        while unique in self._above:
            number += 1
            unique = f"{name}#{number}"
        self._above[unique], self._sizes[unique], self._units[unique] = unique, size, 1
        return (Segment(unique, size),)

    def fixed(self, size: int) -> Axis:
        """An axis that is whole."""
        return (Segment(None, size),)

    def find(self, group: str) -> str:
        """The name that all groups have that are one."""
        while self._above[group] != group:
            group = self._above[group]
        return group

    def size(self, group: str) -> int:
        """How many channels it has."""
        return self._sizes[self.find(group)]

    def unit(self, group: str) -> int:
        """How many neighbouring channels go together."""
        return self._units[self.find(group)]

    def by_units(self, axis: Axis, unit: int) -> None:
        """Channels of this axis, one stretch, go together by so many."""
        if (group := axis[0].group) is not None:
            root = self.find(group)
            self._units[root] = math.lcm(self._units[root], unit)

    def keep_whole(self, *axes: Axis | None) -> None:
        """These are whole, and that is as it should be."""
        self.whole |= {s.group for axis in axes if axis is not None for s in axis if s.group is not None}

    def demand(self, where: str, why: str, *axes: Axis | None) -> None:
        """These have to be whole."""
        self.demands += [Demand(where, why, axis) for axis in axes if axis is not None]

    def same(self, one: Axis | None, other: Axis | None, where: str) -> Axis | None:
        """Both keep the same channels from here on."""
        if one is None or other is None:
            self.keep_whole(one, other)
            return one or other
        if [(s.channels, s.repeats) for s in one] != [(s.channels, s.repeats) for s in other]:
            self.demand(where, "brings together channels that lie in different orders", one, other)
            return one
        for mine, theirs in zip(one, other, strict=True):
            if mine.group is None or theirs.group is None:
                self.keep_whole((mine,), (theirs,))
            elif (a := self.find(mine.group)) != (b := self.find(theirs.group)):
                self._above[b] = a
                self._units[a] = math.lcm(self._units[a], self._units[b])
        return one

    def settled(self, axis: Axis) -> Axis:
        """The axis with the name that all groups have that are one; `None` for those that are whole."""
        roots = {self.find(group) for group in self.whole}
        return tuple(
            s if s.group is None else replace(s, group=None if (g := self.find(s.group)) in roots else g) for s in axis
        )

    def sliceable(self, axis: Axis | None) -> bool:
        """Whether any of it may be left out, as far as is known."""
        return axis is not None and any(s.group is not None for s in self.settled(axis))

    def check(self, model: str) -> None:
        """Refuse a model in which something is left out that a step demands.

        Raises:
            SplitError: names the first such step, and what to keep whole for all of them.
        """
        open_ = [demand for demand in self.demands if self.sliceable(demand.axis)]
        if not open_:
            return
        needed = {s.group for demand in open_ for s in self.settled(demand.axis) if s.group is not None}
        first = open_[0]
        raise SplitError(
            f"{model} cannot be given fewer channels at {first.where}: it {first.why}; keep those channels whole: "
            f"fixed={sorted({group.partition('#')[0] for group in needed})}"
        )

    def groups(self) -> list[str]:
        """Those that may be sliced, in the order in which they were made."""
        roots = {self.find(group) for group in self.whole}
        return [group for group in self._above if self._above[group] == group and group not in roots]


def reshaped(
    coupling: Coupling,
    before: tuple[int, ...],
    axes: Axes,
    after: tuple[int, ...],
    where: str,
    asked: Sequence[object] | None = None,
) -> Axes:
    """What lies on each axis after a change of shape that leaves the order of numbers.

    Args:
        coupling: takes up what it demands.
        before, axes: of the tensor.
        after: its new shape.
        where: which step.
        asked: the new shape as the model's code asks for it: numbers, -1 or a `Size`; `None` where it cannot be wrong.

    >>> coupling = Coupling()
    >>> reshaped(coupling, (2, 8, 3, 3), (None, coupling.new("conv", 8), None, None), (2, 72), "flatten")
    (None, (Segment(group='conv', channels=8, repeats=9),))
    """
    out: list[Axis | None] = [None] * len(after)
    for source, target in _blocks(before, after):
        labelled = [place for place in source if axes[place] is not None]
        if not labelled or not target:
            continue
        axis = axes[labelled[0]]
        assert axis is not None
        inner = math.prod(before[place] for place in source if place > labelled[0])
        outer = math.prod(before[place] for place in source if place < labelled[0])
        if len(labelled) > 1:
            coupling.demand(where, "makes one axis of two axes of channels", *(axes[place] for place in labelled))
        elif len(target) == 1:
            out[target[0]] = tuple(replace(s, repeats=s.repeats * inner) for s in axis) * outer
        elif len(source) == 1 and len(axis) == 1 and axis[0].repeats == math.prod(after[p] for p in target[1:]):
            out[target[0]] = (replace(axis[0], repeats=1),)
        else:
            coupling.demand(where, "spreads channels over several axes, such as heads of attention", axis)
    if asked is not None and len(asked) == len(after):
        for new, want in zip(out, asked, strict=True):
            if new is not None and isinstance(want, Size):
                # As long as that axis: they have to keep equally many, and so the same.
                coupling.same(new, want.axis, where)
            elif new is not None and isinstance(want, int) and want != -1:
                coupling.demand(where, f"asks for {want} numbers where there may be fewer (write -1, or flatten)", new)
    return tuple(out)


def _blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Axes that become which others, without those of length 1; the fewest that hold equally many numbers."""
    old = [place for place, size in enumerate(before) if size != 1]
    new = [place for place, size in enumerate(after) if size != 1]
    blocks, i, j = [], 0, 0
    while i < len(old) and j < len(new):
        source, target = [old[i]], [new[j]]
        have, want = before[old[i]], after[new[j]]
        i, j = i + 1, j + 1
        while have != want:
            if have < want:
                source.append(old[i])
                have *= before[old[i]]
                i += 1
            else:
                target.append(new[j])
                want *= after[new[j]]
                j += 1
        blocks.append((source, target))
    return blocks
