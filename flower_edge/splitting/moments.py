"""`Moments`: what a standardisation needs to know of data that stay where they are: counts, means, squares, extremes.

A device says these of its own samples, the cloud merges them, and the constants are those of all samples together.
Nothing here standardises or sends.

    n   how many numbers          mean, M2 = sum of (x - mean)^2          low, high
    of two together:   d = mean_b - mean_a      mean = mean_a + d n_b / n     M2 = M2_a + M2_b + d^2 n_a n_b / n

Sums and squares themselves would cancel where the mean is large beside the spread; this form does not.

Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American Statistician, 1983.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..errors import DataError, ProtocolError

__all__ = ["Moments", "Scope"]

#: What has constants of its own: each number of a sample, each of its channels (first axis), or the sample as a whole.
Scope = Literal["feature", "channel", "whole"]
Doubles = npt.NDArray[np.float64]

#: Samples that are taken in double precision at once.
_CHUNK: Final = 4096
#: Numbers that moments from elsewhere may have.
_MOST: Final = 1 << 16


@dataclass(frozen=True, eq=False)
class Moments:
    """Of some samples.

    Attributes:
        scope: see `Scope`.
        count: numbers behind each entry: samples, times the numbers of a channel or of a sample. 0 says nothing at all.
        mean, m2, low, high: float64, of the shape of a sample ("feature"), [channels] or [].
    """

    scope: Scope
    count: int
    mean: Doubles
    m2: Doubles
    low: Doubles
    high: Doubles

    @classmethod
    def of(cls, x: npt.NDArray[Any], scope: Scope = "channel", *, least_samples: int = 1) -> Moments:
        """Moments of samples [samples, ...]; of fewer than `least_samples` none: too few would stand for themselves.

        Raises:
            DataError: a value that is not finite; its place in the sample is named.

        >>> found = Moments.of(np.array([[0.0, 5.0], [2.0, 5.0]]), "feature")
        >>> found.count, found.mean, found.m2
        (2, array([1., 5.]), array([2., 0.]))
        """
        if scope not in get_args(Scope):
            raise DataError(f"scope = {scope!r}: expected one of {', '.join(map(repr, get_args(Scope)))}")
        if x.ndim < 1 or x.dtype.kind not in "fiub" or (x.ndim < 2 and scope == "channel"):
            raise DataError(f"samples of shape {x.shape} and dtype {x.dtype}: expected numbers, [samples, ...]")
        shape = {"feature": x.shape[1:], "channel": x.shape[1:2], "whole": ()}[scope]
        found = cls.none(scope, shape)
        if len(x) < max(least_samples, 1):
            return found
        for begin in range(0, len(x), _CHUNK):
            found = found + _moments(x[begin : begin + _CHUNK], scope, begin)
        return found

    @classmethod
    def none(cls, scope: Scope, shape: tuple[int, ...] = ()) -> Moments:
        """Of no samples: added to others it changes nothing."""
        zero = np.zeros(shape)
        return cls(scope, 0, zero, zero, zero, zero)

    def __add__(self, other: Moments) -> Moments:
        """Moments of both together. In another order of many the last digits may differ, see `merged`.

        Raises:
            DataError: of another scope, or of samples of another shape.
        """
        if self.scope != other.scope or (self.count and other.count and self.mean.shape != other.mean.shape):
            raise DataError(
                f"moments by {self.scope} of shape {self.mean.shape} and by {other.scope} of shape {other.mean.shape}; "
                "expected both of the same kind of samples"
            )
        if not (self.count and other.count):
            return self if self.count else other
        count = self.count + other.count
        d, share = other.mean - self.mean, other.count / count
        return Moments(
            self.scope,
            count,
            self.mean + d * share,
            self.m2 + other.m2 + np.square(d) * (self.count * share),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    @classmethod
    def merged(cls, devices: Mapping[int, Moments]) -> Moments:
        """Of all devices, by their numbers: added in the order of those, so that who came first changes no digit.

        Raises:
            DataError: of no device, or of devices whose samples differ in shape.
        """
        if not devices:
            raise DataError("moments of no device; ask devices that have samples")
        first, *others = (devices[number] for number in sorted(devices))
        for other in others:
            first = first + other
        return first

    @property
    def std(self) -> Doubles:
        """Standard deviation of all numbers, with n below; 0 where all are the same, whatever rounding left of it."""
        return np.where(self.low == self.high, 0.0, np.sqrt(self.m2 / max(self.count, 1)))

    def to_plain(self) -> dict[str, Any]:
        """As JSON values; `from_plain` is its inverse, bit for bit."""
        lists = {name: getattr(self, name).ravel().tolist() for name in ("mean", "m2", "low", "high")}
        head = {"scope": self.scope, "count": self.count, "shape": list(self.mean.shape)}
        return {**head, **lists} if self.count else head

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], *, sender: str = "a device") -> Moments:
        """Inverse of `to_plain`; nothing that comes in is believed.

        Raises:
            ProtocolError: no moments, or moments that no samples can have.
        """
        try:
            scope, count, shape = values["scope"], values["count"], values["shape"]
            plain = isinstance(shape, list | tuple) and all(type(n) is int and 0 <= n <= _MOST for n in shape)
            if scope not in get_args(Scope) or type(count) is not int or not 0 <= count < 1 << 53 or not plain:
                raise ValueError(f"scope {scope!r}, count {count!r}, shape {shape!r}")
            size = math.prod(shape)
            if len(shape) > 8 or size > _MOST:
                raise ValueError(f"{size} numbers of each, at most {_MOST} are allowed; use scope='channel'")
            if not count:
                return cls.none(scope, tuple(shape))
            found = [_doubles(values[name], name, size).reshape(shape) for name in ("mean", "m2", "low", "high")]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ProtocolError(
                f"{sender} sent no moments: {repr(error)[:200]}; install the same flower-edge version on both sides"
            ) from None
        mean, m2, low, high = found
        room = 1e-9 * (np.abs(low) + np.abs(high)) + 1e-300
        most = count * (0.5 * high - 0.5 * low) ** 2  # half of the numbers at each end
        possible = (low <= high) & (low - room <= mean) & (mean <= high + room) & (m2 >= 0)
        possible &= m2 <= most * (1 + 1e-6) + count * np.square(room)
        if not possible.all():
            place = int(np.flatnonzero(~possible.ravel())[0])
            told = ", ".join(f"{name} {array.ravel()[place]}" for name, array in zip(_NAMES, found, strict=True))
            raise ProtocolError(f"{sender} sent moments that no samples have: entry {place} of count {count}: {told}")
        return cls(scope, count, mean, m2, low, high)


_NAMES: Final = ("mean", "m2", "low", "high")
#: Beyond, squares of differences, times as many samples as there can be, would not be finite.
_LARGEST: Final = 1e140


def _moments(x: npt.NDArray[Any], scope: Scope, begin: int) -> Moments:
    values = x.astype(np.float64)
    bad = ~(np.abs(values) <= _LARGEST)
    if bad.any():
        sample, *place = (int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"sample {begin + sample}, feature {tuple(place)}: {values[sample][tuple(place)]}, expected a finite "
            f"number of at most {_LARGEST}; fill in or drop what is missing before training"
        )
    over = {"feature": (0,), "channel": (0, *range(2, x.ndim)), "whole": tuple(range(x.ndim))}[scope]
    count = math.prod(x.shape[axis] for axis in over)
    if not count:
        return Moments.none(scope)
    mean = values.mean(axis=over, keepdims=True)
    low, high = np.asarray(values.min(axis=over)), np.asarray(values.max(axis=over))
    m2 = np.asarray(np.square(values - mean).sum(axis=over))
    same = low == high  # rounding may move the mean of equal numbers by a last digit
    return Moments(scope, count, np.where(same, low, mean.reshape(low.shape)), np.where(same, 0.0, m2), low, high)


def _doubles(values: Any, name: str, size: int) -> Doubles:
    if not isinstance(values, list | tuple) or len(values) != size:
        raise ValueError(f"{name}: expected {size} numbers")
    if not all(type(value) in (int, float) and abs(value) <= (_LARGEST if name != "m2" else 1e299) for value in values):
        raise ValueError(f"{name}: expected finite numbers")
    return np.array(values, np.float64)
