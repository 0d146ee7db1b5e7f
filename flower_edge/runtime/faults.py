"""Scripted trouble: which node fails, keeps silent, is late or drops out, and at which of its messages.

A script is a plain list of `Fault`s handed to `LocalGrid(script=...)`. Nothing here is random: draw your faults
from a seeded generator and the run repeats exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError

__all__ = ["Fault", "FaultScript"]

Kind = Literal["raise", "silent", "drop-out", "late"]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong at one node.

    Attributes:
        node: the node's partition id, its place in the list given to `LocalGrid`.
        kind: `raise` answers with an error and `reason`; `silent` never answers; `drop-out` takes the node off the
            grid, its message answered by Flower's "node unavailable"; `late` answers after `delay_s`.
        at: which of the node's messages, from 1; `None` for every one.
        delay_s: for `late`, seconds of the grid's clock before the reply can be pulled.
        reason: text of the error reply.

    >>> Fault(node=3, kind="raise", at=2, reason="disk full").matches(3, 2)
    True
    """

    node: int
    kind: Kind
    at: int | None = None
    delay_s: float = 0.0
    reason: str = "scripted failure"

    def __post_init__(self) -> None:
        if self.kind not in ("raise", "silent", "drop-out", "late"):
            raise ConfigError(f"fault kind {self.kind!r}: expected 'raise', 'silent', 'drop-out' or 'late'")
        if self.at is not None and self.at < 1:
            raise ConfigError(f"fault at = {self.at}: messages of a node are counted from 1")
        if self.kind == "late" and not self.delay_s > 0:
            raise ConfigError(f"fault delay_s = {self.delay_s}: a late reply needs a delay above 0 s")

    def matches(self, node: int, nth: int) -> bool:
        """Whether this fault meets the `nth` message of `node`."""
        return self.node == node and self.at in (None, nth)


@dataclass(frozen=True)
class FaultScript:
    """The faults of a run; the first that matches is the one that happens."""

    faults: tuple[Fault, ...] = ()

    @classmethod
    def of(cls, faults: Iterable[Fault]) -> FaultScript:
        """A script from any iterable of faults."""
        return cls(tuple(faults))

    def at(self, node: int, nth: int) -> Fault | None:
        """What happens at the `nth` message of `node`, if anything."""
        return next((fault for fault in self.faults if fault.matches(node, nth)), None)
