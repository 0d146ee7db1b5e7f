"""Terminals that vanish for a while and come back, around any answer to who is where.

Dead batteries, tunnels, closed laptops: what a map of radii does not show. A node that is away is out of coverage;
where it would be otherwise is asked of the answer inside.
"""

from __future__ import annotations

import numpy as np

from .arguments import Floats, Indices, positive, share_of
from .draws import Draws
from .located import Located
from .renewals import Renewals

__all__ = ["OutOfCoverage"]


class OutOfCoverage:
    """Each node is there and away in turn, independently of all others, for exponentially distributed times.

    At any time, from the first second on, a node is away with probability `share`.

    Args:
        located: who is where when not away.
        share: of the time a node is away in the long run, 0 to below 1.
        mean_s: how long an absence takes on average.
        seed: of the absences.

    Raises:
        ConfigError: a number out of range.
    """

    def __init__(self, located: Located, share: float, mean_s: float, seed: int) -> None:
        self.located = located
        self._share = share_of("share", share, whole=False)
        self._away_s = positive("mean_s", mean_s)
        self._there_s = self._away_s * (1 - share) / share if share > 0 else self._away_s  # 0: nobody is ever away
        everyone = np.arange(located.nodes)
        # Exponential times have no memory: drawing how it begins by the share is the steady state.
        self._begins_away = (Draws(seed, "absence-first").uniform(everyone, 0) < self._share).astype(np.int64)
        self._lasting = Draws(seed, "absence-lasting")
        self._turns = Renewals(located.nodes, self._lasting_s)

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cells."""
        return self.located.cells

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return self.located.nodes

    def where(self, time_s: float, before: Indices | None = None) -> Indices:
        """The cell of each node, -1 also for those that are away, int64 [nodes]."""
        where = self.located.where(time_s, before)
        if self._share == 0:
            return where
        turn, _ = self._turns.at(time_s)
        away = (turn + self._begins_away) % 2 == 1
        return np.where(away, -1, where)

    def _lasting_s(self, nodes: Indices, turns: Indices) -> Floats:
        mean_s = np.where((turns + self._begins_away[nodes]) % 2 == 1, self._away_s, self._there_s)
        return np.asarray(-mean_s * np.log1p(-self._lasting.uniform(nodes, turns)))
