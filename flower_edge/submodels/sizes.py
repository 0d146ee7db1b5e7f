"""How large a model a terminal is given: a share of its channels and so many of its layers. Values; nothing is sliced.

Sources: Diao, Ding, Tarokh, "HeteroFL", ICLR 2021 (width); Kim et al., "DepthFL", ICLR 2023 (depth).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError
from .choices import check_rate

__all__ = ["Depths", "Size"]


@dataclass(frozen=True)
class Size:
    """One size of a model.

    Attributes:
        rate: share of the channels of each group, above 0 and up to 1.
        depth: of the exits of the model so many, from 1 on; 0 is all of them, and the only one for a model without.

    Raises:
        ConfigError: a rate or a depth that is none.

    >>> Size(0.5)
    Size(rate=0.5, depth=0)
    """

    rate: float = 1.0
    depth: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", check_rate(self.rate))
        if type(self.depth) is not int or self.depth < 0:
            raise ConfigError(f"depth = {self.depth!r}: expected a whole number of exits, or 0 for all of them")

    @classmethod
    def of(cls, value: float | Size, what: str = "size") -> Size:
        """A size as it is, or a rate as the size of that width and all the depth there is.

        Raises:
            ConfigError: neither.

        >>> Size.of(0.25)
        Size(rate=0.25, depth=0)
        """
        return value if isinstance(value, Size) else cls(check_rate(value, what))

    def is_within(self, other: Size) -> bool:
        """Whether it is neither wider nor deeper than the other.

        >>> Size(0.5, 1).is_within(Size(1.0)), Size(0.5).is_within(Size(1.0, 2))
        (True, False)
        """
        return self.rate <= other.rate and (other.depth == 0 or 0 < self.depth <= other.depth)

    def __str__(self) -> str:
        """In words.

        >>> str(Size(0.5)), str(Size(0.25, 1))
        ('rate 0.5', 'rate 0.25 and depth 1')
        """
        return f"rate {self.rate:g}" + (f" and depth {self.depth}" if self.depth else "")


@dataclass(frozen=True)
class Depths:
    """Which arrays each depth of a model has, the shallowest first.

    Attributes:
        held: names of arrays by depth; each depth has all of the one before and more, and the last is the whole model.

    Raises:
        ConfigError: depths that do not grow, or none.

    >>> Depths((("a", "head1"), ("a", "head1", "b", "head2"))).names(1)
    ('a', 'head1')
    """

    held: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not self.held:
            raise ConfigError("a model has at least one depth, the whole of it")
        for shallow, deep in zip(self.held, self.held[1:], strict=False):
            if not set(shallow) < set(deep):
                raise ConfigError(f"depths have to grow, and {list(deep)[:4]} does not have all of {list(shallow)[:4]}")

    @property
    def last(self) -> int:
        """The whole model's depth."""
        return len(self.held)

    def names(self, depth: int) -> tuple[str, ...]:
        """Arrays of this depth; of 0, all.

        Raises:
            ConfigError: the model has fewer exits.
        """
        if not 0 <= depth <= self.last:
            raise ConfigError(f"depth = {depth}: the model has {self.last} exits; give 1 to {self.last}, or 0 for all")
        return self.held[depth - 1]

    def checked(self, size: Size) -> Size:
        """The size, with 0 for the depth of the whole model: one form for one size.

        Raises:
            ConfigError: the model has fewer exits.

        >>> Depths((("a",), ("a", "b"))).checked(Size(0.5, 2))
        Size(rate=0.5, depth=0)
        """
        self.names(size.depth)
        return Size(size.rate) if size.depth == self.last else size
