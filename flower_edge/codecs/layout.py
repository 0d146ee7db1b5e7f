"""`Layout`: the names and shapes of the arrays that make up one flat vector, in order. Nothing here encodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from ..errors import CodecError

__all__ = ["Floats", "Layout", "refuse_non_finite"]

#: A flat vector of a model's floats, [params].
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """What lies where in a flat vector.

    Attributes:
        names: of the arrays, in the model's own order.
        shapes: of the same.

    >>> layout = Layout(("w", "b"), ((2, 3), (3,)))
    >>> layout.size, layout.offsets, layout.select([1])
    (9, (0, 6), Layout(names=('b',), shapes=((3,),)))
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def flat(cls, size: int, name: str = "values") -> Layout:
        """One array of one axis."""
        return cls((name,), ((size,),))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers each array has."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each array begins."""
        return tuple(accumulate(self.sizes, initial=0))[:-1]

    @cached_property
    def size(self) -> int:
        """How many numbers the vector has."""
        return sum(self.sizes)

    def select(self, arrays: Sequence[int]) -> Layout:
        """The layout of some of the arrays, by their places."""
        return Layout(tuple(self.names[i] for i in arrays), tuple(self.shapes[i] for i in arrays))

    def slices(self) -> list[slice]:
        """Where each array lies."""
        return [slice(begin, begin + size) for begin, size in zip(self.offsets, self.sizes, strict=True)]


def refuse_non_finite(v: Floats, layout: Layout) -> None:
    """Refuse a vector with a NaN or an infinity: one pass, and the name of the array only where there is one.

    Raises:
        CodecError: names the array, the place and the value.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.add.reduce(v)):  # a NaN or an infinity never leaves a sum finite
            return
    for name, part in zip(layout.names, layout.slices(), strict=True):
        bad = np.flatnonzero(~np.isfinite(v[part]))
        if bad.size:
            raise CodecError(
                f"{name!r} holds {v[part][bad[0]]} at place {bad[0]}: a codec carries finite numbers; "
                "has the training diverged? lower the learning rate, or clip gradients"
            )
