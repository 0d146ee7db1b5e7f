"""Every joint choice of cuts and codecs, tried: what `Dynamic` is checked against. For a handful of devices.

Nothing is left out but options that cost exactly what another does (a unit without FLOPs whose tensor is as large as
the one before), and choices whose lower bound is above what was found already.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import SplitError
from .costs import Costs, Floats
from .settled import ROUNDING, admitted, least_parts

__all__ = ["least_by_trying"]

#: More choices than that take minutes and gigabytes.
MOST: Final = 4_000_000
#: Choices whose step time is searched at once.
_TOGETHER: Final = 2048


def least_by_trying(costs: Costs, most: int = MOST) -> tuple[dict[int, int], float]:
    """The choice whose slowest device has the least step time.

    Args:
        costs: of one round.
        most: choices to try.

    Returns:
        Option by device number, and the step time in seconds.

    Raises:
        SplitError: more choices than `most`.
    """
    open_to = [_distinct(costs, row) for row in range(len(costs.numbers))]
    count = math.prod(map(len, open_to))
    if count > most:
        raise SplitError(
            f"{count:,} choices for {len(open_to)} devices, more than {most:,}; try fewer devices, cuts or codecs"
        )
    at = np.stack([axis.ravel() for axis in np.meshgrid(*open_to, indexing="ij")], axis=1)
    rows = np.arange(len(open_to))
    users = np.count_nonzero(at != costs.whole, axis=1)
    fixed_s = (costs.compute_s + costs.delay_s)[rows, at]
    fixed_s += users[:, None] * (costs.cloud_flops / costs.cloud_flops_per_s)[at]
    wire_s = costs.wire_s[rows, at]
    bound_s = (fixed_s + wire_s).max(axis=1)  # with the whole of their own links
    order = np.argsort(bound_s, kind="stable")
    best, best_s = -1, math.inf
    for start in range(0, count, _TOGETHER):
        some = order[start : start + _TOGETHER]
        if bound_s[some[0]] >= best_s:
            break
        found_s = _least_step_s(costs, fixed_s[some], wire_s[some], bound_s[some])
        first = int(found_s.argmin())
        if found_s[first] < best_s:
            best, best_s = int(some[first]), float(found_s[first])
    return {number: int(option) for number, option in zip(costs.numbers, at[best], strict=True)}, best_s


def _distinct(costs: Costs, row: int) -> npt.NDArray[np.int64]:
    """Options open to a device, one of each cost."""
    options = np.flatnonzero(costs.allowed[row])
    table = np.stack([costs.compute_s[row], costs.delay_s[row], costs.wire_s[row], costs.cloud_flops], axis=1)
    # The whole model takes no share of the cloud: it is told from a cut that costs nothing there.
    table = np.column_stack([table, np.arange(len(table)) == costs.whole])
    _, first = np.unique(table[options], axis=0, return_index=True)
    return np.asarray(options[np.sort(first)], dtype=np.int64)


def _least_step_s(costs: Costs, fixed_s: Floats, wire_s: Floats, bound_s: Floats) -> Floats:
    """As `settled.least_step_s`, of many choices at once: [choices, devices] in, [choices] out."""
    free = admitted(costs, (wire_s > 0.0).astype(np.float64))
    low, high = bound_s.copy(), bound_s.copy()
    held = free
    while not held.all():
        high = np.where(held, high, 2.0 * high)
        held = admitted(costs, least_parts(fixed_s, wire_s, high[:, None])) | free
    while (high - low > ROUNDING * high).any():
        middle = 0.5 * (low + high)
        held = admitted(costs, least_parts(fixed_s, wire_s, middle[:, None]))
        low, high = np.where(held, low, middle), np.where(held, middle, high)
    return high
