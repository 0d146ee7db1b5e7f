"""`Norm`: how far a reply has moved, against how far the others have. The cheapest test there is; nothing is evaluated.

Letters:
    r[i]    ||u[i]|| over the median of the others' norms, on the coordinates they share

Source: median-based norm bounds as in Z. Sun, P. Kairouz, A. T. Suresh, H. B. McMahan, "Can you really backdoor
federated learning?", 2019; [4] ¶69.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..updates.regions import regions
from ..updates.sums import finite, squared_norm
from ..updates.update import Update
from .judging import Judgement

__all__ = ["Norm", "not_finite", "ratios_to_others"]

#: Fewer coordinates than this say little, where a model is cut into regions.
_SMALL = 256


def ratios_to_others(norms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Each norm over the median of the other ones, float64 [replies]; NaN where that median is 0.

    >>> ratios_to_others(np.array([1.0, 2.0, 3.0, 20.0])).tolist()
    [0.3333333333333333, 0.6666666666666666, 1.5, 10.0]
    """
    medians = np.array([np.median(np.delete(norms, i)) for i in range(len(norms))])
    return np.asarray(np.divide(norms, medians, out=np.full(len(norms), math.nan), where=medians > 0.0))


@dataclass(frozen=True)
class Norm:
    """Refuses, or shortens, what moved much farther than the others, and refuses what hardly moved at all.

    Args:
        most: so many times the median of the others' norms is still good; `inf` for no bound.
        least: below so many times that median a node has not trained; 0 for no bound.
        then: what becomes of a reply that moved too far: `refuse`, or `clip` to the bound.
        least_replies: with fewer to compare, the test abstains.

    Replies to parts of the model are compared on the coordinates they share. Where nobody else moved there is nothing
    to compare with, and the test abstains.

    Does not help against attackers that are as long as the others, or when they are half of the replies or more.

    Raises:
        ConfigError: an argument out of its range.
    """

    most: float = 5.0
    least: float = 1e-3
    then: Literal["refuse", "clip"] = "refuse"
    least_replies: int = 3

    def __post_init__(self) -> None:
        if not self.most > 1.0:
            raise ConfigError(f"Norm(most={self.most}): expected more than 1, times the median of the others' norms")
        if not 0.0 <= self.least < 1.0:
            raise ConfigError(f"Norm(least={self.least}): expected 0 or more and below 1, times that median")
        if self.then not in ("refuse", "clip"):
            raise ConfigError(f"Norm(then={self.then!r}): expected 'refuse' or 'clip'")
        if self.least_replies < 3:
            raise ConfigError(
                f"Norm(least_replies={self.least_replies}): two cannot tell who of them is wrong; 3 or more"
            )

    def judge(self, updates: Sequence[Update], rng: np.random.Generator) -> Judgement:
        """As `Judge.judge`; measures `norm`, over the median of the others' (the largest of its regions).

        A norm shows what is not finite as well, so replies that were not looked at before may come.
        """
        norms = [math.sqrt(squared_norm(update)) for update in updates]
        refused = {
            place: ("not-finite", f"array {name!r} has NaN or infinity")
            for place, norm in enumerate(norms)
            if not math.isfinite(norm) and (name := not_finite(updates[place]))
        }
        left = [place for place in range(len(updates)) if place not in refused]
        shared = regions([updates[place] for place in left], least_holders=self.least_replies)
        large = [region for region in shared if region.size >= _SMALL] or shared
        found: dict[int, list[float]] = {}
        for region in large:
            holders = [left[place] for place in region.holders]
            own = norms if len(shared) == 1 and len(holders) == len(left) else None
            lengths = [
                math.sqrt(squared_norm(updates[place], region)) if own is None else own[place] for place in holders
            ]
            for place, ratio in zip(holders, ratios_to_others(np.array(lengths)).tolist(), strict=True):
                found.setdefault(place, []).append(ratio)
        clipped: dict[int, float] = {}
        measured: dict[int, dict[str, float]] = {}
        for place, all_ratios in sorted(found.items()):
            known = [ratio for ratio in all_ratios if not math.isnan(ratio)]
            if not known:
                continue
            longest = max(known)
            measured[place] = {"norm": longest}
            far = f"moved {longest:.3g} times as far as the median of the others"
            if longest > self.most and self.then == "clip" and math.isfinite(longest):
                clipped[place] = self.most / longest
            elif longest > self.most:
                refused[place] = ("norm", f"{far}; at most {self.most:g}")
            elif longest < self.least:
                refused[place] = ("norm", f"{far}; at least {self.least:g}, or it has not trained")
        return Judgement(dict(sorted(refused.items())), measured, clipped)


def not_finite(update: Update) -> str:
    """The first of its arrays with NaN or infinity; empty where there is none."""
    return next((name for name, array in update.arrays.items() if not finite(array)), "")
