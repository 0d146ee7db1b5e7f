"""`Metrics`: the instruments of a process by name, and their text for Prometheus.

A registry of its own, not Prometheus' one per process: two servers in one process, or two tests, do not mix. Nothing
here listens; see `serving`. `prometheus_client` is imported by the first who asks for the text.

Source: the text format is that of Prometheus, https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..errors import ConfigError
from .instruments import DEFAULT_BOUNDS_S, MOST_SERIES, Counter, Gauge, Histogram, Instrument

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["CONTENT_TYPE", "Metrics"]

log = logging.getLogger(__name__)

#: Of the text, as Prometheus asks for it.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_PREFIX: Final = "flower_edge_"

Kind = TypeVar("Kind", bound=Instrument)


class Metrics:
    """Instruments by name. Asking for one again gives the same one, so that nobody has to hand them around.

    Every name is exported with `flower_edge_` before it, a counter's with `_total` behind it.

    >>> metrics = Metrics()
    >>> metrics.counter("refusals", "Replies that were refused.", ("code",)).add(code="norm")
    >>> metrics.gauge("peers", "Neighbours that are connected.").set(3)
    >>> print(metrics.text())
    # HELP flower_edge_refusals_total Replies that were refused.
    # TYPE flower_edge_refusals_total counter
    flower_edge_refusals_total{code="norm"} 1.0
    # HELP flower_edge_peers Neighbours that are connected.
    # TYPE flower_edge_peers gauge
    flower_edge_peers 3.0
    <BLANKLINE>
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._instruments: dict[str, Instrument] = {}
        self._before: list[Callable[[], None]] = []

    def counter(self, name: str, says: str, labels: Sequence[str] = (), *, most: int = MOST_SERIES) -> Counter:
        """A number that only grows.

        Args:
            name: small letters, digits and `_`, with the unit last (`sent_bytes`, `waited_seconds`); Prometheus' base
                units. No `flower_edge_` before it and no `_total` behind it.
            says: what it is, in a sentence.
            labels: names of its labels.
            most: how many combinations of them are told apart; see `instruments` for the rest.

        Raises:
            ConfigError: a name or label that Prometheus would not take, or that is another instrument's already.
        """
        return self._made(Counter(name, says, labels, most))

    def gauge(self, name: str, says: str, labels: Sequence[str] = (), *, most: int = MOST_SERIES) -> Gauge:
        """A number that goes up and down. Arguments and errors as of `counter`."""
        return self._made(Gauge(name, says, labels, most))

    def histogram(
        self,
        name: str,
        says: str,
        labels: Sequence[str] = (),
        *,
        bounds: Sequence[float] = DEFAULT_BOUNDS_S,
        most: int = MOST_SERIES,
    ) -> Histogram:
        """How a number is spread. Arguments and errors as of `counter`, and:

        Args:
            bounds: rising; how often it was at most each of them is told.
        """
        return self._made(Histogram(name, says, labels, most, bounds))

    def _made(self, new: Kind) -> Kind:
        if not _NAME.fullmatch(new.name) or new.name.startswith(_PREFIX) or new.name.endswith("_total"):
            raise ConfigError(
                f"a metric called {new.name!r}; expected small letters, digits and '_', without {_PREFIX!r} before and "
                "'_total' behind, such as 'sent_bytes'"
            )
        if wrong := [label for label in new.labels if not _NAME.fullmatch(label) or label in ("le", "quantile")]:
            raise ConfigError(f"{new.name} has the label {wrong[0]!r}; expected small letters, such as 'code'")
        with self._lock:
            old = self._instruments.setdefault(new.name, new)
        if type(old) is not type(new) or old.labels != new.labels:
            raise ConfigError(
                f"{new.name} is a {type(new).__name__} of {new.labels} here and a {type(old).__name__} of {old.labels} "
                "elsewhere; give one of them another name"
            )
        assert isinstance(old, type(new))
        return old

    def before(self, refresh: Callable[[], None]) -> None:
        """Have `refresh` called before every text, to set what is looked up and not counted.

        What it raises is logged, and the text is told without it: looking must not stop what is looked at.
        """
        with self._lock:
            self._before.append(refresh)

    def text(self) -> str:
        """All of it in Prometheus' text format, in the order in which it was made.

        Raises:
            ConfigError: prometheus_client is not installed.
        """
        try:
            from prometheus_client import generate_latest
        except ImportError as error:
            raise ConfigError(f"{error}; type: pip install prometheus-client") from error
        self._refresh()
        return generate_latest(self).decode()

    def samples(self) -> list[dict[str, Any]]:
        """All of it as JSON values: name, labels and value of each; NaN and infinities as texts."""
        self._refresh()
        return [
            {"name": sample.name, "labels": dict(sample.labels), "value": _json_number(sample.value)}
            for family in self.collect()
            for sample in family.samples
        ]

    def _refresh(self) -> None:
        with self._lock:
            before = list(self._before)
        for refresh in before:
            try:
                refresh()
            except Exception:
                log.warning("metrics are told without what one of them looks up", exc_info=True)

    def collect(self) -> Iterator[Metric]:
        """What a registry of `prometheus_client` takes: `registry.register(metrics)` puts these beside others."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        with self._lock:
            instruments = list(self._instruments.values())
        for one in instruments:
            name = _PREFIX + one.name
            if isinstance(one, Histogram):
                spread = HistogramMetricFamily(name, one.says, labels=one.labels)
                for key, seen in one.spreads().items():
                    bounds = [*(repr(bound) for bound in one.bounds), "+Inf"]
                    spread.add_metric(key, list(zip(bounds, seen.cumulative(), strict=True)), seen.sum)
                yield spread
            elif isinstance(one, Counter):
                family = GaugeMetricFamily if isinstance(one, Gauge) else CounterMetricFamily
                told = family(name, one.says, labels=one.labels)
                for key, value in one.values().items():
                    told.add_metric(key, value)
                yield told
        if folded := {one.name: one.folded for one in instruments if one.folded}:
            says = "Observations beyond the labels a metric tells apart: added up as 'other', or of a gauge left out."
            told = CounterMetricFamily(f"{_PREFIX}folded_observations", says, labels=["metric"])
            for metric, number in folded.items():
                told.add_metric([_PREFIX + metric], number)
            yield told


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
