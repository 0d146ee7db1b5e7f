"""Where terminals are: functions from time to positions in the plane, in metres.

Every answer is pure in time: asking for 10 s gives the same array whatever was asked before, on every machine. Node i's
path does not depend on how many nodes there are. Nodes are indexed by their partition-id. Nothing here knows of edges.

Letters:
    positions_m[i]   (x, y) of node i   float64 [nodes, 2]
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ConfigError
from .arguments import Floats, Indices, area, each, moment, node_count, places, positive
from .draws import Draws
from .renewals import Renewals
from .snapshots import Snapshots

__all__ = ["Mobility", "RandomWalk", "RandomWaypoint", "Still"]


class Mobility(Protocol):
    """Where every terminal is at any time."""

    @property
    def nodes(self) -> int:
        """How many terminals there are."""
        ...

    def positions_m(self, time_s: float) -> Floats:
        """Positions at `time_s` seconds, from 0 on, float64 [nodes, 2]; the same for the same time."""
        ...


class Still:
    """Nobody moves.

    Args:
        positions_m: (x, y) of each node, [nodes, 2].

    Raises:
        ConfigError: not one finite row (x, y) per node.

    >>> Still([[1, 2]]).positions_m(99.0)
    array([[1., 2.]])
    """

    def __init__(self, positions_m: ArrayLike) -> None:
        self._positions_m = places("positions_m", positions_m)

    @property
    def nodes(self) -> int:
        """How many terminals there are."""
        return len(self._positions_m)

    def positions_m(self, time_s: float) -> Floats:
        """The same positions at every time, [nodes, 2]; not to be written to."""
        moment(time_s)
        return self._positions_m


class RandomWalk:
    """Straight on for a while, then in another direction, any being as likely; the border of the area reflects.

    Args:
        nodes: how many.
        area_m: width and height; x goes from 0 to the width, y from 0 to the height.
        speed_mps: one for all, or one per node [nodes]; 0 for one that stands.
        leg_s: how long a node keeps its direction.
        seed: of starts and directions.
        start_m: positions at 0 s, [nodes, 2]; drawn evenly over the area where not given.

    Raises:
        ConfigError: a number out of range, or a start outside the area.
    """

    def __init__(
        self,
        nodes: int,
        area_m: tuple[float, float],
        speed_mps: ArrayLike,
        leg_s: float,
        seed: int,
        start_m: ArrayLike | None = None,
    ) -> None:
        self._everyone = np.arange(node_count(nodes))
        self._area_m = area(area_m)
        self._speed_mps = each("speed_mps", speed_mps, nodes)[:, None]
        self._leg_s = positive("leg_s", leg_s)
        self._turned = Draws(seed, "walk-direction")
        if start_m is None:
            start_m = _spread(self._everyone, 0, Draws(seed, "walk-x"), Draws(seed, "walk-y")) * self._area_m
        self._start_m = places("start_m", start_m)
        if len(self._start_m) != nodes:
            raise ConfigError(f"start_m has {len(self._start_m)} rows; give one for each of the {nodes} nodes")
        outside = ((self._start_m < 0) | (self._start_m > self._area_m)).any(axis=1)
        if outside.any():
            i = int(outside.argmax())
            raise ConfigError(
                f"start_m[{i}] = {self._start_m[i].tolist()} lies outside the area of {self._area_m.tolist()} m; "
                "x and y go from 0 to its width and height"
            )
        # Sum of the directions of the legs before leg k, [nodes, 2].
        self._legs: Snapshots[Floats] = Snapshots(0, np.zeros((nodes, 2)))

    @property
    def nodes(self) -> int:
        """How many terminals there are."""
        return len(self._everyone)

    def positions_m(self, time_s: float) -> Floats:
        """Positions inside the area at `time_s`, float64 [nodes, 2]."""
        leg = int(moment(time_s) // self._leg_s)
        walked = self._before(leg) * self._leg_s + self._direction(leg) * (time_s - leg * self._leg_s)
        # Walking freely in a plane that is folded up at the borders is walking with reflection.
        unfolded = np.mod(self._start_m + self._speed_mps * walked, 2 * self._area_m)
        return np.asarray(self._area_m - np.abs(self._area_m - unfolded))

    def _direction(self, leg: int) -> Floats:
        angle = 2 * np.pi * self._turned.uniform(self._everyone, leg)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def _before(self, leg: int) -> Floats:
        done, total = self._legs.last_before(leg)
        if done < leg:
            total = total.copy()
            for k in range(int(done), leg):
                total += self._direction(k)
            self._legs.remember(leg, total)
        return total


class RandomWaypoint:
    """To a random place at a random speed, a random pause, then to the next place.

    Places are uniform over the area, speeds and pauses uniform between their limits. Starts are uniform, too, and the
    first trip begins at 0 s; after a while terminals are more often in the middle than at the border, as is known of
    this model. A least speed of 0 is refused: ever more nodes would be on endless slow trips, so that the mean speed
    decays towards 0 and no two time spans of a run are comparable.

    Sources: Johnson, Maltz, "Dynamic source routing in ad hoc wireless networks", 1996; for the decay Yoon, Liu, Noble,
    "Random waypoint considered harmful", INFOCOM 2003.

    Args:
        nodes: how many.
        area_m: width and height; x goes from 0 to the width, y from 0 to the height.
        speed_mps: least and greatest speed; each one for all, or one per node [nodes].
        pause_s: shortest and longest pause, in the same way.
        seed: of places, speeds and pauses.

    Raises:
        ConfigError: a least speed that is not above 0, limits in the wrong order, another number out of range.
    """

    def __init__(
        self,
        nodes: int,
        area_m: tuple[float, float],
        speed_mps: tuple[ArrayLike, ArrayLike],
        pause_s: tuple[ArrayLike, ArrayLike],
        seed: int,
    ) -> None:
        self._everyone = np.arange(node_count(nodes))
        self._area_m = area(area_m)
        self._slowest, self._fastest = _limits("speed_mps", speed_mps, nodes)
        if (self._slowest <= 0).any():
            raise ConfigError(
                "speed_mps begins at 0: the mean speed of this model would decay towards 0; give one above 0, "
                "and pauses for those who stand"
            )
        self._shortest, self._longest = _limits("pause_s", pause_s, nodes)
        self._x, self._y = Draws(seed, "waypoint-x"), Draws(seed, "waypoint-y")
        self._speed, self._pause = Draws(seed, "waypoint-speed"), Draws(seed, "waypoint-pause")
        self._trips = Renewals(nodes, self._trip_s)

    @property
    def nodes(self) -> int:
        """How many terminals there are."""
        return len(self._everyone)

    def positions_m(self, time_s: float) -> Floats:
        """Positions inside the area at `time_s`, float64 [nodes, 2]."""
        trip, start_s = self._trips.at(time_s)
        way_m, travel_s, here_m = self._way(self._everyone, trip)
        part = np.divide(time_s - start_s, travel_s, out=np.ones_like(start_s), where=travel_s > 0)
        return np.asarray(here_m + np.minimum(part, 1.0)[:, None] * way_m)

    def _way(self, nodes: Indices, trip: Indices) -> tuple[Floats, Floats, Floats]:
        """Where to, as a vector [nodes, 2]; seconds it takes; where from [nodes, 2]."""
        here_m = _spread(nodes, trip, self._x, self._y) * self._area_m
        way_m = _spread(nodes, trip + 1, self._x, self._y) * self._area_m - here_m
        low, high = self._slowest[nodes], self._fastest[nodes]
        speed_mps = low + (high - low) * self._speed.uniform(nodes, trip)
        return way_m, np.hypot(way_m[:, 0], way_m[:, 1]) / speed_mps, here_m

    def _trip_s(self, nodes: Indices, trip: Indices) -> Floats:
        low, high = self._shortest[nodes], self._longest[nodes]
        pause_s = low + (high - low) * self._pause.uniform(nodes, trip)
        return np.asarray(self._way(nodes, trip)[1] + pause_s)


def _spread(nodes: Indices, turns: Indices | int, x: Draws, y: Draws) -> Floats:
    """Uniform places in the unit square, [nodes, 2]."""
    return np.stack([x.uniform(nodes, turns), y.uniform(nodes, turns)], axis=1)


def _limits(name: str, limits: tuple[ArrayLike, ArrayLike], nodes: int) -> tuple[Floats, Floats]:
    if not isinstance(limits, tuple | list) or len(limits) != 2:
        raise ConfigError(f"{name} = {limits}; give two limits (least, greatest)")
    low, high = (each(name, limit, nodes) for limit in limits)
    if (low > high).any():
        i = int((low > high).argmax())
        raise ConfigError(f"{name} = ({low[i]}, {high[i]}); give the lower limit first")
    return low, high
