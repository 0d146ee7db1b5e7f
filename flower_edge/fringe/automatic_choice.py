"""`choose`: machines, cuts, depths and methods by what an inference can be expected to take when compression has ended.

    expected frame = before + t (least - before)    t in [0, 1]: as far as the goals ask for, and no farther
    latency        = compute + coding + pairs + sum over connections of (8 frame / goodput + delay)

All selections of machines that keep their order, all cuts and all sets of methods are weighed, in this order: goals
that are possible, how far from the goals it is expected to end, latency, how far compression has to go, how many trials
that takes.
How few bytes a cut may come to is what a `Reach` says. Nothing here runs a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

from ..errors import FringeError
from .automatic_values import CutPlace, Given, ModelCosts, Reach
from .goals import Goals
from .links import Link, inference
from .placing import line_ups, way
from .wire import HEADER_BYTES

__all__ = ["METHOD_SETS", "Weighed", "between", "choose", "weigh_all"]

#: That are weighed where the user named none.
METHOD_SETS: Final = (
    (),
    ("quantisation",),
    ("quantisation", "pruning"),
    ("quantisation", "distillation"),
    ("quantisation", "pruning", "distillation"),
)
#: With more placements than this, only the cuts of the fewest bytes are looked at.
_MOST: Final = 4000
#: Latencies that differ by less are the same to somebody who waits.
_SAME_S: Final = 1e-6

Way = Callable[[int, int], Link]


@dataclass(frozen=True)
class Weighed:
    """A line-up of machines, cuts, a depth and methods, and what is expected of it.

    Attributes:
        machines: their numbers, rising.
        places: of the cuts, one fewer.
        methods, depth: see `Chosen`.
        links: between those machines.
        compute_s: of each machine, coding included.
        before_bytes, sizes_bytes: of each connection, uncompressed and expected.
        before_s, latency_s: of an inference, the same.
        least_s: were everything sent as few bytes as can be expected.
        octaves: how far compression has to go, over all connections.
        possible: whether any compression could meet the goals.
        missed: octaves by which bytes or latency are expected to miss them; 0: they can be expected to be met.
        trials: iterations until nothing is left to try.
    """

    machines: tuple[int, ...]
    places: tuple[CutPlace, ...]
    methods: tuple[str, ...]
    depth: int
    links: tuple[Link, ...]
    compute_s: tuple[float, ...]
    before_bytes: tuple[int, ...]
    sizes_bytes: tuple[float, ...]
    before_s: float
    latency_s: float
    least_s: float
    octaves: float
    possible: bool
    missed: float
    trials: float

    @property
    def reached(self) -> bool:
        """Whether the goals can be expected to be met."""
        return self.possible and self.missed == 0.0

    @property
    def rank(self) -> tuple[bool, float, int, float, float, int]:
        """The smallest is the best."""
        return (
            not self.possible,
            round(self.missed, 2),
            round(self.latency_s / _SAME_S),
            round(self.octaves, 6),
            self.trials,
            len(self.machines),
        )


def between(machines: Sequence[str], links: Sequence[Link] | Mapping[tuple[str, str], Link]) -> Way:
    """The link between two machines by their numbers: one of its own, or one after the other over those between.

    Args:
        machines: names, in order.
        links: between each two neighbours; or by two names, where others than neighbours may have one, too.

    Raises:
        FringeError: not one for each two neighbours.

    >>> between(["a", "b", "c"], [Link(1e6), Link(1e6)])(0, 2).goodput_bps
    500000.0
    """
    pairs = list(pairwise(machines))
    if isinstance(links, Mapping):
        own = dict(links)
        missing = [pair for pair in pairs if pair not in own]
        if missing:
            raise FringeError(f"no link from {missing[0][0]!r} to {missing[0][1]!r}; expected one between neighbours")
    else:
        if len(links) != len(pairs):
            raise FringeError(f"{len(links)} links for {len(machines)} machines; expected {len(pairs)}")
        own = dict(zip(pairs, links, strict=True))

    def found(start: int, stop: int) -> Link:
        direct = own.get((machines[start], machines[stop]))
        return direct if direct is not None else way([own[pair] for pair in pairs[start:stop]])

    return found


def choose(
    costs: ModelCosts,
    machines: Sequence[str],
    ways: Way,
    goals: Goals,
    reach: Reach,
    *,
    drop: float,
    speeds: Mapping[str, float],
    first: bool,
    last_machine: bool,
    given: Given,
    positions: Sequence[int] | None,
    room_bytes: Mapping[str, int],
    to_floor: bool = False,
) -> list[Weighed]:
    """The best of each line-up with its cuts, the best first; one at least.

    Args:
        costs: of the model.
        machines: names of all there are, in order.
        ways: see `between`.
        goals, reach, drop: what is asked for, what can be had, and how much worse the metric may become.
        speeds: of machines; 1 where nothing is said.
        first, last_machine: whether those have to be used.
        given: what is decided already; its cuts are `positions`.
        positions: of the cuts, where they are given.
        room_bytes: for parameters and buffers, of the machines that have a limit.
        to_floor: whether compression goes on to the floor, whatever the goals are.

    Raises:
        FringeError: no line-up is left that fits.
    """
    found = list(
        weigh_all(
            costs, machines, ways, goals, reach, drop=drop, speeds=speeds, first=first, last_machine=last_machine,
            given=given, positions=positions, room_bytes=room_bytes, to_floor=to_floor,
        )
    )  # fmt: skip
    if not found:
        raise FringeError(
            f"{len(costs.unit_s)} units of {sum(costs.unit_bytes)} bytes do not fit into {', '.join(machines)} with "
            f"{len(costs.places)} places to cut and room for {dict(room_bytes) or 'everything'}; expected more room, "
            "other cuts, or fewer machines that have to be used"
        )
    best: dict[tuple[tuple[int, ...], tuple[CutPlace, ...]], Weighed] = {}
    for one in found:
        key = one.machines, one.places
        if key not in best or one.rank < best[key].rank:
            best[key] = one
    return sorted(best.values(), key=lambda one: one.rank)


def weigh_all(
    costs: ModelCosts,
    machines: Sequence[str],
    ways: Way,
    goals: Goals,
    reach: Reach,
    *,
    drop: float,
    speeds: Mapping[str, float],
    first: bool,
    last_machine: bool,
    given: Given,
    positions: Sequence[int] | None,
    room_bytes: Mapping[str, int],
    to_floor: bool = False,
) -> Iterator[Weighed]:
    """All of them that fit; arguments as of `choose`."""
    before_s, before_bytes = ([0, *accumulate(one)] for one in (costs.unit_s, costs.unit_bytes))
    places = {place.position: place for place in costs.places}
    units, count = len(costs.unit_s), len(machines)
    wanted = None if given.machines is None else tuple(machines.index(name) for name in given.machines)
    sets = METHOD_SETS if given.methods is None else (tuple(given.methods),)
    depths = _depths(given, reach)
    least: dict[tuple[int, tuple[str, ...], int], float] = {}
    for methods in sets:
        for depth in depths:
            for place in costs.places:
                size = reach.least_bytes(place, costs.share(place), methods, depth, drop)
                least[place.position, methods, depth] = max(HEADER_BYTES + 1.0, min(size, float(place.size_bytes)))
    at = _looked_at(costs, count) if positions is None else list(positions)
    for used, cuts in line_ups(units, at, count, first_machine=first, last_machine=last_machine):
        if (wanted is not None and used != wanted) or (positions is not None and list(cuts) != list(positions)):
            continue
        ends = (0, *cuts, units)
        held = [before_bytes[stop] - before_bytes[start] for start, stop in pairwise(ends)]
        if any(size > room_bytes.get(machines[one], math.inf) for size, one in zip(held, used, strict=True)):
            continue
        rates = [speeds.get(machines[one], 1.0) for one in used]
        plain_s = [
            (before_s[stop] - before_s[start]) / rate for (start, stop), rate in zip(pairwise(ends), rates, strict=True)
        ]
        links = tuple(ways(a, b) for a, b in pairwise(used))
        chosen = tuple(places[cut] for cut in cuts)
        possible = _possible(goals, [place.size_bytes for place in chosen], links, plain_s)
        for methods in sets:
            for depth in depths:
                sizes = [least[cut, methods, depth] for cut in cuts]
                yield _weigh(
                    used, chosen, methods, depth, links, plain_s, rates, sizes, goals, possible, reach.trials(methods),
                    to_floor,
                )  # fmt: skip


def _weigh(
    used: tuple[int, ...],
    places: tuple[CutPlace, ...],
    methods: tuple[str, ...],
    depth: int,
    links: tuple[Link, ...],
    plain_s: Sequence[float],
    rates: Sequence[float],
    least: Sequence[float],
    goals: Goals,
    possible: bool,
    trials: float,
    to_floor: bool,
) -> Weighed:
    before = [place.size_bytes for place in places]
    before_s = inference(before, links, plain_s).latency_s
    most_bytes, most_s = goals.most_bytes(sum(before)), goals.most_seconds(before_s)
    coded_s = list(plain_s) if not methods else _coded(places, methods, plain_s, rates)
    least_s = inference(least, links, coded_s).latency_s
    full_s = inference(before, links, coded_s).latency_s
    # Both fall in a straight line from all bytes to the least.
    t = max(_share(sum(before), sum(least), most_bytes), _share(full_s, least_s, most_s) if before_s > most_s else 0.0)
    short = 0.0
    if to_floor:
        t, possible = 1.0 if methods else 0.0, True
    if t > 1.0:
        t = 1.0
        short = max(_octaves(sum(least), most_bytes), _octaves(least_s, most_s), 0.0) or 1e-9
    sizes = [size + t * (end - size) for size, end in zip(before, least, strict=True)]
    compute_s = coded_s if t > 0 else list(plain_s)
    return Weighed(
        used, places, methods, depth, links, tuple(compute_s), tuple(before), tuple(sizes), before_s,
        inference(sizes, links, compute_s).latency_s, least_s,
        sum(math.log2(size / end) for size, end in zip(before, sizes, strict=True)),
        possible, short, trials,
    )  # fmt: skip


def _possible(goals: Goals, sizes: Sequence[int], links: Sequence[Link], plain_s: Sequence[float]) -> bool:
    if not sizes:  # one machine: nothing to send, and nothing to shorten
        return sum(plain_s) <= goals.most_seconds(sum(plain_s))
    try:
        goals.refuse_impossible(sizes, links, plain_s)
    except FringeError:
        return False
    return True


def _coded(
    places: Sequence[CutPlace], methods: Sequence[str], plain_s: Sequence[float], rates: Sequence[float]
) -> list[float]:
    """Seconds of each machine with what coding and pairs take."""
    found = list(plain_s)
    for number, place in enumerate(places):
        pair = place.pair_s if "distillation" in methods and place.pair_bytes is not None else (0.0, 0.0)
        for end in (0, 1):
            found[number + end] += (place.code_s[end] + pair[end]) / rates[number + end]
    return found


def _octaves(now: float, most: float) -> float:
    """By how much there is more than the most; inf where nothing may be left."""
    if most == math.inf or not now:
        return -math.inf
    return math.log2(now / most) if most > 0.0 else math.inf


def _share(before: float, least: float, most: float) -> float:
    """How far from all to the least one has to go to keep `most`; above 1: farther than that."""
    if before <= most:
        return 0.0
    return (before - most) / (before - least) if before > least else math.inf


def _depths(given: Given, reach: Reach) -> tuple[int, ...]:
    named = set((given.depth or {}).values())
    if named:
        return (max(named),)
    return reach.depths or (1,)


def _looked_at(costs: ModelCosts, machines: int) -> list[int]:
    """Positions: all of them, unless that were too many placements."""
    places = sorted(costs.places, key=lambda place: (place.size_bytes, place.position))
    fit = len(places)
    while (
        fit > machines and sum(math.comb(machines, n) * math.comb(fit, n - 1) for n in range(1, machines + 1)) > _MOST
    ):
        fit -= 1
    return sorted(place.position for place in places[:fit])
