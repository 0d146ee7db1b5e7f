"""Local data that arrive over time: which of a node's samples exist yet, who collected them, how often they were used.

A value on the virtual clock. It neither holds the samples themselves nor moves the clock; `used` and `shared_from` hand
back a new value, so it can live in a node's state, in a checkpoint and in a test.

Letters:
    index[i]   position of sample i in the data set       int64 [arrivals]
    time_s[i]  when it is there, seconds, ascending        float64 [arrivals]
    origin[i]  key of the node that collected it           str [arrivals]
    uses[i]    how often it was trained on                 int64 [arrivals]
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, DataError

Indices = NDArray[np.int64]
_KEYS = ("index", "time_s", "origin", "uses", "origin_names")


@dataclass(frozen=True, eq=False)
class Arrivals:
    """A node's samples and when each is there; every sample at most once. Build it with `poisson` or `all_at`.

    >>> stream = Arrivals.all_at([7, 8], time_s=[0.0, 5.0], origin="car-1")
    >>> stream.available(now_s=4.0), stream.age_s(now_s=4.0)
    (array([7]), array([4.]))
    >>> stream.enough(2, now_s=4.0), stream.enough_at_s(2)
    (False, 5.0)
    """

    index: Indices
    time_s: NDArray[np.float64]
    origin: NDArray[np.str_]
    uses: Indices

    def __post_init__(self) -> None:
        lengths = {len(self.index), len(self.time_s), len(self.origin), len(self.uses)}
        if len(lengths) > 1:
            raise DataError(f"arrivals with columns of {sorted(lengths)} entries; give as many of each")
        if np.isnan(self.time_s).any() or (np.diff(self.time_s) < 0).any():
            raise DataError("arrival times are not ascending numbers; sort by time_s")
        values, counts = np.unique(self.index, return_counts=True)
        if (counts > 1).any():
            raise DataError(f"sample {values[counts > 1][0]} arrives twice; a stream holds every sample once")
        if (self.uses < 0).any():
            raise DataError(f"sample {self.index[self.uses < 0][0]} was used a negative number of times")

    @classmethod
    def all_at(cls, indices: ArrayLike, time_s: ArrayLike = 0.0, *, origin: str) -> Arrivals:
        """Samples at given times: one number for all, or one per sample.

        Args:
            indices: positions in the data set, [samples], without repeats.
            time_s: seconds on the virtual clock.
            origin: key of the node that collects them.

        Raises:
            DataError: a sample comes twice, or a time is not a number.
        """
        index = np.asarray(indices, dtype=np.int64)
        times_s = np.broadcast_to(np.asarray(time_s, dtype=np.float64), index.shape)
        order = np.argsort(times_s, kind="stable")
        origins = np.full(index.shape, origin)
        return cls(index[order], times_s[order], origins, np.zeros(index.shape, np.int64))

    @classmethod
    def poisson(
        cls, indices: ArrayLike, rate_per_s: float, *, seed: int, origin: str, start_s: float = 0.0
    ) -> Arrivals:
        """Samples in random order with independent, exponentially distributed gaps of mean 1 / rate_per_s.

        Args:
            indices: positions in the data set, [samples], without repeats.
            rate_per_s: samples per second, above 0.
            seed: order and times.
            origin: key of the node that collects them.
            start_s: the first gap starts here.

        Raises:
            ConfigError: a rate that is not above 0, or a negative seed.
        """
        if not (math.isfinite(rate_per_s) and rate_per_s > 0):
            raise ConfigError(f"rate_per_s = {rate_per_s}; use a number above 0, or all_at for data there at once")
        if seed < 0:
            raise ConfigError(f"seed = {seed}; use 0 or more")
        rng = np.random.default_rng(seed)
        index = rng.permutation(np.asarray(indices, dtype=np.int64))
        times_s = start_s + np.cumsum(rng.exponential(1.0 / rate_per_s, len(index)))
        return cls.all_at(index, times_s, origin=origin)

    def __len__(self) -> int:
        return len(self.index)

    def available(self, now_s: float) -> Indices:
        """Samples that are there at `now_s`, oldest first, int64 [available]."""
        return self.index[: self._count(now_s)]

    def since(self, after_s: float, now_s: float = math.inf) -> Indices:
        """Samples that came after `after_s` and not later than `now_s`, oldest first.

        Consecutive spans share no sample and miss none.

        >>> Arrivals.all_at([7, 8, 9], [1.0, 2.0, 3.0], origin="car-1").since(1.0, 2.0)
        array([8])
        """
        return self.index[self._count(after_s) : self._count(now_s)]

    def age_s(self, now_s: float) -> NDArray[np.float64]:
        """Seconds since each available sample came, in the order of `available`, float64 [available]."""
        return np.asarray(now_s - self.time_s[: self._count(now_s)])

    def enough(self, count: int, now_s: float) -> bool:
        """Whether `count` samples are there."""
        return self._count(now_s) >= count

    def enough_at_s(self, count: int) -> float:
        """When `count` samples are there: minus infinity for 0, infinity when they never will be."""
        if count <= 0:
            return -math.inf
        return float(self.time_s[count - 1]) if count <= len(self) else math.inf

    def used(self, indices: ArrayLike) -> Arrivals:
        """The same stream after training once on each of `indices`; an index given twice counts twice.

        Raises:
            DataError: an index that is not in this stream.

        >>> Arrivals.all_at([7, 8], origin="car-1").used([8, 8]).uses
        array([0, 2])
        """
        uses = self.uses.copy()
        np.add.at(uses, self._places(np.asarray(indices, dtype=np.int64)), 1)
        return replace(self, uses=uses)

    def shared_from(self, other: Arrivals, indices: ArrayLike, at_s: float) -> Arrivals:
        """The same stream with samples another node hands over at `at_s`: their origin stays, their use count is 0.

        A sample already in this stream keeps its entry, so being handed the same one twice changes nothing.

        Raises:
            DataError: an index the other node does not have, or not yet at `at_s`.

        >>> mine, yours = Arrivals.all_at([1], origin="car-1"), Arrivals.all_at([2], origin="car-2")
        >>> both = mine.shared_from(yours, [2], at_s=9.0)
        >>> both.index, both.time_s, both.origin
        (array([1, 2]), array([0., 9.]), array(['car-1', 'car-2'], dtype='<U5'))
        """
        wanted = np.unique(np.asarray(indices, dtype=np.int64))
        places = other._places(wanted)
        early = other.time_s[places] > at_s
        if early.any():
            place = places[early][0]
            raise DataError(
                f"sample {other.index[place]} is shared at {at_s} s but comes at {other.time_s[place]} s; "
                "share what available(at_s) lists"
            )
        places = places[~np.isin(other.index[places], self.index)]
        index = np.concatenate([self.index, other.index[places]])
        time_s = np.concatenate([self.time_s, np.full(len(places), float(at_s))])
        origin = np.concatenate([self.origin, other.origin[places]])
        uses = np.concatenate([self.uses, np.zeros(len(places), np.int64)])
        order = np.argsort(time_s, kind="stable")
        return Arrivals(index[order], time_s[order], origin[order], uses[order])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Numeric arrays only, so that every tensor format can carry them; `from_arrays` reads them back.

        Origins are int64 positions in a list of names, which is uint8 [bytes]: the list as JSON in UTF-8.
        """
        names, codes = np.unique(self.origin, return_inverse=True)
        return {
            "index": self.index.copy(),
            "time_s": self.time_s.copy(),
            "origin": codes.astype(np.int64),
            "uses": self.uses.copy(),
            "origin_names": np.frombuffer(json.dumps(names.tolist()).encode(), dtype=np.uint8).copy(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Arrivals:
        """What `to_arrays` wrote.

        Raises:
            DataError: a missing or extra array, or contents that contradict each other.
        """
        if set(arrays) != set(_KEYS):
            raise DataError(f"arrivals from arrays {', '.join(sorted(arrays))}; needed are {', '.join(_KEYS)}")
        try:
            names = np.array(json.loads(arrays["origin_names"].tobytes()), dtype=np.str_)
            codes = arrays["origin"].astype(np.int64)
            if (codes < 0).any():
                raise IndexError(f"origin {codes.min()}")
            origin = names[codes] if len(codes) else np.empty(0, np.str_)
        except (ValueError, IndexError) as error:
            raise DataError(f"the origins of the arrivals cannot be read ({error}); the state is damaged") from error
        index, uses = arrays["index"].astype(np.int64), arrays["uses"].astype(np.int64)
        return cls(index, arrays["time_s"].astype(np.float64), origin, uses)

    def _count(self, now_s: float) -> int:
        """How many samples are there at `now_s`."""
        return int(np.searchsorted(self.time_s, now_s, side="right"))

    def _places(self, indices: Indices) -> Indices:
        """Positions of `indices` in this stream."""
        order = np.argsort(self.index)
        places = np.searchsorted(self.index, indices, sorter=order)
        found = places < len(order)
        found[found] = self.index[order[places[found]]] == indices[found]
        if not found.all():
            raise DataError(f"sample {indices[~found][0]} is not in this stream of {len(self)} samples")
        return np.asarray(order[places], dtype=np.int64)
