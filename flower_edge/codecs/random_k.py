"""`RandomK`: some numbers of a vector at places that both ends draw alike, so that no byte says where.

The vector is cut into k runs of nearly equal length; from each one number is drawn and multiplied by the run's length,
so that on average over rounds what is decoded is what was encoded. Nothing here looks at the numbers: what it leaves
out is as large as what it sends, 1 / fraction - 1 times the vector's energy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ..errors import CodecError
from .draws import key_of
from .identity import Identity
from .kernels import kernels
from .layout import Floats, Layout, refuse_non_finite
from .moment import Moment
from .nested import check_codec, check_number
from .sparse import Sparse, dense
from .support import Places
from .vector_codec import State, VectorCodec

__all__ = ["RandomK"]

#: Half of float32's largest: what is scaled may have been rounded up by the codec of values.
_MOST = float(np.finfo(np.float32).max) / 2


@dataclass(frozen=True)
class RandomK(VectorCodec):
    """Keeps a `fraction` of a vector's numbers, drawn anew in each round.

    Attributes:
        fraction: of the numbers, above 0, at most 1; one number at least is kept.
        values: the codec of what is kept, in the order of places; it must remember nothing.
        seed: of the places.
        same: the same places for all nodes of a round: payloads can then be summed, and a place that nobody sends waits
            for another round. Without it each node has its own, and the mean over nodes covers more.

    >>> codec = RandomK(0.5)
    >>> layout = Layout.flat(2)
    >>> data, _ = codec.pack(np.array([3, 3], np.float32), layout, {}, Moment())
    >>> len(data), codec.unpack(memoryview(data), layout, {}, Moment())[0].values
    (4, array([6.], dtype=float32))
    """

    kind: ClassVar[str] = "random_k"

    fraction: float
    values: VectorCodec = field(default_factory=Identity)
    seed: int = 0
    same: bool = False

    def __post_init__(self) -> None:
        check_number(self.fraction, "fraction", 0.0, 1.0)
        if not self.fraction > 0:
            raise CodecError(f"fraction = {self.fraction}: expected more than 0, such as 0.1 for one in ten")
        check_codec(self.values, "values")
        if self.values.start(Layout.flat(1)):
            raise CodecError(
                f"values = {self.values!r}: it remembers what came before, but each round draws other places"
            )
        check_number(self.seed, "seed", 0, 2**63 - 1, whole=True)
        if not isinstance(self.same, bool):
            raise CodecError(f"same = {self.same!r}: expected True or False")

    @property
    def unbiased(self) -> bool:
        """If the codec of the values is."""
        return self.values.unbiased

    @property
    def linear(self) -> bool:
        """If all nodes draw the same places, and the codec of the values is."""
        return self.same and self.values.linear

    def places(self, size: int, at: Moment) -> tuple[Places, Floats]:
        """What is sent of a vector of that size: sorted places, and what each number stands for.

        >>> places, lengths = RandomK(0.25).places(8, Moment(round=3))
        >>> lengths, bool(0 <= places[0] < 4 <= places[1] < 8)
        (array([4., 4.], dtype=float32), True)
        """
        count = min(size, max(1, round(self.fraction * size)))
        seeds = [self.seed, at.round] if self.same else at.seeds(self.seed)
        places, lengths = kernels("select").strata(key_of(seeds), count, size)
        return places, lengths.astype(np.float32)

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """Values only."""
        refuse_non_finite(v, layout)
        places, lengths = self.places(layout.size, at)
        kept = v[places]
        if float(np.abs(kept).max(initial=0.0)) * float(lengths.max(initial=0.0)) > _MOST:
            raise CodecError(
                f"{np.abs(kept).max()} times {lengths.max():g}, for each number stands for so many, is beyond float32; "
                "has the training diverged? lower the learning rate, or clip updates"
            )
        return self.values.pack(kept, Layout.flat(places.size), {}, at.without_public())[0], state

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Sparse, State]:
        """Sparse; the places are drawn again."""
        places, lengths = self.places(layout.size, at)
        values, _ = self.values.unpack(data, Layout.flat(places.size), {}, at.without_public())
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = dense(values) * lengths
        if not np.isfinite(scaled).all():
            raise CodecError("a value that is no finite number once it is scaled; scale the update down, or clip it")
        return Sparse(places, scaled, layout.size), state
