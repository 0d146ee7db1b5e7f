"""`Manifest`: what a node was given to train, and so what its reply has to be. A value; nothing here looks at a number.

A node is given the whole model, some of its arrays (a piece), or parts of them (a sub-model of less width): each array
of the reply lies somewhere in an array of the whole model, and its `ArrayPart` says where.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..errors import ModelMismatch

__all__ = ["ArrayPart", "Index", "Manifest", "Spec", "part_manifest", "same_part", "whole_manifest"]

#: For each axis the places in the whole array, ascending and without repetition; `None` is all of them.
Index = tuple[npt.NDArray[np.intp] | None, ...]
#: Shape and dtype by name, in the model's order: what `flower_edge.wire.model_spec` gives.
Spec = Mapping[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True, eq=False)
class ArrayPart:
    """One array of an assignment.

    Attributes:
        shape: of the reply's array.
        dtypes: names that the reply's dtype may have, such as `("float32",)`. More than one where a strategy of the
            server turns whole numbers into floats and a node sends whole numbers back.
        whole: shape of the whole model's array; the same as `shape` where it is all of it.
        index: where in the whole array it lies; `None` where it is all of it.

    Raises:
        ModelMismatch: an index that is not one of `whole`, or not one of `shape`.
    """

    shape: tuple[int, ...]
    dtypes: tuple[str, ...]
    whole: tuple[int, ...]
    index: Index | None = None

    def __post_init__(self) -> None:
        wanted = self.whole if self.index is None else _shape_of(self.index, self.whole)
        if tuple(self.shape) != wanted:
            raise ModelMismatch(f"a part of shape {self.shape}, and its places in {self.whole} are {wanted}")


@dataclass(frozen=True, eq=False)
class Manifest:
    """What the reply to one assignment has to be.

    Attributes:
        arrays: by name, in the model's order.
        most_steps: of a range of steps, how many it has; `None` where the node was not told.
    """

    arrays: Mapping[str, ArrayPart]
    most_steps: int | None = None

    @cached_property
    def is_whole(self) -> bool:
        """Whether every array here is all of its array; a piece of whole arrays is whole in this sense too."""
        return all(part.index is None for part in self.arrays.values())

    @cached_property
    def digest(self) -> str:
        """Which part of the model it is, as 64 hexadecimal digits: names, shapes and places; not dtypes, not order."""
        sha = hashlib.sha256()
        for name in sorted(self.arrays):
            part = self.arrays[name]
            sha.update(repr((name, part.whole)).encode())
            for axis in part.index or ():
                places = b"all" if axis is None else np.asarray(axis, "<i8").tobytes()
                sha.update(len(places).to_bytes(8, "little") + places)
            sha.update(b";")
        return sha.hexdigest()


def whole_manifest(spec: Spec, also: Spec | None = None, *, most_steps: int | None = None) -> Manifest:
    """The whole model.

    Args:
        spec: of the model that was sent.
        also: of the run's first model, whose dtypes are fine too: Flower's FedAvg turns int64 into float64, and nodes
            that know nothing of it send int64 back.
        most_steps: of a range of steps, how many it has.

    Raises:
        ModelMismatch: `also` is of another model.

    >>> whole_manifest({"w": ((2, 3), "float32")}).arrays["w"]
    ArrayPart(shape=(2, 3), dtypes=('float32',), whole=(2, 3), index=None)
    """
    return part_manifest(spec, dict.fromkeys(spec), also, most_steps=most_steps)


def part_manifest(
    whole: Spec,
    index: Mapping[str, Index | None],
    also: Spec | None = None,
    *,
    most_steps: int | None = None,
) -> Manifest:
    """A part of the model: a piece, a sub-model of less width, or both.

    Args:
        whole: of the whole model.
        index: by name, for each axis the places that the node holds, ascending; `None` is all of an axis, or all of an
            array. Arrays that are not named are not part of it.
        also: of the run's first model, whose dtypes are fine too.
        most_steps: of a range of steps, how many it has.

    Raises:
        ModelMismatch: a name, an axis or a place that the whole model does not have.

    >>> first_two = np.array([0, 1])
    >>> part_manifest({"w": ((4, 3), "float32"), "b": ((4,), "float32")}, {"w": (first_two, None)}).arrays["w"].shape
    (2, 3)
    """
    if unknown := sorted(index.keys() - whole.keys()):
        raise ModelMismatch(f"arrays {unknown} are not in the model; it has {list(whole)}")
    first = whole if also is None else also
    shapes = {name: shape for name, (shape, _) in whole.items()}
    if shapes != {name: shape for name, (shape, _) in first.items()}:
        raise ModelMismatch(f"`also` is of another model: {sorted(first)}, expected {sorted(whole)} in the same shapes")
    arrays: dict[str, ArrayPart] = {}
    for name, (shape, dtype) in whole.items():
        if name in index:
            dtypes = tuple(dict.fromkeys((dtype, first[name][1])))
            arrays[name] = _part(name, tuple(shape), dtypes, index[name])
    return Manifest(arrays, most_steps)


def same_part(one: Manifest, other: Manifest) -> bool:
    """Whether both are the same part of the model; dtypes and the order of names do not matter.

    >>> same_part(whole_manifest({"w": ((2,), "int64")}), whole_manifest({"w": ((2,), "float64")}))
    True
    """
    return one is other or one.digest == other.digest


def _part(name: str, whole: tuple[int, ...], dtypes: tuple[str, ...], index: Index | None) -> ArrayPart:
    if index is None:
        return ArrayPart(whole, dtypes, whole)
    try:
        shape = _shape_of(index, whole)
    except ModelMismatch as no:
        raise ModelMismatch(f"array {name!r}: {no}") from None
    # Places are ascending and within the axis, so as many as the axis has are all of it: one form for one part.
    plain = tuple(
        None if places is None or len(places) == size else np.array(places, np.intp)
        for places, size in zip(index, whole, strict=True)
    )
    return ArrayPart(shape, dtypes, whole, None if all(places is None for places in plain) else plain)


def _shape_of(index: Index, whole: tuple[int, ...]) -> tuple[int, ...]:
    if len(index) != len(whole):
        raise ModelMismatch(f"an index of {len(index)} axes for shape {whole}; give one entry, or None, for each axis")
    for axis, (places, size) in enumerate(zip(index, whole, strict=True)):
        if places is None:
            continue
        found = np.asarray(places)
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise ModelMismatch(f"places of axis {axis} are {found.dtype} {found.shape}; give a list of whole numbers")
        if found.size and (int(found[0]) < 0 or int(found[-1]) >= size or not (found[1:] > found[:-1]).all()):
            raise ModelMismatch(
                f"places of axis {axis} have to ascend, without repetition, from 0 to {size - 1} at most"
            )
    return tuple(size if places is None else len(places) for places, size in zip(index, whole, strict=True))
