"""Channels that are not sent, guessed from those that are: least squares, without training.

Functions of NumPy arrays. Nothing here knows a model; `pruning_torch` folds the map into the layer that reads.

Letters:
    S[i, j]   second moment of channels i and j   [channels, channels]
    K         channels that are kept
    A         from kept channels to all of them   [channels, kept]

Source: He, Zhang, Sun, "Channel pruning for accelerating very deep neural
networks", ICCV 2017, section 3 (there the weights are refitted; here the map is, and folded into them).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..errors import FringeError

__all__ = ["checked_keep", "checked_moment", "least_squares_map", "residual_moment", "ridge_of", "second_moment"]

Array = npt.NDArray[np.float64]

#: Of the mean second moment, added to each channel's own: channels that are always 0 can then be inverted too.
_RIDGE = 1e-7


def second_moment(activations: npt.ArrayLike, axis: int = 1) -> Array:
    """S = E[x xᵀ] over samples and places.

    Not centred: the map has no constant, as a constant cannot be folded into a layer that pads or has no bias.

    Args:
        activations: [samples, ...], channels on `axis`.
        axis: of the channels.

    Returns:
        [channels, channels], symmetric.

    Raises:
        FringeError: no samples, no such axis, or a number that is not finite.

    >>> second_moment([[1.0, 0.0], [3.0, 2.0]])
    array([[5., 3.],
           [3., 2.]])
    """
    x = np.asarray(activations)
    if x.ndim < 2 or not -x.ndim < axis < x.ndim or axis == 0:
        raise FringeError(
            f"activations of shape {x.shape} with channels on axis {axis}; give [samples, ...] and an axis after the "
            "first"
        )
    flat = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]).astype(np.float64)
    if not flat.size:
        raise FringeError(f"activations of shape {x.shape} are empty; give one sample or more")
    if not np.isfinite(flat).all():
        raise FringeError("activations hold NaN or infinity; look at the model or the samples they came from")
    return np.asarray(flat.T @ flat / len(flat))


def least_squares_map(moment: Array, keep: Sequence[int]) -> Array:
    """A = S[:, K] S[K, K]⁻¹: the best guess of all channels that is linear in the kept ones.

    Rows of kept channels are those of the identity, exactly.

    Args:
        moment: S [channels, channels].
        keep: K, increasing.

    Returns:
        float64 [channels, kept].

    Raises:
        FringeError: channels that are not there, not increasing, or none.

    >>> least_squares_map(np.array([[4.0, 2.0], [2.0, 1.0]]), [0]).round(3)
    array([[1. ],
           [0.5]])
    """
    S = checked_moment(moment)
    K = checked_keep(keep, len(S))
    own = S[np.ix_(K, K)] + ridge_of(S) * np.eye(len(K))
    A = np.linalg.solve(own, S[K, :]).T
    A[K] = np.eye(len(K))
    return np.asarray(A)


def residual_moment(moment: Array, keep: Sequence[int]) -> Array:
    """R = E[(x - A x_K)(x - A x_K)ᵀ]: what least squares cannot tell, 0 where channels are kept."""
    S, A = checked_moment(moment), least_squares_map(moment, keep)
    B = np.eye(len(S))
    B[:, list(keep)] -= A
    return np.asarray(B @ S @ B.T)


def checked_keep(keep: Sequence[int], channels: int) -> list[int]:
    """As a list.

    Raises:
        FringeError: none, one that is not there, or not in increasing order.

    >>> checked_keep((0, 3), 4)
    [0, 3]
    """
    try:
        kept = [operator.index(channel) for channel in keep]
    except TypeError as error:
        raise FringeError(f"keep = {keep!r:.120}; give the numbers of channels, such as (0, 2, 5)") from error
    if not kept or kept[0] < 0 or kept[-1] >= channels or any(a >= b for a, b in pairwise(kept)):
        raise FringeError(f"keep = {kept}; give one or more of 0 .. {channels - 1}, each once, in increasing order")
    return kept


def checked_moment(moment: Array) -> Array:
    """As float64.

    Raises:
        FringeError: not square, empty, or a number that is not finite.
    """
    S = np.asarray(moment, dtype=np.float64)
    if S.ndim != 2 or S.shape[0] != S.shape[1] or not len(S) or not np.isfinite(S).all():
        raise FringeError(f"a second moment of shape {S.shape}; expected finite [channels, channels], of second_moment")
    return S


def ridge_of(S: Array) -> float:
    """What is added to each channel's own moment before it is inverted."""
    return _RIDGE * float(np.trace(S)) / len(S) or 1.0
