"""Text in columns, and numbers as people read them.

Plain characters only: a pipe, a log and a terminal show the same. Nothing here prints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..units import human_bits, human_s

__all__ = ["columns", "count", "rate", "ratio", "seconds", "traffic"]

#: What stands where nothing was recorded.
NOTHING = "-"


def columns(head: Sequence[str], lines: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Lines of a table under its head; the first `left` columns to the left, the others, numbers, to the right.

    >>> for line in columns(["name", "bytes"], [["a", "9 B"], ["long", "10 kB"]]):
    ...     print(line)
    name  bytes
    a       9 B
    long  10 kB
    """
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if at < left else text.rjust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (head, *lines)
    ]


def ratio(value: float | None) -> str:
    """An accuracy or a loss, four digits after the point.

    >>> ratio(0.98765), ratio(None), ratio(12345.6)
    ('0.9877', '-', '1.235e+04')
    """
    if value is None:
        return NOTHING
    return f"{value:.4f}" if abs(value) < 1e4 or not math.isfinite(value) else f"{value:.3e}"


def traffic(value_bits: float | None) -> str:
    """Bits, shown as bytes.

    >>> traffic(1_975_000), traffic(None)
    ('246.9 kB', '-')
    """
    return NOTHING if value_bits is None else human_bits(value_bits) if math.isfinite(value_bits) else str(value_bits)


def rate(value_bps: float | None) -> str:
    """What a link carries.

    >>> rate(2.5e6), rate(None), rate(800.0)
    ('2.5 Mbit/s', '-', '800 bit/s')
    """
    if value_bps is None:
        return NOTHING
    units = ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"))
    scale, unit = next(((s, u) for s, u in units if value_bps >= s), (1.0, "bit/s"))
    return f"{value_bps / scale:.3g} {unit}"


def count(value: float | None) -> str:
    """A number of things.

    >>> count(12.0), count(None), count(0.5)
    ('12', '-', '0.5')
    """
    return NOTHING if value is None else f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"


def seconds(value_s: float | None) -> str:
    """Seconds, minutes or hours.

    >>> seconds(0.25), seconds(None)
    ('250 ms', '-')
    """
    return NOTHING if value_s is None else human_s(value_s)
