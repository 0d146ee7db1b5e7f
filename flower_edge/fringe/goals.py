"""`Goals`: what compression is asked for, from numbers or from text such as "20x", "95%", "60 kB", "17 ms".

    floor       the worst that the metric may become, on validation
    bandwidth   at least so much less: a factor, a share, or bytes of an inference
    latency     at most so long, or shorter by a share or by seconds

Goals that delays or frame heads alone make impossible are refused before anything is tried, with the most that could be
had. Nothing here compresses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ..errors import FringeError
from .links import Attainable, Link, attainable, inference, refuse_impossible
from .metrics import Metric, metric_named
from .wire import HEADER_BYTES

__all__ = ["Amount", "Goals", "seconds_of"]

Kind = Literal["factor", "share", "amount"]

_BYTES: Final = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_SECONDS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_TEXT: Final = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-zµ%]*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Amount:
    """How much less.

    Attributes:
        kind: "factor": a twentieth is left of "20x"; "share": "95%" goes; "amount": so many bytes or seconds go.
        value: above 1, between 0 and 1, or above 0.

    Raises:
        FringeError: a value that its kind cannot have.
    """

    kind: Kind
    value: float

    def __post_init__(self) -> None:
        low, high = {"factor": (1.0, math.inf), "share": (0.0, 1.0), "amount": (0.0, math.inf)}[self.kind]
        if not low < self.value < high:
            below = f" and below {high:g}" if math.isfinite(high) else ""
            raise FringeError(f"a {self.kind} of {self.value!r}: expected above {low:g}{below}")

    def __str__(self) -> str:
        share = f"{100 * self.value:g}%"
        return {"factor": f"{self.value:g}x", "share": share, "amount": f"{self.value:g}"}[self.kind]

    @classmethod
    def parse(cls, text: str | float | Amount, units: Mapping[str, float], field: str) -> Amount:
        """Of text, or of a number: below 1 a share, else a factor.

        Args:
            text: "20x", "95%", "60 kB" or "60 ms"; or a number.
            units: of amounts, by name in small letters.
            field: what it is called in an error.

        Raises:
            FringeError: none of these.

        >>> Amount.parse("95%", {}, "bandwidth"), Amount.parse(20, {}, "bandwidth").kind
        (Amount(kind='share', value=0.95), 'factor')
        """
        if isinstance(text, Amount):
            return text
        if isinstance(text, int | float) and not isinstance(text, bool):
            return cls("share" if text < 1 else "factor", float(text))
        number, unit = _split(text) or (math.nan, "")
        if unit not in ("x", "%", *units):
            raise FringeError(
                f"{field} = {text!r}: expected a factor such as '20x', a share such as '95%', or a number of "
                f"{', '.join(units)}"
            )
        try:
            if unit == "x":
                return cls("factor", number)
            return cls("share", number / 100) if unit == "%" else cls("amount", number * units[unit])
        except FringeError as error:
            raise FringeError(f"{field} = {text!r}: {error}") from None

    def most_left(self, before: float) -> float:
        """What may be left of so much.

        >>> Amount("factor", 20.0).most_left(100.0)
        5.0
        """
        if self.kind == "amount":
            return before - self.value
        return before / self.value if self.kind == "factor" else before * (1.0 - self.value)


def _split(text: object) -> tuple[float, str] | None:
    """A number and its unit in small letters, "" where there is none; None of anything else."""
    found = _TEXT.fullmatch(text) if isinstance(text, str) else None
    try:
        return None if found is None else (float(found[1]), found[2].lower())
    except ValueError:  # such as "1.2.3"
        return None


def seconds_of(text: str | float, field: str = "latency", *, zero: bool = False) -> float:
    """Seconds, from a number or from "17 ms"; 0 only where `zero` allows it.

    Raises:
        FringeError: neither, or not above 0.

    >>> seconds_of("17 ms")
    0.017
    """
    expected = f"expected a time {'of 0 or more' if zero else 'above 0'} with its unit, such as '17 ms' or '0.017 s'"
    if isinstance(text, str):
        number, unit = _split(text) or (math.nan, "")
        value = number * _SECONDS.get(unit, math.nan)
    else:
        value = float(text)
    if isinstance(text, bool) or not 0.0 <= value < math.inf or (value == 0.0 and not zero):
        raise FringeError(f"{field} = {text!r}: {expected}")
    return value


#: Metrics by name that lie between 0 and 1.
_SHARES: Final = ("accuracy", "recall", "precision")


@dataclass(frozen=True)
class Goals:
    """What a compression is to reach, and what it must not cost.

    Attributes:
        floor: the worst that the metric may become; a loss may not rise above it.
        drop: instead of `floor`, how much worse than uncompressed it may be: 0.01 is one point of accuracy.
        metric: a name of `METRICS`, or one of your own.
        bandwidth: bytes of an inference over all connections, at least so much less.
        latency_s: of an inference, at most.
        reduction: of the latency: a share, a factor or seconds, at least.

    Raises:
        FringeError: neither floor nor drop, or both; neither bandwidth nor latency; text that cannot be read; a drop
            in points or per cent.

    >>> goals = Goals(drop=0.01, bandwidth="20x", latency_s="17 ms")
    >>> goals.bandwidth, goals.latency_s
    (Amount(kind='factor', value=20.0), 0.017)
    """

    floor: float | None = None
    drop: float | None = None
    metric: Metric | str = "accuracy"
    bandwidth: Amount | str | float | None = None
    latency_s: float | str | None = None
    reduction: Amount | str | float | None = None

    def __post_init__(self) -> None:
        metric_named(self.metric)
        if (self.floor is None) == (self.drop is None):
            raise FringeError(f"floor = {self.floor} and drop = {self.drop}; expected one of them, such as drop=0.01")
        for name in ("floor", "drop"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise FringeError(f"{name} = {value!r}: expected a finite number")
        if self.drop is not None and self.drop < 0:
            raise FringeError(f"drop = {self.drop}: expected 0 or more")
        if self.metric in _SHARES and self.drop is not None and self.drop >= 1:
            # Meant in points or per cent, and as a share it would never bind.
            raise FringeError(f"drop = {self.drop}: {self.metric} is a share of 1, so 0.01 is one point")
        if self.bandwidth is None and self.latency_s is None and self.reduction is None:
            raise FringeError(
                "no goal; give less bandwidth, such as '20x', a latency, such as '17 ms', a reduction of it, such as "
                "'79%', or several"
            )
        if self.bandwidth is not None:
            object.__setattr__(self, "bandwidth", Amount.parse(self.bandwidth, _BYTES, "bandwidth"))
        if self.latency_s is not None:
            object.__setattr__(self, "latency_s", seconds_of(self.latency_s))
        if self.reduction is not None:
            object.__setattr__(self, "reduction", Amount.parse(self.reduction, _SECONDS, "reduction"))

    @property
    def judge(self) -> Metric:
        """The metric itself."""
        return metric_named(self.metric)

    def worst(self, before: float) -> float:
        """The worst score that is allowed, where the uncompressed pipeline has `before`.

        >>> Goals(drop=0.5, metric="loss", bandwidth=2).worst(1.0)
        1.5
        """
        if self.floor is not None:
            return self.floor
        assert self.drop is not None
        return before - self.drop if self.judge.larger_is_better else before + self.drop

    def holds(self, score: float, before: float) -> bool:
        """Whether a score is allowed; one that is no number is not."""
        # A share counts in whole samples: one of 100 less than 0.99 is 0.98 but for the last bits of a float.
        return self.judge.lost(score, self.worst(before)) <= 1e-9

    def most_bytes(self, before_bytes: float) -> float:
        """Bytes of an inference that may be left over all connections; inf without such a goal."""
        return self.bandwidth.most_left(before_bytes) if isinstance(self.bandwidth, Amount) else math.inf

    def most_seconds(self, before_s: float) -> float:
        """Latency that may be left; inf without such a goal."""
        given = self.latency_s if isinstance(self.latency_s, float) else math.inf
        less = self.reduction.most_left(before_s) if isinstance(self.reduction, Amount) else math.inf
        return min(given, less)

    def met(self, before_bytes: float, now_bytes: float, before_s: float, now_s: float) -> bool:
        """Whether all goals are reached. The floor is not looked at.

        >>> Goals(drop=0.01, bandwidth="20x").met(1000, 50, 1.0, 0.9)
        True
        """
        return now_bytes <= self.most_bytes(before_bytes) and now_s <= self.most_seconds(before_s)

    def refuse_impossible(
        self,
        sizes_bytes: Sequence[float],
        links: Sequence[Link],
        compute_s: Sequence[float] = (),
        *,
        score: float | None = None,
    ) -> Attainable:
        """Refuse goals that no compression reaches; returns what can be had at most.

        Args:
            sizes_bytes: of each connection before compression.
            links: of the same.
            compute_s: of each machine; none: links alone.
            score: without any compression; None: the floor is not looked at.

        Raises:
            FringeError: such a goal; the most that could be had is named. Or a floor that does not even hold now.
        """
        if score is not None and not self.holds(score, score):
            raise FringeError(
                f"{self.judge.name} of {score:.4g} without any compression, and a floor of {self.worst(score):.4g}; "
                "expected a floor that it keeps: give another, or drop=0.01"
            )
        before, heads = math.fsum(sizes_bytes), HEADER_BYTES * len(sizes_bytes)
        if self.most_bytes(before) <= heads:
            share = 100 * (1 - heads / before)
            raise FringeError(
                f"bandwidth = {str(self.bandwidth)!r} of {before:.0f} bytes per inference: heads of frames alone take "
                f"{heads}, so less than {before / heads:.1f}x, {share:.2f} % or {before - heads:.0f} bytes "
                "can be saved; ask for less"
            )
        most = attainable(sizes_bytes, links, compute_s)
        before_s = inference(sizes_bytes, links, compute_s).latency_s
        if math.isfinite(self.most_seconds(before_s)):
            refuse_impossible(most, latency_s=max(0.0, self.most_seconds(before_s)))
        return most

    def config(self) -> dict[str, Any]:
        """Plain values; `from_config` is its inverse. A metric of one's own is named, no more."""

        def told(amount: Amount | str | float | None) -> Any:
            return {"kind": amount.kind, "value": amount.value} if isinstance(amount, Amount) else amount

        return {
            "floor": self.floor,
            "drop": self.drop,
            "metric": self.judge.name,
            "bandwidth": told(self.bandwidth),
            "latency_s": self.latency_s,
            "reduction": told(self.reduction),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], metric: Metric | None = None) -> Goals:
        """Inverse of `config`.

        Args:
            config: what it gave, or the same in text.
            metric: where it is one of your own.

        Raises:
            FringeError: no goals.
        """
        try:
            values = dict(config)
            for name in ("bandwidth", "reduction"):
                if isinstance(values.get(name), Mapping):
                    values[name] = Amount(values[name]["kind"], float(values[name]["value"]))
            return cls(**values | ({} if metric is None else {"metric": metric}))
        except (KeyError, TypeError, AttributeError) as error:
            raise FringeError(f"goals of {config!r:.160}: {error}; expected what Goals.config gives") from error
