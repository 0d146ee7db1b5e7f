"""What callers hand in, checked once: numbers, sizes, one value for all nodes or one per node.

Each function gives the checked value back or raises `ConfigError`; nothing here computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError

__all__ = ["Floats", "Indices", "area", "cell_names", "each", "moment", "node_count", "places", "positive", "share_of"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def positive(name: str, value: float) -> float:
    """A finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} = {value}; give a number above 0")
    return float(value)


def moment(time_s: float) -> float:
    """A point in time from 0 on, in seconds."""
    if not (math.isfinite(time_s) and time_s >= 0):
        raise ConfigError(f"time_s = {time_s}; time begins at 0 s, give a finite number from there on")
    return float(time_s)


def node_count(nodes: int) -> int:
    """How many nodes there are, 0 or more."""
    if nodes < 0:
        raise ConfigError(f"nodes = {nodes}; give 0 or more")
    return int(nodes)


def share_of(name: str, value: float, *, whole: bool) -> float:
    """A share from 0 to 1; below 1 where `whole` is not allowed."""
    if not (0.0 <= value <= 1.0) or (value == 1.0 and not whole):
        raise ConfigError(f"{name} = {value}; give a share from 0 {'to' if whole else 'to below'} 1")
    return float(value)


def area(area_m: tuple[float, float]) -> Floats:
    """Width and height in metres, both above 0, [2]."""
    if len(area_m) != 2:
        raise ConfigError(f"area_m = {area_m}; give (width, height) in metres")
    return np.array([positive("area_m width", area_m[0]), positive("area_m height", area_m[1])])


def cell_names(cells: Sequence[str]) -> tuple[str, ...]:
    """Names of cells: at least one, none empty, no two the same."""
    names = tuple(cells)
    if isinstance(cells, str) or not names or "" in names or len(set(names)) < len(names):
        raise ConfigError(f"cells = {cells!r}; give at least one, each with a name of its own")
    return names


def each(name: str, value: ArrayLike, count: int, what: str = "nodes") -> Floats:
    """One value for all, or one for each of `count` nodes or cells, as float64 [count]; finite and not below 0."""
    given = np.asarray(value, dtype=np.float64)
    if given.shape not in ((), (count,)):
        raise ConfigError(f"{name} has shape {given.shape}; give one number, or one for each of the {count} {what}")
    wrong = ~(np.isfinite(given) & (given >= 0))
    if wrong.any():
        raise ConfigError(f"{name} = {np.atleast_1d(given)[np.atleast_1d(wrong)][0]}; give numbers from 0 on")
    return np.broadcast_to(given, (count,))


def places(name: str, positions_m: ArrayLike) -> Floats:
    """Positions in the plane, finite, as float64 [count, 2]; a copy that cannot be written to."""
    given = np.array(positions_m, dtype=np.float64)
    if given.size == 0:
        given = given.reshape(0, 2)
    if given.ndim != 2 or given.shape[1] != 2:
        raise ConfigError(f"{name} has shape {given.shape}; give one row (x, y) in metres for each")
    if not np.isfinite(given).all():
        row = int(np.flatnonzero(~np.isfinite(given).all(axis=1))[0])
        raise ConfigError(f"{name}[{row}] = {given[row].tolist()}; give finite numbers of metres")
    given.setflags(write=False)
    return given
