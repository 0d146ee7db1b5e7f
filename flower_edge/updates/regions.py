"""`regions`: coordinates of the model, grouped by who sent them. Nothing here looks at a value.

Replies that cover the whole model have one region. Sub-models share some coordinates and not others, and a test that
compares replies can compare them only where each of them has something. An array's part is a set of places on each
axis, so a region is a list of blocks, and none of this takes memory in the size of the model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..errors import ModelMismatch
from .manifest import Index, Manifest
from .update import Update, moving

__all__ = ["Block", "Region", "regions"]


@dataclass(frozen=True, eq=False)
class Block:
    """Some places of one array.

    Attributes:
        name: of the array.
        whole: its shape in the whole model.
        axes: for each axis the places, ascending; `None` is all of them.
    """

    name: str
    whole: tuple[int, ...]
    axes: Index

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """How many places on each axis."""
        return tuple(
            size if places is None else len(places) for places, size in zip(self.axes, self.whole, strict=True)
        )

    @property
    def size(self) -> int:
        """How many coordinates."""
        return math.prod(self.shape)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its array."""
        return all(places is None for places in self.axes)


@dataclass(frozen=True, eq=False)
class Region:
    """Coordinates that the same replies hold.

    Attributes:
        holders: places of those replies in what `regions` was handed, ascending.
        blocks: where in the model it lies; in the model's order.
        offsets: by name, where in the flat model the array begins.
    """

    holders: tuple[int, ...]
    blocks: tuple[Block, ...]
    offsets: dict[str, int]

    @cached_property
    def size(self) -> int:
        """How many coordinates."""
        return sum(block.size for block in self.blocks)


def regions(updates: Sequence[Update], least_holders: int = 3) -> list[Region]:
    """The model's coordinates by who sent them, the largest region first.

    Arrays of whole numbers, such as counters of batches, are left out (see `moving`).

    Args:
        updates: of one round; their bases are of one model.
        least_holders: coordinates that fewer replies hold are left out; with fewer than 3 there is no majority.

    Raises:
        ModelMismatch: the replies are not of one model.
    """
    if not updates:
        return []
    shapes = {name: array.shape for name, array in updates[0].base.items()}
    starts = itertools.accumulate((math.prod(shape) for shape in shapes.values()), initial=0)
    offsets = dict(zip(shapes, starts, strict=False))

    parts: dict[str, Manifest] = {}
    members: dict[str, list[int]] = {}
    for place, update in enumerate(updates):
        for name, part in update.manifest.arrays.items():
            if shapes.get(name) != part.whole:
                raise ModelMismatch(
                    f"node {update.node}: array {name!r} is of {part.whole}, the model has {shapes.get(name)}"
                )
        key = update.manifest.digest
        parts.setdefault(key, update.manifest)
        members.setdefault(key, []).append(place)

    found: dict[bytes, list[Block]] = {}
    manifests = list(parts.values())
    compared = [frozenset(moving(manifest)) for manifest in manifests]
    for name, shape in shapes.items():
        present = np.array([name in names for names in compared])
        for held, block in _blocks(name, shape, manifests, present):
            found.setdefault(held.tobytes(), []).append(block)
    out = []
    for key_bytes, blocks in found.items():
        flags = np.frombuffer(key_bytes, bool)
        holders = sorted(
            itertools.chain.from_iterable(m for m, flag in zip(members.values(), flags, strict=True) if flag)
        )
        if len(holders) >= least_holders:
            out.append(Region(tuple(holders), tuple(blocks), offsets))
    return sorted(out, key=lambda region: (-region.size, region.holders))


def _blocks(
    name: str, shape: tuple[int, ...], parts: Sequence[Manifest], present: npt.NDArray[np.bool_]
) -> list[tuple[npt.NDArray[np.bool_], Block]]:
    """The array's blocks that someone holds, and which of `parts` do: bool [parts]; `present` has the array at all."""
    if not present.any() or not math.prod(shape):
        return []
    groups = [_groups(name, axis, size, parts) for axis, size in enumerate(shape)]
    out = []
    for combination in itertools.product(*groups):
        held = np.logical_and.reduce([present, *(flags for flags, _ in combination)])
        if held.any():
            out.append((held, Block(name, shape, tuple(places for _, places in combination))))
    return out


def _groups(
    name: str, axis: int, size: int, parts: Sequence[Manifest]
) -> list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp] | None]]:
    """Places of one axis by which parts have them: bool [parts], and the places; `None` where all are alike."""
    indices = [part.arrays[name].index if name in part.arrays else None for part in parts]
    places = [None if index is None else index[axis] for index in indices]
    if all(place is None for place in places):
        return [(np.ones(len(parts), bool), None)]
    held = np.ones((len(parts), size), bool)
    for row, place in enumerate(places):
        if place is not None:
            held[row] = False
            held[row, place] = True
    _, first, group = np.unique(np.packbits(held, axis=0), axis=1, return_index=True, return_inverse=True)
    if len(first) == 1:
        return [(held[:, 0], None)]
    flat = group.reshape(-1)
    return [(held[:, place], np.flatnonzero(flat == number)) for number, place in enumerate(first)]
