"""Which channels of a connection are kept: greedy backward selection, and the L1 norm as the baseline.

Functions of NumPy arrays. Nothing here knows a model or trains.

Letters, as in `reconstruction`; and
    G[i, j]   Gram matrix of what reads the channels: sum of w[o, i] w[o, j] over its outputs o   [channels, channels]
    R         moment of what least squares cannot tell of the channels from the kept ones

The error in what the readers compute is E|W (x - A x_K)|² = trace(G R), places of a kernel taken as independent.

Sources: greedy selection by the error in the next layer: Luo, Wu, Lin, "ThiNet", ICCV 2017, section 3.2 (forward there,
backward here); L1 norms: Li et al., "Pruning filters for efficient ConvNets", ICLR 2017, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import FringeError
from .reconstruction import checked_keep, checked_moment, least_squares_map, ridge_of

__all__ = ["ChannelRanking", "largest", "ranking"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ChannelRanking:
    """All channels in the order in which they are given up: what is kept at one width is kept at every larger one.

    Attributes:
        removed: channels, the first to go first.
        errors: trace(G R) after each removal; the last is that of keeping none.
        moment: S, for the map.
    """

    removed: tuple[int, ...]
    errors: tuple[float, ...]
    moment: Array

    def keep(self, count: int) -> tuple[int, ...]:
        """The `count` channels that stay last, increasing.

        Raises:
            FringeError: fewer than one, or more than there are.
        """
        if not 1 <= count <= len(self.removed):
            raise FringeError(f"keep {count} of {len(self.removed)} channels; use 1 .. {len(self.removed)}")
        return tuple(sorted(self.removed[len(self.removed) - count :]))

    def map(self, keep: Sequence[int]) -> Array:
        """A [channels, kept]; see `least_squares_map`."""
        return least_squares_map(self.moment, keep)

    def error(self, count: int) -> float:
        """Share of trace(G S) that is lost with `count` channels: 0 nothing, 1 all."""
        kept = len(self.keep(count))
        lost = 0.0 if kept == len(self.removed) else self.errors[len(self.removed) - kept - 1]
        return lost / self.errors[-1] if self.errors[-1] else 0.0


def ranking(moment: Array, gram: Array) -> ChannelRanking:
    """Greedy backward selection: gives up, one after the other, the channel whose loss adds least to trace(G R).

    With b_j the column of A = S[:, K] P, P = S[K, K]⁻¹, of channel j, giving up j turns R into R + b_j b_jᵀ / P[j, j];
    so its price is b_jᵀ G b_j / P[j, j].

    Args:
        moment: S [channels, channels].
        gram: G [channels, channels].

    Raises:
        FringeError: shapes that differ.

    >>> S = np.array([[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 9.0]])  # channel 1 is half of channel 0
    >>> ranking(S, np.eye(3)).keep(2)
    (0, 2)
    """
    S, G = checked_moment(moment), checked_moment(gram)
    if S.shape != G.shape:
        raise FringeError(f"a moment of {len(S)} channels and a Gram matrix of {len(G)}; give those of one connection")
    ridge = ridge_of(S)
    K = np.arange(len(S))
    removed: list[int] = []
    errors: list[float] = []
    lost = 0.0
    while len(K):
        P = np.linalg.inv(S[np.ix_(K, K)] + ridge * np.eye(len(K)))
        B = S[:, K] @ P
        prices = np.einsum("cj,cd,dj->j", B, G, B, optimize=True) / np.diag(P)
        worst = int(np.argmin(prices))
        lost += float(prices[worst])
        removed.append(int(K[worst]))
        errors.append(lost)
        K = np.delete(K, worst)
    return ChannelRanking(tuple(removed), tuple(errors), S)


def largest(norms: Sequence[float] | Array, count: int) -> tuple[int, ...]:
    """The `count` channels of the largest norms, increasing; of equal ones the first.

    Raises:
        FringeError: fewer than one, more than there are, or a norm that is not finite.

    >>> largest([0.5, 2.0, 1.0], 2)
    (1, 2)
    """
    values = np.asarray(norms, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise FringeError(f"norms of shape {values.shape}; expected one finite number per channel")
    if not 1 <= count <= len(values):
        raise FringeError(f"keep {count} of {len(values)} channels; use 1 .. {len(values)}")
    return tuple(checked_keep(sorted(np.argsort(-values, kind="stable")[:count].tolist()), len(values)))
