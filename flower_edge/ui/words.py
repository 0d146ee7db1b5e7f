"""Numbers as a reader wants them: 65 560 bytes are "65.6 kB", 0.0123 s are "12.3 ms", 0.9771 is "97.7 %".

A number that is not there is a dash. Nothing here knows of sessions or pages.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["NONE", "count", "minus", "rate", "score", "seconds", "share", "size"]

#: Stands for a number that was not measured.
NONE: Final = "–"


def size(value_bytes: float | None) -> str:
    """Bytes.

    >>> size(65560), size(312), size(None), size(2_400_000)
    ('65.6 kB', '312 B', '–', '2.4 MB')
    """
    return _scaled(value_bytes, (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)))


def rate(value_bps: float | None) -> str:
    """Bits per second.

    >>> rate(10e6), rate(math.inf)
    ('10 Mbit/s', 'unlimited')
    """
    if value_bps == math.inf:
        return "unlimited"
    return _scaled(value_bps, (("bit/s", 1.0), ("kbit/s", 1e3), ("Mbit/s", 1e6), ("Gbit/s", 1e9)))


def seconds(value_s: float | None) -> str:
    """Seconds.

    >>> seconds(0.01234), seconds(2.5), seconds(0.0), seconds(5e-5)
    ('12.3 ms', '2.5 s', '0 ms', '0.05 ms')
    """
    if value_s is None or not math.isfinite(value_s):
        return NONE
    return f"{_three(value_s)} s" if abs(value_s) >= 1.0 else f"{_three(value_s * 1e3)} ms"


def share(value: float | None) -> str:
    """A share of one, in per cent.

    >>> share(0.97712), share(0.5), share(None)
    ('97.7 %', '50.0 %', '–')
    """
    if value is None or not math.isfinite(value):
        return NONE
    # 99.96 % is not all of it.
    places = 1 if abs(value) < 0.999 or value == 1.0 else 2
    return f"{100 * value:.{places}f} %"


def minus(value: float | None) -> str:
    """A share that was saved; below 0 it became more.

    >>> minus(0.977), minus(-0.1), minus(0.0)
    ('−97.7 %', '+10.0 %', '0 %')
    """
    if value is None or not math.isfinite(value):
        return NONE
    if abs(value) < 5e-6:
        return "0 %"
    return f"{'−' if value > 0 else '+'}{share(abs(value))}"


def score(value: float | None, metric: str) -> str:
    """Of a metric: shares in per cent, anything else as it is.

    >>> score(0.9415, "accuracy"), score(0.25, "loss")
    ('94.15 %', '0.25')
    """
    if value is None or not math.isfinite(value):
        return NONE
    return f"{100 * value:.2f} %" if metric in ("accuracy", "recall", "precision") else f"{value:.4g}"


def count(value: int | None) -> str:
    """A whole number, in groups of three.

    >>> count(174970)
    '174\u202f970'
    """
    return NONE if value is None else f"{value:,}".replace(",", "\u202f")


def _three(value: float) -> str:
    """Three digits that count, and no exponent."""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(places, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scaled(value: float | None, units: tuple[tuple[str, float], ...]) -> str:
    if value is None or not math.isfinite(value):
        return NONE
    name, by = next((unit for unit in reversed(units) if abs(value) >= unit[1]), units[0])
    return f"{_three(value / by)} {name}"
