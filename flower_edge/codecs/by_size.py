"""`BySize`: small arrays (biases, norms) get one codec, large ones another. Nothing here codes numbers itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .grouped import Group, Grouped
from .layout import Layout
from .nested import check_codec, check_number
from .vector_codec import VectorCodec

__all__ = ["BySize"]


@dataclass(frozen=True)
class BySize(Grouped):
    """All small arrays are one vector, all large ones another.

    Attributes:
        small: of arrays with fewer numbers than `threshold`: few bytes in all, and often the ones that matter.
        large: of the others.
        threshold: numbers, 1 or more.

    >>> from .half import Half
    >>> from .identity import Identity
    >>> BySize(small=Identity(), large=Half(), threshold=10).groups(Layout(("w", "b"), ((4, 5), (4,))))
    [Group(codec=0, arrays=(1,)), Group(codec=1, arrays=(0,))]
    """

    kind: ClassVar[str] = "by_size"

    small: VectorCodec
    large: VectorCodec
    threshold: int = 4096

    def __post_init__(self) -> None:
        check_codec(self.small, "small")
        check_codec(self.large, "large")
        check_number(self.threshold, "threshold", 1, 2**62, whole=True)

    def codecs(self) -> tuple[VectorCodec, ...]:
        """Small, large."""
        return self.small, self.large

    def groups(self, layout: Layout) -> list[Group]:
        """The small arrays, then the large ones."""
        small = tuple(i for i, size in enumerate(layout.sizes) if size < self.threshold)
        large = tuple(i for i, size in enumerate(layout.sizes) if size >= self.threshold)
        return [Group(codec, arrays) for codec, arrays in enumerate((small, large)) if arrays]
