"""`LowerEdgeRounds`: fewer edge rounds per cloud round when the edges drift apart. A rule, and what it remembers.

HierFAVG's own remedy for edges with unlike data is a smaller κ2; the divergence ‖w_e − w̄‖ tells when it is needed.
Nothing here measures it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flower_edge.errors import ConfigError

__all__ = ["LowerEdgeRounds"]


@dataclass(frozen=True)
class LowerEdgeRounds:
    """Halves κ2 when the mean divergence has grown by a factor since the lowest it was at this κ2.

    Args:
        growth: the factor, above 1.
        least: κ2 is not lowered below this.

    Raises:
        ConfigError: an argument out of its range.

    >>> rule = LowerEdgeRounds(growth=1.5)
    >>> rule.next(10, 1.0, None)
    (10, 1.0)
    >>> rule.next(10, 1.6, 1.0)
    (5, None)
    """

    growth: float = 1.5
    least: int = 1

    def __post_init__(self) -> None:
        if not self.growth > 1:
            raise ConfigError(f"growth = {self.growth}: expected more than 1")
        if type(self.least) is not int or self.least < 1:
            raise ConfigError(f"least = {self.least}: a whole number, at least 1")

    def next(self, edge_rounds: int, found: float, lowest: float | None) -> tuple[int, float | None]:
        """κ2 of the next cloud round and the divergence to compare with, from this round's and the lowest so far.

        A divergence that is no number, or none at all, says nothing and is passed over.
        """
        if not math.isfinite(found) or found <= 0:
            return edge_rounds, lowest
        if lowest is not None and found > self.growth * lowest and edge_rounds > self.least:
            # What is usual at the new κ2 has to be seen first.
            return max(self.least, edge_rounds // 2), None
        return edge_rounds, found if lowest is None else min(found, lowest)
