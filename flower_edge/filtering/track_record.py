"""`TrackRecord`: how often a node's replies were let in and refused, and how far it can be relied on. A value.

Letters:
    s     1 for a reply that was let in, 0 for one that was refused
    r     reliability; 1 before the first reply, then r <- a r + (1 - a) s with a = 2^(-1 / half-life)

Source: [4] ¶69-70, reliability of the user terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import ConfigError

__all__ = ["HALF_LIFE", "TrackRecord"]

#: After so many replies what was before counts half.
HALF_LIFE = 10.0


@dataclass(frozen=True)
class TrackRecord:
    """What a filter remembers of one node.

    Attributes:
        admitted: replies that were let in.
        refused: how many were not, by code.
        reliability: 0 to 1, the share of those let in, recent ones counting more.
        last_round: cloud round of the last reply that was judged.

    >>> TrackRecord().with_reply("norm", round=1, half_life=1.0)
    TrackRecord(admitted=0, refused={'norm': 1}, reliability=0.5, last_round=1)
    """

    admitted: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    reliability: float = 1.0
    last_round: int = 0

    def with_reply(self, code: str | None, round: int, half_life: float = HALF_LIFE) -> TrackRecord:
        """After one more reply.

        Args:
            code: why it was refused; `None` where it was let in.
            round: the cloud round.
            half_life: in replies, above 0.

        Raises:
            ConfigError: a half-life of 0 or less.
        """
        if not half_life > 0.0:
            raise ConfigError(f"half_life = {half_life}: expected more than 0 replies")
        kept = 2.0 ** (-1.0 / half_life)
        reliability = kept * self.reliability + (1.0 - kept) * (code is None)
        if code is None:
            return replace(self, admitted=self.admitted + 1, reliability=reliability, last_round=round)
        refused = {**self.refused, code: self.refused.get(code, 0) + 1}
        return replace(self, refused=refused, reliability=reliability, last_round=round)

    @property
    def refusals(self) -> int:
        """How many were refused, for whatever reason."""
        return sum(self.refused.values())

    def forgiven(self, round: int, half_life: float = HALF_LIFE) -> float:
        """Reliability at a later round: what it lost comes back while nothing of it is judged, half in `half_life`.

        Without that, a rule such as `reliability >= 0.5` would shut a node out for good.

        >>> TrackRecord(reliability=0.5, last_round=10).forgiven(21)
        0.75
        """
        waited = max(0, round - self.last_round - 1)
        return float(1.0 - (1.0 - self.reliability) * 2.0 ** (-waited / half_life))

    def row(self, round: int, half_life: float = HALF_LIFE) -> dict[str, float]:
        """At this round under the names that rules use: `reliability`, `accepted`, `refused`, `rounds`."""
        return {
            "reliability": self.forgiven(round, half_life),
            "accepted": self.admitted,
            "refused": self.refusals,
            "rounds": self.admitted + self.refusals,
        }

    def to_tree(self) -> dict[str, Any]:
        """As plain values."""
        return {**vars(self), "refused": dict(self.refused)}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> TrackRecord:
        """Inverse of `to_tree`."""
        return cls(**{**tree, "refused": dict(tree["refused"])})
