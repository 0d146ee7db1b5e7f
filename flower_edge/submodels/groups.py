"""`WidthGroups`: which axes of which arrays of a model carry the same channels. Values; nothing here chooses or trains.

A channel that is left out is left out everywhere: a convolution's output, the normalisation behind it, and the input of
whatever reads it. Such places are one *group*. Choosing channels of each group gives a smaller model (`index_of`); what
chooses them is elsewhere: `choices` for sub-models, a measure of importance for pruning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..updates.manifest import Index, Manifest, Spec, part_manifest

__all__ = ["Axis", "Channels", "Segment", "WidthGroups", "bytes_of", "index_of", "manifest_of", "values_of"]

#: By group, which of its channels are kept: ascending and without repetition. A group that is not named is kept whole.
Channels = Mapping[str, npt.NDArray[np.intp]]


@dataclass(frozen=True)
class Segment:
    """A stretch of one axis.

    Attributes:
        group: whose channels lie there; `None` where it is always whole.
        channels: how many channels of the group there are.
        repeats: how many neighbouring places each of them takes: after flattening, the pixels of its picture.
    """

    group: str | None
    channels: int
    repeats: int = 1

    @property
    def places(self) -> int:
        """How long it is."""
        return self.channels * self.repeats


#: One axis of an array: its stretches in order (several after a concatenation).
Axis = tuple[Segment, ...]


@dataclass(frozen=True, eq=False)
class WidthGroups:
    """The groups of one model.

    Attributes:
        spec: shape and dtype of each array of the whole model, by name and in its order.
        sizes: by group, how many channels it has.
        units: by group, how many neighbouring channels are kept or left out together; 1 nearly always.
        axes: by array and axis, what lies there; `None` for an axis that is always whole. Arrays that are always whole
            are not named.

    Raises:
        ConfigError: an axis that is not as long as its stretches, or a group that is not there.
    """

    spec: Spec
    sizes: Mapping[str, int]
    units: Mapping[str, int]
    axes: Mapping[str, tuple[Axis | None, ...]]

    def __post_init__(self) -> None:
        for name, axes in self.axes.items():
            shape = self.spec[name][0] if name in self.spec else None
            long = tuple(None if axis is None else sum(s.places for s in axis) for axis in axes)
            if shape is None or len(shape) != len(axes):
                raise ConfigError(f"axes of {name!r} are {long}, and the array is {shape}; make the groups anew")
            if any(have is not None and have != size for have, size in zip(long, shape, strict=True)):
                raise ConfigError(f"axes of {name!r} are {long} long, and the array is {shape}; make the groups anew")
            for segment in (segment for axis in axes if axis is not None for segment in axis):
                if segment.group is not None and self.sizes.get(segment.group) != segment.channels:
                    raise ConfigError(f"{name!r} has {segment}, and the groups are {dict(self.sizes)}")

    def to_tree(self) -> dict[str, Any]:
        """As plain nested values, for a file or a message."""
        return {
            "spec": {name: [list(shape), dtype] for name, (shape, dtype) in self.spec.items()},
            "sizes": dict(self.sizes),
            "units": dict(self.units),
            "axes": {
                name: [None if axis is None else [[s.group, s.channels, s.repeats] for s in axis] for axis in axes]
                for name, axes in self.axes.items()
            },
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> WidthGroups:
        """Inverse of `to_tree`."""
        return cls(
            {name: (tuple(shape), dtype) for name, (shape, dtype) in tree["spec"].items()},
            dict(tree["sizes"]),
            dict(tree["units"]),
            {
                name: tuple(None if axis is None else tuple(Segment(*segment) for segment in axis) for axis in axes)
                for name, axes in tree["axes"].items()
            },
        )


def index_of(groups: WidthGroups, channels: Channels) -> dict[str, Index | None]:
    """Where each array of the smaller model lies in the whole one; `None` where it is all of it.

    Raises:
        ConfigError: a group that is not there, or channels that do not ascend, are none, or tear a unit apart.

    >>> spec = {"w": ((4, 2), "float32"), "b": ((4,), "float32")}
    >>> hidden = (Segment("hidden", 4),)
    >>> groups = WidthGroups(spec, {"hidden": 4}, {"hidden": 1}, {"w": (hidden, None), "b": (hidden,)})
    >>> index_of(groups, {"hidden": np.array([0, 2])})
    {'w': (array([0, 2]), None), 'b': (array([0, 2]),)}
    """
    for group, kept in channels.items():
        _check(groups, group, np.asarray(kept))
    out: dict[str, Index | None] = {}
    for name in groups.spec:
        places = tuple(None if axis is None else _places(axis, channels) for axis in groups.axes.get(name, ()))
        out[name] = None if all(place is None for place in places) else places
    return out


def manifest_of(groups: WidthGroups, channels: Channels, also: Spec | None = None) -> Manifest:
    """What a node that is given these channels sends back.

    Args:
        groups: of the whole model.
        channels: that are kept.
        also: of the run's first model, whose dtypes are fine too.

    Raises:
        ConfigError: see `index_of`.
    """
    return part_manifest(groups.spec, index_of(groups, channels), also)


def values_of(manifest: Manifest, names: Iterable[str] | None = None) -> int:
    """How many numbers a part of the model has: in all, or in these arrays."""
    wanted = manifest.arrays if names is None else [name for name in names if name in manifest.arrays]
    return sum(math.prod(manifest.arrays[name].shape) for name in wanted)


def bytes_of(manifest: Manifest) -> int:
    """How many bytes its arrays take, in the dtypes they were sent in."""
    return sum(math.prod(part.shape) * np.dtype(part.dtypes[0]).itemsize for part in manifest.arrays.values())


def _places(axis: Axis, channels: Channels) -> npt.NDArray[np.intp] | None:
    if not any(segment.group in channels for segment in axis):
        return None
    found, begin = [], 0
    for segment in axis:
        # Without a group of its own it is whole.
        every = np.arange(segment.channels, dtype=np.intp)
        kept = every if segment.group is None else np.asarray(channels.get(segment.group, every), np.intp)
        found.append(begin + (kept[:, None] * segment.repeats + np.arange(segment.repeats)).reshape(-1))
        begin += segment.places
    return np.concatenate(found)


def _check(groups: WidthGroups, group: str, kept: npt.NDArray[Any]) -> None:
    if group not in groups.sizes:
        raise ConfigError(f"there is no group {group!r}; the model has {', '.join(groups.sizes) or 'none'}")
    size, unit = groups.sizes[group], groups.units[group]
    fine = kept.ndim == 1 and kept.size > 0 and kept.dtype.kind in "iu"
    if not fine or kept[0] < 0 or kept[-1] >= size or not (kept[1:] > kept[:-1]).all():
        raise ConfigError(
            f"channels of {group!r} are {kept.tolist()!s:.60}; give at least one whole number, ascending and without "
            f"repetition, from 0 to {size - 1} at most"
        )
    blocks = np.bincount(kept // unit)
    if not np.isin(blocks, (0, unit)).all():
        raise ConfigError(f"channels of {group!r} go by {unit}: keep all {unit} neighbours or none, from {unit} k on")
