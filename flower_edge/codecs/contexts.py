"""`Contexts`: what both ends know of each place of a vector before a message comes. Nothing here encodes.

Where the model moved lately, in which rows and columns, it will move again: a support costs 8.3 bits per place if
nothing is known, 4 to 5 bits by this (top 1 % of FedAvg updates). docs/codecs_sparse.md says where it does not help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import CodecError
from .kernels import kernels, running
from .layout import Floats, Layout
from .moment import Public

__all__ = ["AGGREGATES", "Contexts"]

#: All bits of a float32 but its sign.
_MAGNITUDE = np.uint32(0x7FFFFFFF)
#: How many aggregates are looked at.
AGGREGATES = 4


@dataclass(frozen=True)
class Contexts:
    """Groups of places that are equally likely to move, and which way they last did.

    Attributes:
        groups: of each place, uint8 [size]; 0 is the hottest.
        members: how many places each group has.
        newest: by what the model moved last, [size].
    """

    groups: npt.NDArray[np.uint8]
    members: npt.NDArray[np.int64]
    newest: Floats

    @classmethod
    def of(cls, public: Public, layout: Layout) -> Contexts | None:
        """From the last aggregates that both ends have; `None` where there are none, or nothing moved.

        Found once for each `Public`, however many messages it is asked for.

        Raises:
            CodecError: an aggregate is of another size than the vector.
        """
        return public.once((cls, layout, running()), lambda: cls._found(public.aggregates[:AGGREGATES], layout))

    @classmethod
    def _found(cls, known: tuple[Floats, ...], layout: Layout) -> Contexts | None:
        for aggregate in known:
            if aggregate.shape != (layout.size,):
                raise CodecError(
                    f"an aggregate of shape {aggregate.shape} for a vector of {layout.size} numbers; "
                    "nest codecs of arrays with Moment.select, of other places with Moment.without_public"
                )
        if not known or not 0 < layout.size < 2**31:
            return None
        matrices = [
            (begin, shape[0] if len(shape) > 1 else 1, math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape))
            for begin, shape, size in zip(layout.offsets, layout.shapes, layout.sizes, strict=True)
            if size
        ]
        moves = [np.ascontiguousarray(a, np.float32) for a in known]
        found = kernels("contexts").grouped(moves, matrices)
        return None if found is None else cls(found[0], found[1], moves[0])

    def signs(self, places: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """1 where the model last moved down, and what a sign's chance to be the same depends on, 0 to 4."""
        # By bits: a process that takes tiny numbers for zero (`torch.set_flush_denormal`) finds the same.
        last = self.newest.view(np.uint32)[places]
        still, down = last & _MAGNITUDE == 0, last > ~_MAGNITUDE
        heat = np.minimum(self.groups[places] >> 2, 3) + np.uint8(1)
        return down.astype(np.uint8), np.where(still, np.uint8(0), heat).astype(np.uint8)
