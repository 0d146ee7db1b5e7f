"""Reserved rates on shared links: admitted or refused, kept, released; and how often transfers were late all the same.

The draft [3] knows what a cut sends before it is sent, so the rate b = bits / (T_trans - delay) can be reserved. A
`Reservations` is state that is changed by its methods and read by `state_dict`. Nothing here sends or limits a rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import SplitError

__all__ = ["Reservations", "jitter_bound", "needed_bps", "violation_rate"]


def needed_bps(bits: float, within_s: float, delay_s: float = 0.0, jitter: float = 0.0) -> float:
    """b: the rate to reserve so that bits arrive in time, even when it falls to 1 - jitter of itself.

    Args:
        bits: of the transfer, known in advance.
        within_s: T_trans.
        delay_s: before the last bit arrives, however fast they follow one another.
        jitter: 0 .. below 1.

    Returns:
        bit/s; infinite where the delay alone takes too long.

    Raises:
        SplitError: a jitter outside, or bits below 0.

    >>> needed_bps(1_000_000, within_s=0.06, delay_s=0.01)
    20000000.0
    >>> needed_bps(1_000_000, within_s=0.06, delay_s=0.01, jitter=0.5)
    40000000.0
    """
    if not 0.0 <= jitter < 1.0 or bits < 0.0:
        raise SplitError(f"{bits!r} bits with jitter {jitter!r}; expected 0 or more, and from 0 to below 1")
    if bits == 0.0:
        return 0.0
    return bits / (within_s - delay_s) / (1.0 - jitter) if within_s > delay_s else math.inf


def jitter_bound(kept: Iterable[float], quantile: float = 0.99) -> float:
    """The jitter that so many of the measured transfers kept to.

    Args:
        kept: the rate each transfer got over what was reserved, as in `History.kept`; above 1 counts as 1.
        quantile: of the transfers.

    Returns:
        0 .. below 1; 0 where nothing was measured.

    >>> round(jitter_bound([1.0, 0.9, 0.75], quantile=1.0), 9)
    0.25
    """
    found = [min(1.0, max(0.0, one)) for one in kept]
    if not found:
        return 0.0
    lowest = float(np.quantile(found, 1.0 - quantile, method="lower"))
    return min(1.0 - lowest, 0.99)


def violation_rate(took_s: Sequence[float], within_s: float | Sequence[float]) -> float:
    """The part of measured transfers that took longer than they were to.

    A millionth of a budget is taken for rounding.

    >>> violation_rate([0.05, 0.06, 0.07, 0.01], within_s=0.06)
    0.25
    """
    took = np.asarray(took_s, dtype=np.float64)
    if took.size == 0:
        return 0.0
    return float((took > np.asarray(within_s) * (1.0 + 1e-6)).mean())


class Reservations:
    """Who holds how much of which link.

    Args:
        links: name to bit/s.
        headroom: part of every link that is never given away, 0 .. below 1.

    Raises:
        SplitError: a rate that is not above 0, or a headroom outside.

    >>> held = Reservations({"ap": 10e6})
    >>> held.admit("camera", {"ap": 6e6}), held.admit("truck", {"ap": 5e6}), held.left_bps("ap")
    (True, False, 4000000.0)
    >>> held.release("camera"); held.left_bps("ap")
    10000000.0
    """

    def __init__(self, links: Mapping[str, float], *, headroom: float = 0.0) -> None:
        if not 0.0 <= headroom < 1.0:
            raise SplitError(f"headroom = {headroom!r}; expected a part from 0 to below 1")
        for name, rate_bps in links.items():
            if not rate_bps > 0.0:
                raise SplitError(f"link {name!r} has {rate_bps!r} bit/s; expected a rate above 0")
        self.links = dict(links)
        self.headroom = headroom
        self._held: dict[str, dict[str, float]] = {}

    def admit(self, who: str, asked: Mapping[str, float]) -> bool:
        """Reserve rates on links, all of them or none; what this holder had before is replaced if they are admitted.

        Raises:
            SplitError: a link nobody knows, or a rate that is none.
        """
        for name, rate_bps in asked.items():
            self._known(name)
            if not rate_bps >= 0.0:
                raise SplitError(f"{who} asks {rate_bps!r} bit/s of link {name!r}; expected 0 or more")
        for name, rate_bps in asked.items():
            # The sum itself is compared: what is left, rounded, could be a little too much.
            if math.fsum([*self._given(name, without=who), rate_bps]) > self.links[name] * (1.0 - self.headroom):
                return False
        self._held[who] = {name: float(rate_bps) for name, rate_bps in asked.items()}
        return True

    def release(self, who: str) -> None:
        """Give back what somebody holds; nothing, where it holds nothing."""
        self._held.pop(who, None)

    def held_bps(self, who: str) -> dict[str, float]:
        """What somebody holds, by link."""
        return dict(self._held.get(who, {}))

    def left_bps(self, name: str, *, without: str | None = None) -> float:
        """What of a link may still be given away.

        Args:
            name: of the link.
            without: as if this holder held nothing.

        Raises:
            SplitError: a link nobody knows.
        """
        self._known(name)
        return max(0.0, self.links[name] * (1.0 - self.headroom) - math.fsum(self._given(name, without=without)))

    def _given(self, name: str, *, without: str | None) -> list[float]:
        # Summed anew each time, without rounding in between: a running total would not come back to where it was.
        return [held.get(name, 0.0) for who, held in self._held.items() if who != without]

    def _known(self, name: str) -> None:
        if name not in self.links:
            raise SplitError(f"no link is called {name!r}; there are {', '.join(sorted(self.links)) or 'none'}")

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {
            "links": dict(self.links),
            "headroom": self.headroom,
            "held": {k: dict(v) for k, v in self._held.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Reservations:
        """Inverse of `state_dict`."""
        made = cls(state["links"], headroom=state["headroom"])
        made._held = {who: dict(held) for who, held in state["held"].items()}
        return made
