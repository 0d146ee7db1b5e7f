"""What was really sent and computed. Measured bits and seconds only; nothing here predicts or pays.

Bits were counted from bytes that left; seconds are wall or virtual and never add to each other, so there is
no total. `a + b` is a ledger, `Ledger()` the empty one. Credits live elsewhere, in the reward book.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from .errors import ConfigError

__all__ = ["Ledger"]


@dataclass(frozen=True)
class Ledger:
    """Traffic and time of some part of a run.

    Attributes:
        down_bits: from a server towards its nodes.
        up_bits: from nodes towards their server.
        peer_bits: between neighbours.
        down_messages, up_messages: how many messages those bits travelled in.
        failed_messages: messages answered by an error, or by nothing.
        wall_s: seconds of a real clock.
        virtual_s: seconds of the virtual clock.

    Raises:
        ConfigError: an amount below 0 or not finite.

    >>> Ledger(up_bits=672, up_messages=1) + Ledger(up_bits=8, wall_s=0.5)
    Ledger(down_bits=0, up_bits=680, peer_bits=0, down_messages=0, up_messages=1, failed_messages=0, \
wall_s=0.5, virtual_s=0.0)
    """

    down_bits: int = 0
    up_bits: int = 0
    peer_bits: int = 0
    down_messages: int = 0
    up_messages: int = 0
    failed_messages: int = 0
    wall_s: float = 0.0
    virtual_s: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            amount = getattr(self, field.name)
            if not 0 <= amount < float("inf"):
                raise ConfigError(f"{field.name} = {amount}: a ledger holds measured amounts, finite and not below 0")

    def __add__(self, other: Ledger) -> Ledger:
        if not isinstance(other, Ledger):
            return NotImplemented
        return Ledger(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @classmethod
    def total(cls, parts: Iterable[Ledger]) -> Ledger:
        """The sum of any number of ledgers.

        >>> Ledger.total([]) == Ledger()
        True
        """
        return sum(parts, start=cls())

    def as_dict(self) -> dict[str, float]:
        """Plain numbers by name, for metrics and checkpoints."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
