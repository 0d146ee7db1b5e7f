"""`RuleReach`: how few bytes compression leaves at a cut, by rules of thumb. Nothing here compresses.

    quantisation    8 bits per number, which hardly ever cost anything
    pruning         4 bits, and half of the channels
    distillation    a thirty-second of the bytes of a picture, a sixteenth of a sequence or a vector, and no less than
                    the smallest pair

Where pruning and distillation are both allowed it is a tenth less: what one cannot do the other often can. The head of
a frame stays in all of them. What was measured beside these numbers is in docs/fringe_automatic.md; `automatic_learned`
has others, from what was recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .automatic_values import CutPlace
from .wire import HEADER_BYTES

__all__ = ["RuleReach"]

_TRIALS: Final = {"quantisation": 3.0, "pruning": 6.0, "distillation": 6.0}


@dataclass(frozen=True)
class RuleReach:
    """See the module.

    Attributes:
        pair_shrink: by kind of tensor.

    >>> place = CutPlace(1, "relu", "picture", 16, 16384, 65560, 16472, 8280, 32, True)
    >>> [round(RuleReach().least_bytes(place, 0.2, some, 1, 0.01)) for some in (
    ...     (), ("quantisation",), ("quantisation", "pruning"), ("quantisation", "distillation"))]
    [65560, 16472, 4152, 2072]
    """

    pair_shrink: tuple[tuple[str, float], ...] = (("picture", 32.0), ("sequence", 16.0), ("vector", 16.0))

    @property
    def depths(self) -> tuple[int, ...]:
        """See `Reach`."""
        return ()

    def least_bytes(self, place: CutPlace, share: float, methods: Sequence[str], depth: int, drop: float) -> float:
        """See `Reach`; share, depth and drop make no difference."""
        del share, depth, drop
        found = [float(place.size_bytes)]
        if "quantisation" in methods:
            found.append(place.eight_bytes)
        if "pruning" in methods and place.prunable and place.channels > 1:
            sent = place.four_bytes if "quantisation" in methods else place.size_bytes
            found.append(HEADER_BYTES + (sent - HEADER_BYTES) / 2)
        if "distillation" in methods and place.pair_bytes is not None:
            shrink = dict(self.pair_shrink).get(place.kind, 8.0)
            found.append(max(place.pair_bytes, HEADER_BYTES + (place.size_bytes - HEADER_BYTES) / shrink))
        least = min(found)
        both = {"pruning", "distillation"} <= {one for one in methods if place.allows(one)}
        return HEADER_BYTES + 0.9 * (least - HEADER_BYTES) if both and least > HEADER_BYTES else least

    def trials(self, methods: Sequence[str]) -> float:
        """See `Reach`."""
        return sum(_TRIALS[method] for method in methods)
