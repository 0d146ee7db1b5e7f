"""Which cuts, which of the machines, how deep a fringe and which methods to begin with: from what was measured.

    latency = sum over machines of units' seconds / speed + sum over connections of (8 bytes / shrink / goodput + delay)

`place` tries all cuts for the machines in their order, and for all selections of them that keep it: exact, and quick
for tens of units and a few machines. `methods_for` and `depth_for` are rules. Nothing here runs a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from ..errors import FringeError
from .links import Link, inference

__all__ = ["Placement", "depth_for", "line_ups", "methods_for", "place", "way"]


@dataclass(frozen=True)
class Placement:
    """A model on some machines.

    Attributes:
        machines: numbers of those that are used, rising; the first one always is, for it has the input.
        cuts: numbers of units before each cut, one fewer than machines.
        latency_s: of an inference, with what crosses shrunk as was assumed.
    """

    machines: tuple[int, ...]
    cuts: tuple[int, ...]
    latency_s: float


def place(
    unit_s: Sequence[float],
    cut_bytes: Sequence[float],
    speeds: Sequence[float],
    links: Sequence[Link],
    *,
    shrink: float = 1.0,
    most_units: Sequence[int | None] | None = None,
    last_machine: bool = False,
) -> Placement:
    """The placement of least latency; of equals that with fewer machines.

    Args:
        unit_s: seconds of each unit of the model on a machine of speed 1.
        cut_bytes: that cross the cut after each unit but the last, one fewer, without compression.
        speeds: of the machines, in the order in which an inference may pass them.
        links: between each two that follow one another, one fewer. Over a machine that is left out a frame goes through
            both of its links, one after the other.
        shrink: by how much compression can be expected to shrink what crosses: 1 not at all, 20 twentyfold.
        most_units: that fit into each machine; None, or None for one: no limit.
        last_machine: whether the last one has to be used, because it needs the output.

    Raises:
        FringeError: counts that do not go together, a number that is none, or a model that does not fit.

    >>> place([0.01, 0.02], [1000], [1.0, 10.0], [Link(1e6, 0.001)]).cuts
    (1,)
    """
    units, count = len(unit_s), len(speeds)
    room = [units if most is None else most for most in (most_units or [None] * count)]
    if not units or not count or len(cut_bytes) != units - 1 or len(links) != count - 1 or len(room) != count:
        raise FringeError(
            f"{units} units with {len(cut_bytes)} cuts, {count} machines with {len(links)} links; expected one "
            "fewer each"
        )
    numbers = (*unit_s, *cut_bytes, *speeds, shrink)
    if any(not (math.isfinite(one) and one >= 0) for one in numbers) or not shrink >= 1 or not all(speeds):
        raise FringeError(f"numbers below 0, a speed of 0, or shrink = {shrink}: expected 0 or more, and 1 or more")
    best: Placement | None = None
    for machines, cuts in line_ups(units, range(1, units), count, last_machine=last_machine):
        ends = (0, *cuts, units)
        held = [stop - start for start, stop in pairwise(ends)]
        if any(one > room[machine] for one, machine in zip(held, machines, strict=True)):
            continue
        compute = [
            sum(unit_s[start:stop]) / speeds[machine]
            for start, stop, machine in zip(ends, ends[1:], machines, strict=False)
        ]
        ways = [way(links[a:b]) for a, b in pairwise(machines)]
        latency_s = inference([cut_bytes[cut - 1] / shrink for cut in cuts], ways, compute).latency_s
        if best is None or latency_s < best.latency_s:
            best = Placement(machines, cuts, latency_s)
    if best is None:
        raise FringeError(f"{units} units do not fit into machines for {room}; expected more room, or more machines")
    return best


def line_ups(
    units: int, positions: Sequence[int], machines: int, *, first_machine: bool = True, last_machine: bool = False
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All selections of machines that keep their order, with all cuts for them; those with fewer machines first.

    Args:
        units: of the model.
        positions: where it may be cut, rising.
        machines: how many there are.
        first_machine, last_machine: whether those have to be used.

    >>> list(line_ups(3, [1, 2], 2))
    [((0,), ()), ((0, 1), (1,)), ((0, 1), (2,))]
    """
    for used in range(1, min(units, machines, len(positions) + 1) + 1):
        for chosen in combinations(range(machines), used):
            if (first_machine and chosen[0] != 0) or (last_machine and chosen[-1] != machines - 1):
                continue
            for cuts in combinations(positions, used - 1):
                yield chosen, cuts


def way(links: Sequence[Link]) -> Link:
    """Over several links: a frame is passed on when all of it is there.

    >>> way([Link(10e6, 0.010), Link(10e6, 0.005)])
    Link(goodput_bps=5000000.0, delay_s=0.015)
    """
    slow = math.fsum(1.0 / link.goodput_bps for link in links)
    return Link(1.0 / slow if slow else math.inf, math.fsum(link.delay_s for link in links))


def depth_for(shrink: float) -> int:
    """How deep a fringe to begin with: deeper where more has to be made up for.

    1 up to fourfold, which 8 bits alone reach; 2 beyond: with a residual block that is all of its layers.

    >>> depth_for(4), depth_for(20)
    (1, 2)
    """
    if not shrink >= 1:
        raise FringeError(f"shrink = {shrink}: expected 1 or more")
    return 1 if shrink <= 4 else 2


def methods_for(
    size_bytes: float, link: Link, shrink: float, *, pair_s: float = 0.0, prunable: bool = True
) -> tuple[str, ...]:
    """Methods to allow at a connection; none where its link is so fast that nothing pays.

    Args:
        size_bytes: of an inference now.
        link: as measured.
        shrink: that is aimed at.
        pair_s: seconds that an encoder and a decoder take together.
        prunable: False for the stream of a transformer.

    >>> methods_for(65_560, Link(10e6, 0.01), 20, pair_s=0.001)
    ('quantisation', 'pruning', 'distillation')
    >>> methods_for(65_560, Link(10e9, 0.0001), 20, pair_s=0.001)
    ('quantisation', 'pruning')
    """
    saved_s = 8 * size_bytes * (1 - 1 / shrink) / link.goodput_bps
    if not saved_s > 0:
        return ()
    found = ["quantisation"]
    if shrink > 4 and prunable:
        found.append("pruning")
    if shrink > 4 and saved_s > pair_s:
        found.append("distillation")
    return tuple(found)
