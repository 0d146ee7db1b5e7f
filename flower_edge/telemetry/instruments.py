"""`Counter`, `Gauge` and `Histogram`: one number each, or one for each combination of labels, up to a bound.

Labels cost memory here and in Prometheus for ever, and what nodes call themselves is not ours to choose. So an
instrument keeps at most `most` combinations: to a counter or histogram further ones are added up under "other", of a
gauge (where a sum means nothing) they are left out. Either is counted, see `Metrics`.

Nothing here is written out; see `metrics`.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from ..errors import ConfigError

__all__ = ["DEFAULT_BOUNDS_S", "MOST_SERIES", "OTHER", "Counter", "Gauge", "Histogram", "Instrument", "Key"]

#: Combinations of labels that an instrument tells apart, unless it is made with another number.
MOST_SERIES: Final = 200
#: What every label of the combinations beyond them says.
OTHER: Final = "other"
#: From a message on one machine to a round of a slow device.
DEFAULT_BOUNDS_S: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
#: Characters of a label's value; the rest is cut off.
_LONGEST: Final = 80

#: The values of an instrument's labels, in their order.
Key = tuple[str, ...]


class Instrument:
    """What the three have in common. Made by `Metrics`, not by hand; safe to use from any thread.

    Attributes:
        name: as it is exported; of a counter without its `_total`.
        says: what it is, in a sentence.
        labels: names of its labels, in order.
        most: combinations that are told apart.
        folded: observations that came after them.
    """

    #: Whether what is beyond the bound is added up under `OTHER`.
    adds_up = True

    def __init__(self, name: str, says: str, labels: Sequence[str], most: int) -> None:
        self.name, self.says, self.labels, self.most = name, says, tuple(labels), most
        self.folded = 0
        self._lock = threading.Lock()
        self._known: set[Key] = set()

    def _key(self, labels: Mapping[str, object]) -> Key | None:
        """Where it belongs; None: nowhere. To be called with the lock held."""
        if labels.keys() != set(self.labels):
            raise ConfigError(
                f"{self.name} was given the labels {sorted(labels)}; expected {list(self.labels)}, each by its name"
            )
        key = tuple(_value(labels[name]) for name in self.labels)
        if key in self._known:
            return key
        if len(self._known) < self.most:
            self._known.add(key)
            return key
        self.folded += 1
        return (OTHER,) * len(self.labels) if self.adds_up else None


class Counter(Instrument):
    """Only ever grows while the process lives: bytes, refusals, credits."""

    def __init__(self, name: str, says: str, labels: Sequence[str], most: int) -> None:
        super().__init__(name, says, labels, most)
        self._values: dict[Key, float] = {}

    def add(self, amount: float = 1.0, **labels: object) -> None:
        """Count `amount` more.

        Raises:
            ConfigError: below 0 or no number, or other labels than it was made with.
        """
        if not 0 <= amount < math.inf:
            raise ConfigError(f"{self.name} was to grow by {amount!r}; expected 0 or more: a counter never shrinks")
        with self._lock:
            key = self._key(labels)
            if key is not None:
                self._values[key] = self._values.get(key, 0.0) + amount

    def values(self) -> dict[Key, float]:
        """All of them now, by their labels' values."""
        with self._lock:
            return dict(self._values)

    def replace(self, values: Mapping[Key, float]) -> None:
        """Tell totals that were counted elsewhere, such as in a run folder, instead of all there were."""
        with self._lock:
            self._known, self._values, self.folded = set(), {}, 0
            for given, value in values.items():
                key = self._key(dict(zip(self.labels, given, strict=True)))
                if key is not None:
                    self._values[key] = self._values.get(key, 0.0) + value


class Gauge(Counter):
    """Goes up and down: nodes that are online, seconds of the last round, an accuracy."""

    adds_up = False

    def add(self, amount: float = 1.0, **labels: object) -> None:
        """Change it by `amount`, which may be below 0.

        Raises:
            ConfigError: other labels than it was made with.
        """
        with self._lock:
            key = self._key(labels)
            if key is not None:
                self._values[key] = self._values.get(key, 0.0) + amount

    def set(self, value: float, **labels: object) -> None:
        """What it is now.

        Raises:
            ConfigError: other labels than it was made with.
        """
        with self._lock:
            key = self._key(labels)
            if key is not None:
                self._values[key] = float(value)

    def remove(self, **labels: object) -> None:
        """Forget one combination: a neighbour that is gone has no delay. One that is not there is no error."""
        with self._lock:
            key = tuple(_value(labels.get(name, "")) for name in self.labels)
            self._known.discard(key)
            self._values.pop(key, None)


@dataclass
class Spread:
    """How often a histogram saw what: counts between its bounds, the sum, the number."""

    counts: list[int]
    sum: float = 0.0
    number: int = field(default=0)

    def cumulative(self) -> list[int]:
        """How many were at most each bound; the last one is all of them."""
        return list(accumulate(self.counts))


class Histogram(Instrument):
    """How long, or how large: how often a value was at most each of its bounds."""

    def __init__(self, name: str, says: str, labels: Sequence[str], most: int, bounds: Sequence[float]) -> None:
        super().__init__(name, says, labels, most)
        if list(bounds) != sorted(set(bounds)) or not bounds or not all(map(math.isfinite, bounds)):
            raise ConfigError(f"{name} has the bounds {list(bounds)}; expected finite numbers, each above the last")
        self.bounds = tuple(map(float, bounds))
        self._spreads: dict[Key, Spread] = {}

    def observe(self, value: float, **labels: object) -> None:
        """See one value; one that is no number is left out.

        Raises:
            ConfigError: other labels than it was made with.
        """
        with self._lock:
            key = self._key(labels)
            if key is None or math.isnan(value):
                return
            seen = self._spreads.setdefault(key, Spread([0] * (len(self.bounds) + 1)))
            seen.counts[bisect_left(self.bounds, value)] += 1
            seen.sum += value
            seen.number += 1

    def spreads(self) -> dict[Key, Spread]:
        """All of them now, by their labels' values."""
        with self._lock:
            return {key: Spread(list(seen.counts), seen.sum, seen.number) for key, seen in self._spreads.items()}

    def clear(self) -> None:
        """Forget all that was seen, to tell it anew."""
        with self._lock:
            self._known, self._spreads, self.folded = set(), {}, 0


def _value(given: object) -> str:
    """A label's value: short, in one line, and text that can be encoded."""
    text = str(given)[: _LONGEST + 1]
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return plain.encode("utf-8", "replace").decode()
