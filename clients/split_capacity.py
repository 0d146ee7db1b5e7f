"""What a device has left for split learning, measured now: how fast it multiplies, and how much memory is free.

How fast its link is cannot be seen from here; a channel measures that, see `split_stream`. Nothing here sends.
"""

from __future__ import annotations

import math
import time
from typing import Any, Final

import numpy as np
from flwr.app import Context

from flower_edge.splitting.capacity import Capacity

from .measure import measure_conditions

__all__ = ["measured_capacity", "offered_capacity"]

#: Rows and columns of the matrices, and for how long they are multiplied at least.
_SIDE, _LEAST_S = 192, 0.01
_RATES: Final = ("flops_per_s", "up_bps", "down_bps", "delay_s")


def measured_capacity(context: Context | None = None, round: int = 0) -> Capacity:
    """Of this machine, now: whatever else runs on it slows the measurement as it slows training.

    Float32 matrix products in NumPy: a training step reaches part of that rate. What a round of training reached is in
    its report, and counts more where `Split(measure="reports")` plans by it.

    Args:
        context, round: not looked at; they make this function a source for `split_client`.

    >>> measured_capacity().flops_per_s > 0
    True
    """
    del context, round
    matrix = np.ones((_SIDE, _SIDE), np.float32)
    matrix @ matrix  # the first product starts threads
    count, began_s = 0, time.perf_counter()
    while (taken_s := time.perf_counter() - began_s) < _LEAST_S:
        matrix @ matrix
        count += 1
    free = measure_conditions(interval_s=0.0).memory_free_bytes
    return Capacity(2.0 * _SIDE**3 * count / taken_s, memory_bytes=None if free is None else int(free))


def offered_capacity(capacity: Capacity) -> dict[str, Any]:
    """What of a capacity is known, as a terminal's answer has it.

    >>> offered_capacity(Capacity(1e9, up_bps=1e6))
    {'flops_per_s': 1000000000.0, 'up_bps': 1000000.0, 'delay_s': 0.0, 'memory_bytes': None}
    """
    rates = {name: getattr(capacity, name) for name in _RATES}
    known = {name: rate for name, rate in rates.items() if math.isfinite(rate)}
    return {**known, "memory_bytes": capacity.memory_bytes}
