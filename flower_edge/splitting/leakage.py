"""What tensors at a cut give away of the inputs: distance correlation, and noise against it. NumPy only.

    a[i, j] = |x_i - x_j|, b[i, j] = |z_i - z_j|;  A, B: each row's and column's mean taken off, the mean of all put on
    dCov^2 = mean of A B         dCor = sqrt(dCov^2(x, z) / sqrt(dCov^2(x, x) dCov^2(z, z)))

It is 0 where inputs and tensors are independent, 1 where one is a shifted, scaled, turned copy of the other. It is a
gauge, not a proof: a low value does not say that no attack rebuilds an input, nor does noise here bound what is learnt.

Letters: n samples; x inputs [n, ...]; z tensors at a cut [n, ...].

Sources: Székely, Rizzo, Bakirov, "Measuring and testing dependence by correlation of distances", Annals of Statistics
2007; the corrected one is Székely, Rizzo, "The distance correlation t-test of independence in high dimension", Journal
of Multivariate Analysis 2013.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import DataError

__all__ = ["cut_noise", "distance_correlation", "gauge"]

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
#: Tells what is drawn here from what others draw with the same seed, step and number.
_PURPOSE: Final = 0x6C65616B


def distance_correlation(x: Array, z: Array | Sequence[Array], *, corrected: bool = False) -> float:
    """How much some tensors depend on the inputs, 0 to 1.

    Of few samples with many numbers the plain one is near 1 even of independent ones; the corrected one is not, and is
    the one to compare cuts by. Memory grows with the square of the samples: some hundreds are plenty.

    Args:
        x: [n, ...].
        z: [n, ...], or several that cross a cut together.
        corrected: without the bias of few samples; below 0 it is given as 0.

    Raises:
        DataError: too few samples (2, corrected 4), not as many of each, or a value that is not finite.

    >>> x = np.arange(12.0).reshape(6, 2)
    >>> round(distance_correlation(x, 7 - 3 * x), 6)
    1.0
    """
    tensors = [np.asarray(z)] if isinstance(z, np.ndarray) else [np.asarray(tensor) for tensor in z]
    least = 4 if corrected else 2
    if len(x) < least or not tensors or any(len(tensor) != len(x) for tensor in tensors):
        lengths = [len(tensor) for tensor in tensors]
        raise DataError(f"{len(x)} inputs and tensors of {lengths} samples; expected the same, at least {least}")
    return _correlation(_distances([np.asarray(x)]), _distances(tensors), corrected)


def gauge(inputs: Array, tensors_by_cut: Mapping[int, Sequence[Array]], *, corrected: bool = True) -> dict[int, float]:
    """Distance correlation of inputs with what crosses each cut, by cut.

    Raises:
        DataError: see `distance_correlation`.
    """
    least = 4 if corrected else 2
    for cut, tensors in tensors_by_cut.items():
        if len(inputs) < least or not tensors or any(len(tensor) != len(inputs) for tensor in tensors):
            lengths = [len(tensor) for tensor in tensors]
            raise DataError(
                f"cut {cut}: {len(inputs)} inputs and tensors of {lengths} samples; expected the same, at least {least}"
            )
    own = _distances([np.asarray(inputs)])
    return {
        cut: _correlation(own, _distances([np.asarray(tensor) for tensor in tensors]), corrected)
        for cut, tensors in tensors_by_cut.items()
    }


def cut_noise(tensors: Sequence[Array], std: float, *, seed: int, step: int, number: int) -> tuple[Array, ...]:
    """Tensors at a cut with Gaussian noise on those of floating point; the others, and what is handed in, stay.

    The noise follows from seed, step, the device's number and the tensor's place: a round that is repeated repeats it.

    Args:
        tensors: [batch, ...] each.
        std: standard deviation, in units of the tensors; 0 changes nothing.
        seed, step, number: of the run, the batch and the device.

    >>> (one,) = cut_noise((np.zeros((2, 3), np.float32),), 0.5, seed=1, step=0, number=0)
    >>> one.shape, bool(np.abs(one).max() < 3), bool((one != 0).all())
    ((2, 3), True, True)
    """
    return tuple(
        _noisy(np.asarray(tensor), std, [seed, step, number, index, _PURPOSE]) for index, tensor in enumerate(tensors)
    )


def _noisy(tensor: Array, std: float, seeds: list[int]) -> Array:
    if tensor.dtype.kind != "f" or std == 0:
        return tensor
    drawn = np.random.default_rng(seeds).standard_normal(tensor.shape, np.float32)
    return np.asarray(tensor + (drawn * np.float32(std)).astype(tensor.dtype))


def _distances(tensors: Sequence[Array]) -> Doubles:
    """Between samples, over all tensors together, [n, n]."""
    n = len(tensors[0])
    squares = np.zeros((n, n))
    flats = [tensor.reshape(n, -1).astype(np.float64) for tensor in tensors]
    if not all(np.isfinite(flat).all() for flat in flats):
        raise DataError("a value that is not finite among inputs or tensors at the cut; has the training diverged?")
    # Around the mean and of size one: the correlation does not change, and nothing cancels or overflows.
    largest = max((float(np.abs(flat).max(initial=0.0)) for flat in flats), default=0.0) or 1.0
    flats = [flat / largest - (flat / largest).mean(axis=0) for flat in flats]
    spread = max((float(np.abs(flat).max(initial=0.0)) for flat in flats), default=0.0)
    if spread < 1e-14:  # all samples the same, but for rounding
        return squares
    for flat in flats:
        unit = flat / spread
        own = np.square(unit).sum(axis=1)
        squares += np.maximum(own[:, None] + own[None, :] - 2 * (unit @ unit.T), 0.0)
    np.fill_diagonal(squares, 0.0)
    return np.sqrt(squares)


def _correlation(a: Doubles, b: Doubles, corrected: bool) -> float:
    n = len(a)
    centred = _centred_without_bias if corrected else _centred
    A, B = centred(a), centred(b)
    norm = n * (n - 3) if corrected else n * n
    cross, own, other = (float((first * second).sum()) / norm for first, second in ((A, B), (A, A), (B, B)))
    # All samples the same, at one end or the other: nothing depends on anything.
    if min(own, other) <= 1e-24 or not math.isfinite(cross):
        return 0.0
    return math.sqrt(min(max(cross / math.sqrt(own * other), 0.0), 1.0))


def _centred(d: Doubles) -> Doubles:
    return np.asarray(d - d.mean(axis=0) - d.mean(axis=1)[:, None] + d.mean())


def _centred_without_bias(d: Doubles) -> Doubles:
    n = len(d)
    rows = d.sum(axis=1)
    found = d - rows[None, :] / (n - 2) - rows[:, None] / (n - 2) + d.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(found, 0.0)
    return np.asarray(found)
