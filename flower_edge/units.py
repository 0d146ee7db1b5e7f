"""From what people write to what the code computes with: SI and bits.

Decibels, milliseconds and megabytes exist only as config keys; they end here. Everything inside
carries its unit in its name: `_s _bits _bps _hz _m _w _j`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def db_to_ratio(value_db: float) -> float:
    """Decibels to a plain ratio.

    >>> db_to_ratio(20.0)
    100.0
    """
    return math.pow(10.0, value_db / 10.0)


def ratio_to_db(ratio: float) -> float:
    """A plain ratio, above 0, to decibels.

    >>> ratio_to_db(100.0)
    20.0
    """
    return 10.0 * math.log10(ratio)


def db_to_ratios(values_db: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """As `db_to_ratio`, for each value of an array."""
    return 10.0 ** (values_db / 10.0)


def dbm_to_w(value_dbm: float) -> float:
    """Decibels over a milliwatt to watts.

    >>> dbm_to_w(30.0)
    1.0
    """
    return db_to_ratio(value_dbm) / 1e3


def dbm_to_ws(values_dbm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """As `dbm_to_w`, for each value of an array."""
    return db_to_ratios(values_dbm) / 1e3


def ms_to_s(value_ms: float) -> float:
    """Milliseconds to seconds.

    >>> ms_to_s(250)
    0.25
    """
    return value_ms / 1e3


def mbps_to_bps(value_mbps: float) -> float:
    """Megabits per second to bits per second.

    >>> mbps_to_bps(20)
    20000000.0
    """
    return value_mbps * 1e6


def mb_to_bits(value_mb: float) -> int:
    """Megabytes (10^6 bytes) to bits.

    >>> mb_to_bits(1.5)
    12000000
    """
    return round(value_mb * 8e6)


def bytes_to_bits(count_bytes: int) -> int:
    """Bytes to bits.

    >>> bytes_to_bits(84)
    672
    """
    return count_bytes * 8


def human_bits(value_bits: float) -> str:
    """Bits as people read them, in bytes with decimal prefixes.

    >>> human_bits(1_975_000)
    '246.9 kB'
    >>> human_bits(640)
    '80 B'
    """
    value_bytes = value_bits / 8
    if round(value_bytes) < 1000:
        return f"{value_bytes:.0f} B"
    for prefix in ("k", "M", "G"):
        value_bytes /= 1000
        # As it will be shown: 999.96 kB is 1.0 MB.
        if round(value_bytes, 1) < 1000:
            return f"{value_bytes:.1f} {prefix}B"
    return f"{value_bytes / 1000:.1f} TB"


def human_s(value_s: float) -> str:
    """Seconds as people read them.

    >>> human_s(0.0421), human_s(12.34), human_s(3723)
    ('42 ms', '12.3 s', '1 h 02 min')
    """
    if round(value_s * 1e3) < 1000:
        return f"{value_s * 1e3:.0f} ms"
    if round(value_s, 1) < 60:
        return f"{value_s:.1f} s"
    minutes, seconds = divmod(round(value_s), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
