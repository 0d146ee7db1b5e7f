"""Which version to serve when links change: a smaller one at once, a better one after a while. `Adapting` decides.

    goals missed now             the best version that meets them; where there is none, compress on
    a version of better score    back to it once it would have met the goals with a margin, so many times in a row

The margin and the patience are a hysteresis: a link that swings about the goal does not swap versions to and fro.
Nothing here measures or swaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import FringeError
from .goals import Goals
from .history import Version
from .links import Link, inference

__all__ = ["Adapting", "Decision"]


@dataclass(frozen=True)
class Decision:
    """What to do.

    Attributes:
        what: "stay", "swap" or "compress".
        version: to be current now; with "compress" the one to go on from.
        seen: how many times in a row the same better version would have done; hand it in the next time.
    """

    what: Literal["stay", "swap", "compress"]
    version: int
    seen: int = 0


@dataclass(frozen=True)
class Adapting:
    """The rule.

    Attributes:
        margin: a better version has to be faster than the goal by this share of it.
        patience: how many times in a row.

    Raises:
        FringeError: a margin outside [0, 1), or a patience below 1.
    """

    margin: float = 0.2
    patience: int = 3

    def __post_init__(self) -> None:
        if not 0.0 <= self.margin < 1.0 or self.patience < 1:
            raise FringeError(
                f"margin = {self.margin} and patience = {self.patience}: expected 0 to below 1, and 1 or more"
            )

    def decide(
        self, versions: Sequence[Version], current: int, links: Sequence[Link], goals: Goals, seen: int = 0
    ) -> Decision:
        """What to do on links as they are now.

        Args:
            versions: all that there are; the first is the uncompressed one.
            current: number of the one that is served.
            links: of the connections.
            goals: see there.
            seen: of the decision before this one.

        Raises:
            FringeError: no version of that number.
        """
        by_number = {version.number: version for version in versions}
        if current not in by_number:
            raise FringeError(f"version {current}: expected one of {', '.join(map(str, by_number))}")
        whole = versions[0]
        before_bytes, before_s = sum(whole.sizes_bytes), _latency_s(whole, links)

        def met(version: Version, margin: float = 0.0) -> bool:
            now_s = _latency_s(version, links)
            limit_s = goals.most_seconds(before_s)
            return sum(version.sizes_bytes) <= goals.most_bytes(before_bytes) and now_s <= limit_s * (1.0 - margin)

        def quality(version: Version) -> tuple[float, int]:
            # Of equals the one that sends more: it is nearer to the model that was trained.
            return goals.judge.signed(version.score), sum(version.sizes_bytes)

        now = by_number[current]
        if not met(now):
            fit = [version for version in versions if met(version)]
            if fit:
                return Decision("swap", max(fit, key=quality).number)
            return Decision("compress", min(versions, key=lambda version: _latency_s(version, links)).number)
        better = [
            version
            for version in versions
            if goals.judge.better(version.score, now.score) and met(version, self.margin)
        ]
        if not better:
            return Decision("stay", current)
        if seen + 1 < self.patience:
            return Decision("stay", current, seen + 1)
        return Decision("swap", max(better, key=quality).number)


def _latency_s(version: Version, links: Sequence[Link]) -> float:
    return inference(version.sizes_bytes, links, version.compute_s).latency_s
