"""`Ends`: where each reply's training ended, weighted, and sums of it. What `Merges` is computed with.

Sums go in chunks, so that a merge of large replies allocates one model and not one in float64 as well.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, ModelMismatch
from .places import base_part, brackets
from .sums import CHUNK
from .update import Arrays, Update

__all__ = ["Ends", "divide"]


class Ends:
    """Where each reply's training ended, and what it weighs.

    Args:
        base: the whole model from before the round.
        updates: the replies.

    Attributes:
        weights: only proportions matter, so the largest is 1: 1e18 examples of 3e38 would be no number any more.
        whole: whether every reply holds the whole model.
        dtype: of the sums: float64, or complex128 where the model is complex.
        begins: by name, where in a flat model the array begins.
        size: how many numbers the model has.

    Raises:
        ModelMismatch: a reply with an array that the base does not have, or of another shape than its manifest says.
        ConfigError: a weight that is negative, infinite or NaN.
    """

    def __init__(self, base: Arrays, updates: Sequence[Update]) -> None:
        for update in updates:
            _check(update, base)
        self.base = base
        self.updates = tuple(updates)
        most = max((update.weight for update in updates), default=0.0)
        self.weights = [update.weight / most if most > 0.0 else 0.0 for update in updates]
        self.whole = all(u.manifest.is_whole and len(u.manifest.arrays) == len(base) for u in updates)
        self.dtype = np.result_type(np.float64, *(array.dtype for array in base.values()))
        begins = itertools.accumulate((array.size for array in base.values()), initial=0)
        self.begins = dict(zip(base, begins, strict=False))
        self.size = sum(array.size for array in base.values())

    def of_name(self, flat: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
        """The numbers of one array in a flat model, in its shape; a view."""
        begin, array = self.begins[name], self.base[name]
        return flat[begin : begin + array.size].reshape(array.shape)

    def weight_of(self, members: Sequence[int]) -> dict[str, npt.NDArray[np.float64] | float]:
        """What these members weigh together, by array: one number where all replies are whole, else by coordinate."""
        if self.whole:
            return dict.fromkeys(self.base, math.fsum(self.weights[member] for member in members))
        weights = {name: np.zeros(array.shape) for name, array in self.base.items()}
        for member in members:
            for name, part in self.updates[member].manifest.arrays.items():
                weights[name][brackets(part.whole, part.index)] += self.weights[member]
        return dict(weights)

    def rest(self, merged: dict[str, npt.NDArray[Any]], members: Sequence[int], idle: Sequence[int]) -> None:
        """Move the merge of the members back towards the base by what the idle ones weigh at each coordinate."""
        if not members or not idle:
            return
        alone, both = self.weight_of(members), self.weight_of([*members, *idle])
        for name, array in merged.items():
            share = np.asarray(alone[name] / np.maximum(both[name], np.finfo(float).tiny)).reshape(-1)
            out, base = array.reshape(-1), self.base[name].reshape(-1)
            for begin in range(0, out.size, CHUNK):
                chunk = slice(begin, begin + CHUNK)
                with np.errstate(all="ignore"):
                    moved = out[chunk].astype(self.dtype) - base[chunk]
                    moved *= share if share.size == 1 else share[chunk]
                    moved += base[chunk]
                divide(moved, 1.0, out[chunk])

    def add_to(self, flat: npt.NDArray[Any], member: int, sign: int) -> None:
        """flat += sign n[member] w[member], at the coordinates that the member holds."""
        update, factor = self.updates[member], sign * self.weights[member]
        if not factor:
            return
        with np.errstate(all="ignore"):
            for name, part in update.manifest.arrays.items():
                into = self.of_name(flat, name)
                array, base = update.arrays[name], base_part(update, name) if update.difference else None
                if part.index is None:
                    sums, ends, begun = into.reshape(-1), array.reshape(-1), None if base is None else base.reshape(-1)
                    for begin in range(0, array.size, CHUNK):
                        chunk = slice(begin, begin + CHUNK)
                        _add(sums[chunk], ends[chunk], None if begun is None else begun[chunk], factor)
                else:
                    end = np.zeros(part.shape, self.dtype)
                    _add(end, array, base, factor)
                    into[brackets(part.whole, part.index)] += end

    def mean(self, name: str, members: Sequence[int]) -> npt.NDArray[Any]:
        """The merge of one array that all members hold whole."""
        base = self.base[name]
        merged = np.empty(base.shape, base.dtype)
        out = merged.reshape(-1)
        total = math.fsum(self.weights[member] for member in members)
        rows = [(self.updates[member].arrays[name].reshape(-1), self._begun(member, name)) for member in members]
        sums = np.empty(min(CHUNK, base.size), self.dtype)
        scratch = np.empty_like(sums)
        with np.errstate(all="ignore"):
            for begin in range(0, base.size, CHUNK):
                chunk = sums[: min(CHUNK, base.size - begin)]
                chunk[:] = 0.0
                for member, (array, begun) in zip(members, rows, strict=True):
                    before = None if begun is None else begun[begin : begin + CHUNK]
                    _add(chunk, array[begin : begin + CHUNK], before, self.weights[member], scratch[: chunk.size])
                divide(chunk, total, out[begin : begin + chunk.size])
        return merged

    def _begun(self, member: int, name: str) -> npt.NDArray[Any] | None:
        update = self.updates[member]
        return update.base[name].reshape(-1) if update.difference else None


def divide(sums: npt.NDArray[Any], weight: npt.NDArray[np.float64] | float, out: npt.NDArray[Any]) -> None:
    """out = sums / weight, cast once; whole numbers and booleans are rounded to the nearest."""
    if isinstance(weight, float) and sums.size > CHUNK:
        # One chunk at a time: a quotient of a whole large model would be allocated only to be cast.
        every, into = sums.reshape(-1), out.reshape(-1)
        for begin in range(0, every.size, CHUNK):
            divide(every[begin : begin + CHUNK], weight, into[begin : begin + CHUNK])
        return
    with np.errstate(all="ignore"):
        means = np.asarray(sums / weight)
        if out.dtype.kind in "biu":
            np.rint(means, out=means)
        np.copyto(out, means, casting="unsafe")


def _add(
    into: npt.NDArray[Any],
    array: npt.NDArray[Any],
    base: npt.NDArray[Any] | None,
    factor: float,
    scratch: npt.NDArray[Any] | None = None,
) -> None:
    """into += factor (array + base), in the dtype of `into`."""
    if base is None:
        into += np.multiply(array, factor, out=scratch, dtype=into.dtype)
        return
    end = np.add(array, base, out=scratch, dtype=into.dtype)
    end *= factor
    into += end


def _check(update: Update, base: Arrays) -> None:
    who = f"node {update.node}"
    if not 0.0 <= update.weight < math.inf:
        raise ConfigError(f"{who}: weight {update.weight!r}; give a finite number that is 0 or more")
    for name, part in update.manifest.arrays.items():
        if name not in base or base[name].shape != part.whole:
            found = base[name].shape if name in base else "none"
            raise ModelMismatch(f"{who}: array {name!r} is a part of {part.whole}, and the base has {found}")
        if name not in update.arrays or update.arrays[name].shape != part.shape:
            found = update.arrays[name].shape if name in update.arrays else "none"
            raise ModelMismatch(f"{who}: array {name!r} has to be of shape {part.shape}, it sent {found}")
